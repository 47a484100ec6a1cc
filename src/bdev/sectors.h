/* SPDX-License-Identifier: BSD-2-Clause */
/* What the registry of bdevs needs of sectors.c. */
#ifndef SLUICE_BDEV_SECTORS_H
#define SLUICE_BDEV_SECTORS_H

#include "bdev/bdev.h"

/* Makes the view in sectors of @b, whose blocks are larger. NULL without memory. */
struct bdev *sectors_create(struct bdev *b);
/* No channel of the view may be open. */
void sectors_destroy(struct bdev *view);

#endif

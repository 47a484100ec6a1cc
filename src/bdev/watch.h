/* SPDX-License-Identifier: BSD-2-Clause */
/* What the registry of bdevs tells the watch. */
#ifndef SLUICE_BDEV_WATCH_H
#define SLUICE_BDEV_WATCH_H

/* Somebody has come to use a bdev whose size may change. */
void watch_wake(void);

#endif

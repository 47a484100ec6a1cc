/* SPDX-License-Identifier: BSD-2-Clause */
/* How src/grant and src/xen open libxengnttab: its own complaints go to our log, for debugging. */
#ifndef SLUICE_GRANT_LIBRARY_H
#define SLUICE_GRANT_LIBRARY_H

#include <xengnttab.h>

/* As xengnttab_open(). NULL with errno. */
xengnttab_handle *grant_library_open(void);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* How Sluice opens Xen's libraries: their own complaints go to our log, for debugging. */
#ifndef SLUICE_GRANT_LIBRARY_H
#define SLUICE_GRANT_LIBRARY_H

#include <xengnttab.h>

/* As xengnttab_open(). NULL with errno. */
xengnttab_handle *grant_library_open(void);

/* For those who open another of the libraries. */
struct xentoollog_logger *grant_library_get_logger(void);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* What tests of all folders use to see that descriptors neither leak nor go missing. */
#ifndef SLUICE_TEST_FDS_H
#define SLUICE_TEST_FDS_H

/* Descriptors this process has open, and always the same few more: what counts is a difference. */
unsigned fds_count(void);

#endif

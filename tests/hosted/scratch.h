/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * scratch: the files of a test of grants, in a directory that is made and removed around all tests
 * of a program: a ledger, and what stands for a parameter of the kernel's.
 */
#ifndef SLUICE_TEST_SCRATCH_H
#define SLUICE_TEST_SCRATCH_H

/* For cmocka, as a group's setup and teardown. */
int scratch_make(void **state);
int scratch_remove(void **state);

extern char scratch_ledger[];
/* Who opens the file that the test names here gets the other one, which is not there at first. */
extern const char scratch_stands_for[];
extern char scratch_parameter[];

#endif

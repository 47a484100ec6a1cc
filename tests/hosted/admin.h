/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * admin: what an administrator asks of the first disk (xvda) of world.guest, on the control thread.
 * What is asked has to be accepted, unless it says otherwise.
 */
#ifndef SLUICE_TEST_ADMIN_H
#define SLUICE_TEST_ADMIN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { ADMIN_DEVID = 51712 };

void admin_pause(void);
/* The same, and returns what the backend did, 0 or a negative errno. */
int admin_try_pause(void);
void admin_resume(void);
/* Sets limits, 0 for none. */
void admin_limit(uint64_t ios_per_sec, uint64_t bytes_per_sec);
/* The same, for what already runs on the control thread; returns what the backend did. */
int admin_pause_here(void);
int admin_limit_here(uint64_t ios_per_sec, uint64_t bytes_per_sec);

/* How many pauses have come to rest; waits for @n of them, and false if that takes too long. */
int admin_quiet(void);
bool admin_wait_quiet(int n);
/* How many pauses have ended with an error; waits in the same way. */
int admin_failed(void);
bool admin_wait_failed(int n);

/* A value of the disk of that domain as it is listed; valid until the next call. NULL: no such. */
const json_t *admin_listed_of(unsigned domid, const char *key);
/* The same of world.guest's, and one of its limits. */
const json_t *admin_listed(const char *key);
int64_t admin_listed_limit(const char *key);

/* Forgets all that was asked so far: for world_setup() and world_teardown(). */
void admin_forget(void);

#endif

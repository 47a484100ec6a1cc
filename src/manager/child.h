/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's process. It gets an empty standard input, two pipes for what it says, the worker's
 * socket as descriptor 3, and nothing else; it leads a process group of its own, so that whatever
 * it has started ends with it, and it does not outlive the manager.
 */
#ifndef SLUICE_MANAGER_CHILD_H
#define SLUICE_MANAGER_CHILD_H

#include <sys/types.h>

enum { CHILD_SOCKET = 3 };

struct child {
	pid_t pid;    /* 0: none */
	int pidfd;    /* polls readable when it has ended */
	int out, err; /* reading ends of its standard output and error, non-blocking */
};

/* Lets this process have as many descriptors as the system allows; children have as many as it had
 * before. */
void child_raise_limit(void);
/*
 * Starts @argv, looked up in PATH, as worker @number with @socket, which stays the caller's, and
 * with the environment's SIVSHM and SIVSHM_WORKER set. Returns 0, or a negative errno, also when
 * the program cannot be executed; then there is no child.
 */
int child_start(struct child *c, char *const argv[], int socket, unsigned number);
/* Sends a signal to all of its process group, and to itself if it has left that. */
void child_signal(const struct child *c, int signal);
/*
 * Collects a child that has ended or was killed, kills what is left of its group, and closes the
 * descriptors. Returns waitpid()'s status; of one that does not let itself be collected, which is
 * not waited for long, that of a killed one.
 */
int child_collect(struct child *c);

#endif

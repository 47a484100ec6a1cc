/* SPDX-License-Identifier: BSD-2-Clause */
/* Guests and how they are started, for those commands of segment-probe that run on the host. */
#ifndef LAB_SEGMENT_LEAD_H
#define LAB_SEGMENT_LEAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "segment-probe.h"

enum { LEAD_WORKERS_MAX = 16 };

struct probe {
	struct sivshm_worker *worker;
	struct sivshm_port *port;
	struct probe_page *page;
	unsigned number;
	pid_t pid;
	bool gone;
};

struct lead {
	struct sivshm_manager *manager;
	struct probe probes[LEAD_WORKERS_MAX];
	unsigned workers;
	unsigned vectors;
	uint64_t segment;
	const char *hook;
	char **command;
	int64_t started;
};

extern struct lead lead;

int64_t lead_now_ms(void);
void lead_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void lead_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void lead_usage(void) __attribute__((noreturn));
void lead_parse(int argc, char **argv);
/* Starts the command that becomes the guest's QEMU; it inherits @fd, unless that is -1. */
void lead_start_command(struct probe *p, int fd);
/* Makes a worker and starts its guest. */
void lead_start_worker(struct probe *p);

#endif

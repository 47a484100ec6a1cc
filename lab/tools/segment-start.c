/* SPDX-License-Identifier: BSD-2-Clause */
/* Starts guests, each with the command that becomes its QEMU; and says how all of it goes. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "segment-lead.h"

struct lead lead;

int64_t lead_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void lead_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void lead_die(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "segment-probe: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(1);
}

static void worker_gone(struct sivshm_worker *w, void *arg)
{
	struct probe *p = arg;

	(void)w;
	p->gone = true;
}

/* Starting */

void lead_start_command(struct probe *p, int fd)
{
	char text[16];

	p->pid = fork();
	if (p->pid < 0)
		lead_die("cannot fork: %s", strerror(errno));
	if (p->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd >= 0) {
		fcntl(fd, F_SETFD, 0);
		snprintf(text, sizeof(text), "%d", fd);
		setenv("SEGMENT_FD", text, 1);
	}
	snprintf(text, sizeof(text), "%u", lead.vectors);
	setenv("SEGMENT_VECTORS", text, 1);
	snprintf(text, sizeof(text), "%u", p->number);
	setenv("SEGMENT_INDEX", text, 1);
	execvp(lead.command[0], lead.command);
	fprintf(stderr, "segment-probe: cannot start %s: %s\n", lead.command[0], strerror(errno));
	_exit(127);
}

void lead_start_worker(struct probe *p)
{
	struct sivshm_worker_opts opts = {
		.struct_bytes = sizeof(opts),
		.segment_bytes = lead.segment,
		.vectors = lead.vectors,
		.own_rings = true,
		.gone = worker_gone,
		.arg = p,
	};
	int fd, rc = sivshm_worker_add(lead.manager, &opts, &p->worker);

	if (rc)
		lead_die("cannot make a worker: %s", strerror(-rc));
	p->port = sivshm_worker_port(p->worker);
	p->page = sivshm_port_memory(p->port);
	fd = sivshm_worker_take_socket(p->worker);
	if (fd < 0)
		lead_die("worker %u has no socket: %s", p->number, strerror(-fd));
	lead_start_command(p, fd);
	close(fd);
}

/* Options */

void lead_usage(void)
{
	lead_die("usage: segment-probe lead|boot WAY --workers N --segment BYTES --vectors V "
		 "[--hook PROGRAM] COMMAND...");
}

void lead_parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"workers", required_argument, NULL, 'w'},
		{"segment", required_argument, NULL, 's'},
		{"vectors", required_argument, NULL, 'v'},
		{"hook", required_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (option == 'w')
			lead.workers = (unsigned)atoi(optarg);
		else if (option == 's')
			lead.segment = strtoull(optarg, NULL, 0);
		else if (option == 'v')
			lead.vectors = (unsigned)atoi(optarg);
		else if (option == 'h')
			lead.hook = optarg;
		else
			lead_usage();
	}
	if (lead.workers < 2 || lead.workers > LEAD_WORKERS_MAX || lead.vectors < 2 ||
	    lead.segment < 8 * PROBE_PAGE || optind == argc)
		lead_usage();
	lead.command = argv + optind;
}

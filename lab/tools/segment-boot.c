/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * segment-probe boot direct|PATH --workers N --segment BYTES --vectors V COMMAND...
 *
 * How long N guests need from the start of the first QEMU to the doorbell of the last, in
 * milliseconds: with a segment and a socket of its own each (direct), or as peers of the classic
 * distributor that listens at PATH, where this program is a peer, too, and the one that is rung.
 * COMMAND becomes a guest's QEMU; it finds the socket's number in SEGMENT_FD, or the path in
 * SEGMENT_PATH, and whom its guest is to ring in SEGMENT_PEER.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"
#include "segment-lead.h"
#include "segment-probe.h"

enum { BOOT_MS = 120000 };

/* The classic's peer */

struct peer {
	int socket;
	int64_t id;
	int doorbell; /* its own vector 0 */
	unsigned vectors;
};

static void connect_peer(struct peer *p, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	*p = (struct peer){
		.socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), .id = -1, .doorbell = -1};
	if (p->socket < 0 || connect(p->socket, (struct sockaddr *)&address, sizeof(address)))
		lead_die("cannot connect to %s: %s", path, strerror(errno));
}

/* Takes one message; what it says of others does not matter here. */
static void take_message(struct peer *p, unsigned number)
{
	int64_t value;
	int fd, rc = sivshm_wire_receive(p->socket, sivshm_deadline(BOOT_MS), &value, &fd);

	if (rc)
		lead_die("the distributor does not speak: %s", strerror(-rc));
	if (number == 1)
		p->id = value;
	if (number > 1 && fd >= 0 && value == p->id && p->doorbell < 0) {
		p->doorbell = fd;
		fd = -1;
	}
	if (fd >= 0)
		close(fd);
}

static void await_peers(struct peer *p, unsigned rings, unsigned number)
{
	int64_t end = lead_now_ms() + BOOT_MS;
	unsigned rung = 0;

	while (rung < rings) {
		struct pollfd fds[2] = {{.fd = p->socket, .events = POLLIN},
					{.fd = p->doorbell, .events = POLLIN}};
		uint64_t count;

		if (lead_now_ms() > end)
			lead_die("%u of %u guests have rung within %d s", rung, rings,
				 BOOT_MS / 1000);
		if (poll(fds, 2, 1000) < 0)
			lead_die("cannot wait: %s", strerror(errno));
		if (fds[0].revents)
			take_message(p, number++);
		/* A guest rings once, and an eventfd counts. */
		if (fds[1].revents && read(p->doorbell, &count, sizeof(count)) == sizeof(count))
			rung += (unsigned)count;
	}
}

static int64_t boot_classic(const char *path)
{
	struct peer p;
	unsigned number = 0;
	int64_t started;

	connect_peer(&p, path);
	while (p.doorbell < 0)
		take_message(&p, number++);
	setenv("SEGMENT_PATH", path, 1);
	started = lead_now_ms();
	for (unsigned i = 0; i < lead.workers; i++) {
		char peer[32];

		snprintf(peer, sizeof(peer), "%lld", (long long)p.id);
		setenv("SEGMENT_PEER", peer, 1);
		lead.probes[i].number = i;
		lead_start_command(&lead.probes[i], -1);
	}
	await_peers(&p, lead.workers, number);
	return lead_now_ms() - started;
}

static int64_t boot_direct(void)
{
	int64_t started;
	int rc;

	setenv("SEGMENT_PEER", "pair", 1);
	started = lead_now_ms();
	rc = sivshm_manager_create(NULL, &lead.manager);
	if (rc)
		lead_die("no manager: %s", strerror(-rc));
	for (unsigned i = 0; i < lead.workers; i++) {
		lead.probes[i].number = i;
		lead_start_worker(&lead.probes[i]);
	}
	for (unsigned i = 0; i < lead.workers; i++) {
		rc = sivshm_port_wait(lead.probes[i].port, 0, BOOT_MS);
		if (rc != 1)
			lead_die("guest %u has not rung: %s", i, rc ? strerror(-rc) : "timeout");
	}
	return lead_now_ms() - started;
}

int probe_boot(int argc, char **argv)
{
	int64_t took;

	if (argc < 2)
		lead_usage();
	lead_parse(argc - 1, argv + 1);
	took = strcmp(argv[1], "direct") ? boot_classic(argv[1]) : boot_direct();
	printf("%lld\n", (long long)took);
	for (unsigned i = 0; i < lead.workers; i++) {
		kill(lead.probes[i].pid, SIGKILL);
		waitpid(lead.probes[i].pid, NULL, 0);
	}
	return 0;
}

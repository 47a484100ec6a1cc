/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The worker of the tool's tests: its first argument says what it does. Those that are hostile are
 * so as worker 0 only, and the others do as `echo` does.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <unistd.h>

#include "sivshm.h"
#include "sivshm_items.h"

enum { OPEN_MS = 10000, HEAD = sizeof(struct sivshm_items_head) };

static void need(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-rc));
	exit(EXIT_FAILURE);
}

static bool is_first(void)
{
	const char *number = getenv("SIVSHM_WORKER");

	return number && !strcmp(number, "0");
}

static struct sivshm_port *open_port(void)
{
	struct sivshm_port *p = NULL;

	need(sivshm_open(NULL, OPEN_MS, &p), "open");
	return p;
}

/* Workers without items */

static unsigned segments_mapped(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned n = 0;

	while (f && fgets(line, sizeof(line), f))
		n += strstr(line, "memfd:") != NULL;
	if (f)
		fclose(f);
	return n;
}

static int describe(void)
{
	struct sivshm_port *p = open_port();

	printf("id %u peer %u vectors %u bytes %zu memfds %u\n", sivshm_port_id(p),
	       sivshm_port_peer(p), sivshm_port_vectors(p), sivshm_port_size(p), segments_mapped());
	sivshm_port_close(p);
	return 0;
}

static int ring(void)
{
	struct sivshm_port *p = open_port();
	int rc;

	need(sivshm_port_ring(p, 1), "ring");
	rc = sivshm_port_wait(p, 1, 1000);
	if (rc == 1)
		puts("rung back");
	sivshm_port_close(p);
	return rc != 1;
}

static void __attribute__((noreturn)) pause_for_ever(void)
{
	for (;;)
		pause();
}

static int hold(void)
{
	struct sivshm_port *p = open_port();

	memset(sivshm_port_memory(p), 1, sivshm_port_size(p));
	puts("holding");
	fflush(stdout);
	pause_for_ever();
}

/* Workers with items */

static void copy_data(struct sivshm_items *s)
{
	const void *data;
	size_t bytes;
	int rc;

	while ((rc = sivshm_items_read(s, &data, &bytes)) == 1)
		need(sivshm_items_write(s, data, bytes), "write");
	if (rc == -EIO)
		fprintf(stderr, "incomplete\n");
	else
		need(rc, "read");
}

/*
 * "echo" answers the data as it is, "which" after the worker's number, and "name" the item's name
 * instead; "die" and "stop" do so in the middle of their second item.
 */
static void answer(struct sivshm_items *s, const struct sivshm_item *item, const char *mode,
		   unsigned nth)
{
	const char *number = getenv("SIVSHM_WORKER");
	char text[200];

	if (!strcmp(mode, "name")) {
		snprintf(text, sizeof(text), "%s %s %llu\n", number, item->name,
			 (unsigned long long)item->id);
		need(sivshm_items_write(s, text, strlen(text)), "write");
		return;
	}
	if (!strcmp(mode, "which")) {
		snprintf(text, sizeof(text), "%s ", number);
		need(sivshm_items_write(s, text, strlen(text)), "write");
	}
	copy_data(s);
	if (nth != 2 || !is_first())
		return;
	if (strcmp(mode, "die") && strcmp(mode, "stop"))
		return;
	/* So much that a part of it is sent. */
	for (int i = 0; i < 20000; i++)
		need(sivshm_items_write(s, "partial\n", 8), "write");
	raise(strcmp(mode, "die") ? SIGSTOP : SIGKILL);
}

static void on_alarm(int number)
{
}

/* A signal that interrupts whatever waits, a thousand times a second. */
static void start_alarms(void)
{
	const struct sigaction action = {.sa_handler = on_alarm};
	const struct itimerval often = {{.tv_usec = 1000}, {.tv_usec = 1000}};

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

static int work(const char *mode)
{
	struct sivshm_items *s = NULL;
	struct sivshm_item item;
	unsigned nth = 0;
	int rc;

	need(sivshm_items_open(NULL, OPEN_MS, &s), "open");
	if (!strcmp(mode, "alarms"))
		start_alarms();
	while ((rc = sivshm_items_next(s, &item)) == 1) {
		answer(s, &item, mode, ++nth);
		if (!strcmp(mode, "slow"))
			usleep(100000);
		/* Its last words come while the manager does not listen. */
		if (!strcmp(mode, "last"))
			kill(getppid(), SIGSTOP);
		need(sivshm_items_done(s, strcmp(mode, "fail") || !is_first() ? NULL : "no\tluck"),
		     "done");
		if (!strcmp(mode, "last"))
			return 0;
	}
	need(rc, "next");
	sivshm_items_close(s);
	return 0;
}

/* Hostile workers, who speak the protocol by hand */

static struct sivshm_channel *channel;

static void send_message(uint32_t kind, uint32_t code, uint64_t item, size_t bytes)
{
	const struct sivshm_items_head head = {kind, code, item};
	void *room = NULL;

	while (sivshm_channel_reserve(channel, HEAD + bytes, &room) == -EAGAIN)
		need(sivshm_channel_wait_room(channel, HEAD + bytes, -1), "wait");
	memcpy(room, &head, HEAD);
	memset((char *)room + HEAD, 'x', bytes);
	sivshm_channel_commit(channel, HEAD + bytes);
	sivshm_channel_push(channel);
}

static struct sivshm_items_head receive(uint32_t kind)
{
	struct sivshm_items_head head = {0};
	const void *data;
	size_t bytes;

	do {
		while (!sivshm_channel_receive(channel, &data, &bytes))
			need(sivshm_channel_wait(channel, -1), "receive");
		memcpy(&head, data, HEAD);
		sivshm_channel_release(channel);
	} while (head.kind != kind);
	return head;
}

static void send_short(void)
{
	need(sivshm_channel_send(channel, "abc", 3), "send");
	sivshm_channel_push(channel);
}

static void break_ring(struct sivshm_port *p)
{
	memset(sivshm_port_memory(p), 0xee, sivshm_port_size(p));
	for (unsigned i = 0; i < 1000; i++)
		sivshm_port_ring(p, 0);
}

/* Has itself traced by a process of another group: when it has ended, nobody else can collect it.
 */
static void be_held(void)
{
	pid_t tool = getppid(), me = getpid(), helper;
	int ready[2];
	char byte;

	need(pipe(ready), "pipe");
	helper = fork();
	need(helper, "fork");
	if (helper) {
		prctl(PR_SET_PTRACER, helper);
		close(ready[1]);
		need((int)read(ready[0], &byte, 1), "read");
		return;
	}
	setsid();
	alarm(60);
	while (ptrace(PTRACE_SEIZE, me, NULL, NULL) && getppid() == me)
		usleep(1000);
	if (write(ready[1], "", 1) != 1)
		_exit(EXIT_FAILURE);
	while (!kill(tool, 0))
		usleep(10000);
	_exit(EXIT_SUCCESS);
}

static void misbehave(struct sivshm_port *p, const char *how)
{
	struct sivshm_items_head item = {0};

	if (!strcmp(how, "silent"))
		return;
	if (!strcmp(how, "move")) {
		/* To where the tool's signals for its own group do not come. */
		need(setpgid(0, getpgid(getppid())), "setpgid");
		return;
	}
	if (!strcmp(how, "held")) {
		be_held();
		return;
	}
	if (!strcmp(how, "version")) {
		send_message(SIVSHM_ITEMS_HELLO, SIVSHM_ITEMS_VERSION + 1, 0, 0);
		return;
	}
	if (!strcmp(how, "unasked")) {
		send_message(SIVSHM_ITEMS_DONE, 0, 1, 0);
		return;
	}
	send_message(SIVSHM_ITEMS_HELLO, SIVSHM_ITEMS_VERSION, 0, 0);
	item = receive(SIVSHM_ITEMS_ITEM);
	if (!strcmp(how, "early"))
		send_message(SIVSHM_ITEMS_DONE, 0, item.item, 0);
	receive(SIVSHM_ITEMS_END);
	if (!strcmp(how, "unknown"))
		send_message(SIVSHM_ITEMS_RESULT, 0, item.item + 100000, 10);
	else if (!strcmp(how, "kind"))
		send_message(99, 0, item.item, 0);
	else if (!strcmp(how, "code"))
		send_message(SIVSHM_ITEMS_DONE, 2, item.item, 0);
	else if (!strcmp(how, "text"))
		send_message(SIVSHM_ITEMS_DONE, 1, item.item, SIVSHM_ITEMS_TEXT_MAX + 1);
	else if (!strcmp(how, "short"))
		send_short();
	else if (!strcmp(how, "long"))
		send_message(SIVSHM_ITEMS_RESULT, 0, item.item, SIVSHM_ITEMS_MESSAGE_MAX);
	else if (!strcmp(how, "ring"))
		break_ring(p);
	else if (!strcmp(how, "close"))
		sivshm_port_close(p);
	else if (!strcmp(how, "twice"))
		for (int i = 0; i < 2; i++)
			send_message(SIVSHM_ITEMS_DONE, 0, item.item, 0);
	else if (!strcmp(how, "flood"))
		for (;;)
			send_message(SIVSHM_ITEMS_RESULT, 0, item.item, 32768);
	else if (!strcmp(how, "storm"))
		for (;;)
			sivshm_port_ring(p, 0);
}

static int attack(const char *how)
{
	const struct sivshm_channel_opts opts = {.struct_bytes = sizeof(opts)};
	struct sivshm_port *p = open_port();

	need(sivshm_channel_attach(p, &opts, &channel), "attach");
	misbehave(p, how);
	/* It will not go by itself. */
	signal(SIGTERM, SIG_IGN);
	pause_for_ever();
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "echo";

	if (!strcmp(mode, "describe"))
		return describe();
	if (!strcmp(mode, "ring"))
		return ring();
	if (!strcmp(mode, "hold"))
		return hold();
	if (!strcmp(mode, "attack"))
		return is_first() ? attack(argv[2]) : work("echo");
	return work(mode);
}

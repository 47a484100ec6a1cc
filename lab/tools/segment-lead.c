/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * segment-probe lead --workers N --segment BYTES --vectors V [--hook PROGRAM] COMMAND...
 *
 * Makes N workers, starts COMMAND for each with the handshake's socket as descriptor SEGMENT_FD
 * (and its number as SEGMENT_INDEX), which has to become its guest's QEMU, and waits for the
 * guests' first doorbells. Then it has them try, one after the other, what must not work, and what
 * must; PROGRAM is run in between with the pids of all of them, and can fail the run. In the end
 * one guest is killed, and its memory has to be free with that. Says what it has seen, a line each,
 * and ends with 0 only if all was as it should be.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "segment-lead.h"

enum {
	BOOT_MS = 120000,
	PATIENCE_MS = 60000,
	GONE_MS = 5000,
	ROUNDS = 50,
};

/* Commands */

/* Waits until the worker has rung vector 0 and said to be done with @number (0: hello). */
static void await(struct probe *p, uint32_t number, int timeout_ms)
{
	int64_t end = lead_now_ms() + timeout_ms;

	for (;;) {
		int64_t left = end - lead_now_ms();
		int rc;

		if (number ? atomic_load(&p->page->done) == number : atomic_load(&p->page->hello))
			return;
		rc = sivshm_port_wait(p->port, 0, left > 0 ? (int)left : 0);
		if (rc < 0)
			lead_die("worker %u is gone: %s", p->number, strerror(-rc));
		if (!rc)
			lead_die("worker %u has not rung within %d s", p->number,
				 timeout_ms / 1000);
	}
}

static void begin(struct probe *p, enum probe_command command, uint64_t a, uint64_t b)
{
	int rc;

	sivshm_port_take(p->port, 0);
	p->page->command = command;
	p->page->arguments[0] = a;
	p->page->arguments[1] = b;
	atomic_fetch_add(&p->page->asked, 1);
	rc = sivshm_port_ring(p->port, 0);
	if (rc)
		lead_die("worker %u cannot be rung: %s", p->number, strerror(-rc));
}

static void end(struct probe *p)
{
	await(p, atomic_load(&p->page->asked), PATIENCE_MS);
	if (p->page->status)
		lead_die("worker %u, command %u: %s", p->number, p->page->command,
			 strerror(-p->page->status));
}

static void tell(struct probe *p, enum probe_command command, uint64_t a, uint64_t b)
{
	begin(p, command, a, b);
	end(p);
}

/* Steps */

static void boot(void)
{
	for (unsigned i = 0; i < lead.workers; i++) {
		lead.probes[i].number = i;
		lead_start_worker(&lead.probes[i]);
	}
	for (unsigned i = 0; i < lead.workers; i++) {
		struct probe *p = &lead.probes[i];
		uint64_t *r = p->page->results;

		await(p, 0, BOOT_MS);
		if (r[0] != sivshm_port_peer(p->port) || r[1] != sivshm_port_id(p->port) ||
		    r[2] != lead.vectors || r[3] != lead.segment)
			lead_die("worker %u found ID %lu, peer %lu, %lu vectors, %lu bytes", i,
				 r[0], r[1], r[2], r[3]);
		lead_say("worker %u has rung by %.1f s: ID %lu, %s", i,
			 (double)(lead_now_ms() - lead.started) / 1000, r[0],
			 p->page->interrupts ? "interrupts by VFIO" : "sysfs, polling");
	}
}

static void check_search(struct probe *p, uint64_t foreign)
{
	uint64_t *r = p->page->results;
	uint64_t marks = lead.segment / PROBE_PAGE - 1;

	tell(p, PROBE_SEARCH, p->number, 0);
	if (r[PROBE_OWN] != marks - foreign)
		lead_die("worker %u finds %lu of the %lu marks in its own segment: the search is "
			 "blind",
			 p->number, r[PROBE_OWN], marks - foreign);
	if (r[PROBE_FOREIGN] != foreign)
		lead_die("worker %u finds %lu marks of others where there should be %lu", p->number,
			 r[PROBE_FOREIGN], foreign);
	if (!r[PROBE_BARS])
		lead_die("worker %u finds no other device to search", p->number);
	if (r[PROBE_DEVICES] != 1)
		lead_die("worker %u has %lu ivshmem devices", p->number, r[PROBE_DEVICES]);
}

static void check_memory(void)
{
	struct probe *first = &lead.probes[0];
	struct probe_mark *mark;
	uint64_t own, foreign;

	for (unsigned i = 0; i < lead.workers; i++) {
		struct probe *p = &lead.probes[i];

		probe_mark_pages(p->page, lead.segment, 2, i);
		tell(p, PROBE_MARK, i, 0);
		own = foreign = 0;
		probe_search(p->page, lead.segment, i, &own, &foreign);
		if (own != lead.segment / PROBE_PAGE - 1 || foreign)
			lead_die("the manager finds %lu marks in segment %u, and %lu of others",
				 own, i, foreign);
	}
	/* What is to be found if there is something to be found: one mark turned into another's. */
	mark = (struct probe_mark *)((char *)first->page + 2 * PROBE_PAGE + 2 * 8);
	mark->owner = PROBE_STRANGER;
	check_search(first, 1);
	mark->owner = first->number;
	for (unsigned i = 0; i < lead.workers; i++)
		check_search(&lead.probes[i], 0);
	lead_say("each guest has one segment; a search of it and of all other devices' memory "
		 "finds every mark of its own, a stranger's when there is one, and no other's");
}

/* Both ways, on every vector; where interrupts arrive the guest does nothing without one. */
static void check_doorbells(struct probe *p)
{
	int64_t started = lead_now_ms();

	for (unsigned v = 0; v < lead.vectors; v++) {
		atomic_store(&p->page->ping, 0);
		atomic_store(&p->page->pong, 0);
		begin(p, PROBE_PING, v, ROUNDS);
		/* Its first ring must not become one with the command's. */
		while (atomic_load(&p->page->pong) != PROBE_READY && !p->page->status &&
		       lead_now_ms() < started + PATIENCE_MS)
			usleep(1000);
		for (uint32_t round = 1; round <= ROUNDS; round++) {
			int rc;

			sivshm_port_take(p->port, v);
			atomic_store(&p->page->ping, round);
			rc = sivshm_port_ring(p->port, v);
			while (!rc && atomic_load(&p->page->pong) != round) {
				rc = sivshm_port_wait(p->port, v, PATIENCE_MS);
				if (rc != 1)
					lead_die("worker %u, vector %u, round %u: %s", p->number, v,
						 round,
						 p->page->status ? strerror(-p->page->status)
								 : "no ring comes back");
				rc = 0;
			}
			if (rc)
				lead_die("worker %u cannot be rung: %s", p->number, strerror(-rc));
		}
		end(p);
	}
	lead_say("worker %u: %d doorbells each way on each of %u vectors, none lost, %.2f ms a "
		 "round "
		 "trip",
		 p->number, ROUNDS, lead.vectors,
		 (double)(lead_now_ms() - started) / ROUNDS / lead.vectors);
}

/* Whether barriers hold between a guest and this process, as all that sleeps and wakes relies on.
 */
static void check_fence(struct probe *p)
{
	struct probe_fence *f = (void *)((char *)p->page + PROBE_PAGE);
	unsigned missed = 0, saw = 0;
	int64_t end_at = lead_now_ms() + PATIENCE_MS;

	memset(f, 0, sizeof(*f));
	begin(p, PROBE_FENCE, 0, 0);
	for (uint32_t round = 1; round < PROBE_FENCE_ROUNDS; round++) {
		for (unsigned i = 1; atomic_load(&f->ready[0]) != round; i++)
			if (i % 1024 == 0 && (p->page->status || lead_now_ms() > end_at))
				lead_die("worker %u does not go on with its barriers", p->number);
		atomic_store(&f->ready[1], round);
		/* The emulated processor is behind: all distances are tried. */
		for (unsigned i = 0; i < round % 512; i++)
			atomic_signal_fence(memory_order_seq_cst);
		probe_fence_round(&f->lead, &f->worker, round, &f->lead_saw[round]);
	}
	end(p);
	for (unsigned round = 1; round < PROBE_FENCE_ROUNDS; round++) {
		missed += !f->worker_saw[round] && !f->lead_saw[round];
		saw += f->worker_saw[round] && f->lead_saw[round];
	}
	if (missed)
		lead_die("worker %u and its manager have both missed the other's store in %u of %d "
			 "rounds: the emulator leaves barriers out",
			 p->number, missed, PROBE_FENCE_ROUNDS);
	lead_say("worker %u: barriers hold in %d rounds; both saw the other in %u", p->number,
		 PROBE_FENCE_ROUNDS, saw);
}

/* While one rings everybody, nobody else is woken, on either side. */
static void check_noise(struct probe *noisy)
{
	unsigned own = 0;

	for (unsigned i = 0; i < lead.workers; i++) {
		struct probe *p = &lead.probes[i];

		tell(p, PROBE_COUNT, 0, 0);
		for (unsigned v = 0; v < lead.vectors; v++)
			sivshm_port_take(p->port, v);
	}
	tell(noisy, PROBE_NOISE, 0, 0);
	for (unsigned v = 0; v < lead.vectors; v++)
		own += v && sivshm_port_take(noisy->port, v) == 1;
	if (own != lead.vectors - 1)
		lead_die("worker %u rang everybody, but its manager at %u of %u vectors only",
			 noisy->number, own, lead.vectors - 1);
	for (unsigned i = 0; i < lead.workers; i++) {
		struct probe *p = &lead.probes[i];

		if (p == noisy)
			continue;
		for (unsigned v = 0; v < lead.vectors; v++)
			if (sivshm_port_take(p->port, v))
				lead_die("worker %u has rung the manager's side of worker %u",
					 noisy->number, i);
		tell(p, PROBE_COUNT, 0, 0);
		if (p->page->results[0])
			lead_die("worker %u has woken worker %u", noisy->number, i);
	}
	lead_say("worker %u wrote %lu values to its doorbell, for all peers there can be: its "
		 "manager was rung, and none of the others",
		 noisy->number, noisy->page->results[0]);
}

static void run_hook(void)
{
	char command[1024];
	size_t len = (size_t)snprintf(command, sizeof(command), "%s", lead.hook);
	int status;

	for (unsigned i = 0; i < lead.workers && len < sizeof(command); i++)
		len += (size_t)snprintf(command + len, sizeof(command) - len, " %d",
					lead.probes[i].pid);
	if (len >= sizeof(command))
		lead_die("the hook is too long");
	status = system(command);
	if (status)
		lead_die("%s has ended with status %d", command, status);
}

/* Whether any process holds the file that was behind a segment, by descriptor or mapping. */
static bool is_held(ino_t segment)
{
	char command[256];

	snprintf(
		command, sizeof(command),
		"grep -qsE ' %lu +/memfd:' /proc/[0-9]*/maps || "
		"find /proc/[0-9]*/fd -maxdepth 1 -lname '/memfd:*' -printf '%%p\\n' 2>/dev/null | "
		"xargs -r stat -L -c ' %%i ' 2>/dev/null | grep -q ' %lu '",
		(unsigned long)segment, (unsigned long)segment);
	return system(command) == 0;
}

/* The inode of the file behind the first memory at @at. */
static ino_t inode_at(const void *at)
{
	unsigned long start, end, inode;
	char line[512];
	FILE *f = fopen("/proc/self/maps", "re");
	ino_t found = 0;

	while (f && !found && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %*s %*x %*s %lu", &start, &end, &inode) == 3 &&
		    start <= (uintptr_t)at && (uintptr_t)at < end)
			found = (ino_t)inode;
	if (f)
		fclose(f);
	if (!found)
		lead_die("cannot find the file behind a segment");
	return found;
}

static void check_death(struct probe *p)
{
	ino_t segment = inode_at(p->page);
	int64_t started = lead_now_ms();

	if (!is_held(segment))
		lead_die("nobody holds segment %u: the search is blind", p->number);
	kill(p->pid, SIGKILL);
	while (!p->gone && lead_now_ms() < started + GONE_MS)
		sivshm_manager_dispatch(lead.manager, 100);
	if (!p->gone)
		lead_die("worker %u was killed, and after %d s the manager does not know",
			 p->number, GONE_MS / 1000);
	lead_say("worker %u was killed: seen after %d ms", p->number,
		 (int)(lead_now_ms() - started));
	waitpid(p->pid, NULL, 0);
	sivshm_worker_remove(p->worker);
	if (is_held(segment))
		lead_die("the segment of worker %u is still held by somebody", p->number);
	lead_say("no process holds its memory any more");
}

static void finish(struct probe *p)
{
	int64_t end_at = lead_now_ms() + PATIENCE_MS;

	tell(p, PROBE_BYE, 0, 0);
	while (!p->gone && lead_now_ms() < end_at)
		sivshm_manager_dispatch(lead.manager, 100);
	if (!p->gone)
		lead_die("worker %u said goodbye, but its QEMU does not end", p->number);
	waitpid(p->pid, NULL, 0);
	sivshm_worker_remove(p->worker);
}

int probe_lead(int argc, char **argv)
{
	int rc;

	lead_parse(argc, argv);
	rc = sivshm_manager_create(NULL, &lead.manager);
	if (rc)
		lead_die("no manager: %s", strerror(-rc));
	lead.started = lead_now_ms();
	boot();
	check_memory();
	for (unsigned i = 0; i < lead.workers; i++)
		check_doorbells(&lead.probes[i]);
	for (unsigned i = 0; i < 2; i++)
		check_fence(&lead.probes[i]);
	if (lead.hook)
		run_hook();
	for (unsigned i = 0; i < lead.workers; i++)
		check_noise(&lead.probes[i]);
	check_death(&lead.probes[0]);
	for (unsigned i = 1; i < lead.workers; i++)
		check_doorbells(&lead.probes[i]);
	for (unsigned i = 1; i < lead.workers; i++)
		finish(&lead.probes[i]);
	sivshm_manager_destroy(lead.manager);
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "stage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "disk.h"
#include "double.h"

struct stage stage;

/* Turns */

bool stage_step(void)
{
	bool did = false;

	for (unsigned i = 0; i < stage.nr_reactors; i++)
		did |= reactor_step(stage.reactors[i]);
	return did;
}

static void collect(void)
{
	for (unsigned d = 0; d < DISKS; d++)
		for (unsigned q = 0; q < QUEUES; q++)
			ring_collect(&stage.disks[d].rings[q]);
}

/* Until nobody has anything to do. */
void stage_settle(void)
{
	unsigned rounds = 0;
	bool busy;

	do {
		busy = reactor_step(stage.host.control);
		busy |= stage_step();
		if (++rounds > ROUNDS_MAX)
			fuzz_fail("somebody is busy for ever");
	} while (busy);
	collect();
}

/* Settles for about so long, for what comes by timers. */
void stage_pass_time(unsigned steps, uint64_t step_ns)
{
	for (unsigned i = 0; i < steps; i++) {
		fuzz_clock_advance(step_ns);
		stage_settle();
	}
}

void stage_give_turns(uint8_t run)
{
	switch (run & 7) {
	case 0:
		return;
	case 1:
		stage_step();
		break;
	case 2:
		reactor_step(stage.host.control);
		break;
	case 3:
		reactor_step(stage.reactors[(run >> 3) % stage.nr_reactors]);
		break;
	case 4:
		for (int i = run >> 3; i >= 0; i--)
			stage_step();
		break;
	case 5:
		for (int i = run >> 3; i >= 0; i--)
			reactor_step(stage.host.control);
		break;
	default:
		stage_settle();
		return;
	}
	collect();
}

/* The stage */

enum page_kind stage_page_kind(unsigned page)
{
	return page < 8 ? PAGE_GRANTED : page < 10 ? PAGE_READONLY : PAGE_SECRET;
}

static unsigned char canary(unsigned page)
{
	return (unsigned char)(0xc0 + page);
}

/* Both domains are the same machine: a disk may be attached to the next before the last is gone. */
static void set_machine(unsigned domid)
{
	char path[64];

	snprintf(path, sizeof(path), "/local/domain/%u/vm", domid);
	xs_write(stage.host.xs, XBT_NULL, path, "/vm/1", 5);
}

static void make_memory(unsigned domid, struct memory *m)
{
	m->pages = double_pages_alloc(domid, PAGES);
	for (unsigned i = 0; i < PAGES; i++) {
		memset(m->pages + (size_t)i * PAGE, canary(i), PAGE);
		m->refs[i] = stage_page_kind(i) == PAGE_SECRET
				     ? NO_GRANT + i
				     : double_grant(domid, m->pages + (size_t)i * PAGE, 0,
						    stage_page_kind(i) == PAGE_READONLY);
	}
}

void stage_make_guest(void)
{
	double_domain_create(GUEST, "guest");
	stage.alive = true;
	make_memory(GUEST, &stage.memory);
	memset(stage.touched, 0, sizeof(stage.touched));
	for (unsigned i = 0; i < DISKS; i++) {
		if (stage.disks[i].domid != GUEST)
			continue;
		memset(stage.disks[i].rings, 0, sizeof(stage.disks[i].rings));
		stage.disks[i].meddled = true;
	}
	set_machine(GUEST);
}

static void make_next_guest(void)
{
	double_domain_create(NEXT, "next");
	make_memory(NEXT, &stage.next_memory);
	set_machine(NEXT);
}

bool stage_is_alive(const struct guest_disk *d)
{
	return d->domid == NEXT || stage.alive;
}

static void check_memory(const struct memory *m, const bool *touched)
{
	for (unsigned i = 0; i < PAGES; i++) {
		const unsigned char *page = m->pages + (size_t)i * PAGE;

		if (stage_page_kind(i) == PAGE_GRANTED || (touched && touched[i]))
			continue;
		for (unsigned at = 0; at < PAGE; at++)
			if (page[at] != canary(i))
				fuzz_fail("a page that nobody may write to has changed");
	}
}

void stage_end_guest(void)
{
	check_memory(&stage.memory, stage.touched);
	double_domain_destroy(GUEST);
	stage.alive = false;
	for (unsigned i = 0; i < DISKS; i++)
		if (stage.disks[i].domid == GUEST)
			stage.disks[i].meddled = true;
}

void stage_add_disk(unsigned n, uint8_t how)
{
	static const char *const targets[] = {"disk",
					      "disk,shared",
					      "disk,sharing=map",
					      "other",
					      "disk,shared,sharing=map",
					      "disk,on-error=stop",
					      "disk,on-error=retry:1,sharing=map",
					      "disk,on-error=retry:2",
					      "other,sharing=map,on-error=stop",
					      "disk,iops=50",
					      "disk,bandwidth=64K",
					      "disk,iops=3,bandwidth=9,on-error=stop",
					      "other,shared,sharing=copy,iops=1000",
					      "disk@sluice,sharing=auto,on-error=report",
					      "disk@elsewhere",
					      "nothing"};
	struct guest_disk *d = &stage.disks[n];
	const char *target = targets[(how & 3) | (how >> 2 & 0xc)];
	char by_bus[64];
	char *way;
	struct disk_opts opts = {
		.target = by_bus,
		.readonly = how & 4,
		.instance = how & 8 ? "sluice" : NULL,
	};

	snprintf(by_bus, sizeof(by_bus), "%s", target);
	way = strstr(by_bus, "sharing=map");
	if (way && stage.dma)
		memcpy(way, "sharing=dma", strlen("sharing=dma"));
	toolstack_add(&stage.host, d->domid, d->devid, &opts, &d->keys);
	d->meddled = true;
}

void stage_mar_rings(struct guest_disk *d)
{
	d->meddled = true;
	for (unsigned q = 0; q < QUEUES; q++)
		d->rings[q].marred = true;
}

void stage_run_script(unsigned n)
{
	disk_write(&stage.disks[n].keys, stage.disks[n].keys.back, "hotplug-status", "connected");
}

void stage_start_backend(void)
{
	struct err err;

	for (unsigned i = 0; i < stage.nr_reactors; i++)
		if (reactor_create("reactor", -1, NULL, &stage.reactors[i]))
			fuzz_fail("no reactor");
	if (xen_backend_create(&stage.opts, &stage.backend, &err))
		fuzz_fail("no backend: %s", err.text);
	if (stage.map_from)
		xen_backend_set_map_from(stage.backend, stage.map_from);
	if (xen_backend_start(stage.backend, &err))
		fuzz_fail("the backend does not start: %s", err.text);
}

static void drained(void *arg)
{
	stage.drained = true;
}

void stage_stop_faults(void)
{
	for (unsigned i = 0; i < DOUBLE_CALLS; i++)
		double_fail(i, 0, 0, 0, NULL);
	double_limit_maps(UINT32_MAX);
	double_on_copy(NULL, NULL);
	disk_fail(0, 0);
	disk_fail_open(0);
	disk_hold(false);
	disk_complete(UINT32_MAX, false);
}

void stage_end_backend(void)
{
	stage_stop_faults();
	stage.drained = false;
	xen_backend_drain(stage.backend, drained, NULL);
	stage_settle();
	stage_pass_time(4, NSEC_PER_SEC);
	if (!stage.drained)
		fuzz_fail("the backend does not drain");
	if (disk_kept())
		fuzz_fail("drained, it has %u requests in flight", disk_kept());
	xen_backend_destroy(stage.backend);
	for (unsigned i = 0; i < stage.nr_reactors; i++)
		reactor_destroy(stage.reactors[i]);
	stage.backend = NULL;
}

/* For all plays: what one leaves noted, the double finds. */
static struct grant_ledger *ledger;

static void open_ledger(void)
{
	char path[128];
	struct err err;

	snprintf(path, sizeof(path), "%s/ledger", stage.host.root);
	if (grant_ledger_open(path, &ledger, &err))
		fuzz_fail("no ledger: %s", err.text);
}

static void remove_root(void)
{
	grant_ledger_close(ledger);
	host_remove_root(&stage.host);
}

void stage_set(const uint8_t *header)
{
	static const char *const kinds[] = {"vbd", NULL};
	static const size_t bounce_pages[] = {4096, 64, 8, 1};

	if (!stage.host.root[0]) {
		host_make_root(&stage.host); /* one for all plays */
		open_ledger();
		atexit(remove_root);
		log_set_level(LOG_LEVEL_ERROR);
	}
	double_init();
	stage.host.xs = double_xs_open(0);
	stage.last_id = 0;
	stage.copy_faults = 0;
	stage.trap = NULL;
	stage.dma = header[0] & 8;
	stage.map_from = header[0] & 16 ? 2 * PAGE : 0;
	disk_create("disk", header[0] & 1 ? 4096 : 512, header[0] & 2, stage.dma);
	disk_create("other", 512, false, stage.dma);
	if (reactor_create("control", -1, NULL, &stage.host.control))
		fuzz_fail("no control thread");
	stage.nr_reactors = header[0] & 4 ? REACTORS : 1;
	stage.opts = (struct xen_backend_opts){
		.instance = "sluice",
		.kinds = kinds,
		.control = stage.host.control,
		.reactors = stage.reactors,
		.nr_reactors = stage.nr_reactors,
		.bounce_pages = bounce_pages[header[1] & 3],
		.guest_bounce_pages = bounce_pages[header[1] >> 4 & 3],
		.guest_maps = bounce_pages[header[1] >> 6],
		.max_queues = QUEUES,
		.spin_max_ns = header[1] & 4 ? 20000 : 0,
		.ledger = ledger,
		.device_maps = header[1] & 8 ? 40 : 8192,
		.root = stage.host.root,
	};
	for (unsigned i = 0; i < DISKS; i++) {
		stage.disks[i].domid = i == DISKS - 1 ? NEXT : GUEST;
		stage.disks[i].devid = i == 1 ? DEVID + 16 : DEVID;
		stage.disks[i].meddled = true;
	}
	stage_make_guest();
	make_next_guest();
	stage.guest_xs = double_xs_open(GUEST);
	stage.next_xs = double_xs_open(NEXT);
	stage_start_backend();
	for (unsigned i = 0; i < DISKS; i++) {
		if (header[2 + i] & 0x80)
			continue;
		stage_add_disk(i, header[2 + i]);
		if (!(header[2 + i] & 0x40)) {
			stage_settle();
			stage_run_script(i);
		}
	}
	stage_settle();
}

/* The end of a play */

static void check_in_flight(void *arg, json_t *stats)
{
	bool *came = arg;

	for (size_t i = 0; i < json_array_size(stats); i++)
		if (json_integer_value(json_object_get(json_array_get(stats, i), "in_flight")))
			fuzz_fail("a disk has requests in flight that nobody has");
	json_decref(stats);
	*came = true;
}

static void check_answers(const struct guest_disk *d)
{
	char *state = disk_read((struct disk *)&d->keys, d->keys.back, "state");
	bool connected = state && !strcmp(state, "4");

	free(state);
	for (unsigned q = 0; connected && q < d->nr_queues; q++) {
		const struct ring *r = &d->rings[q];

		if (!r->marred && double_grant_is_mapped(d->domid, r->refs[0]) &&
		    r->pushed != r->seen)
			fuzz_fail("%u requests were never answered", r->pushed - r->seen);
	}
}

/* Nobody and nothing holds the guest back any more. */
static void let_go(void)
{
	struct xen_limits none = {0};
	struct err err;

	stage_stop_faults();
	/* A backend that has only begun does not know its disks yet. */
	stage_settle();
	stage_pass_time(4, NSEC_PER_SEC);
	for (unsigned i = 0; i < DISKS; i++) {
		const struct guest_disk *d = &stage.disks[i];

		xen_backend_set_limits(stage.backend, d->domid, d->devid, &none, &err);
		xen_backend_resume(stage.backend, d->domid, d->devid, &err);
	}
}

void stage_end(uint8_t how)
{
	bool came = false;

	let_go();
	for (unsigned d = 0; d < DISKS; d++)
		for (unsigned q = 0; q < QUEUES; q++)
			ring_notify(&stage.disks[d].rings[q]);
	stage_settle();
	stage_pass_time(16, NSEC_PER_SEC / 2);
	for (unsigned i = 0; i < DISKS; i++)
		if (stage_is_alive(&stage.disks[i]) && !stage.disks[i].meddled)
			check_answers(&stage.disks[i]);
	xen_backend_stats(stage.backend, check_in_flight, &came);
	stage_settle();
	if (!came)
		fuzz_fail("no statistics came");
	for (unsigned i = 0; i < DISKS; i++) {
		if (!stage.disks[i].keys.back[0] || !stage_is_alive(&stage.disks[i]))
			continue;
		if (how & 1)
			toolstack_ask(&stage.disks[i].keys);
		if (how & 2)
			disk_write(&stage.disks[i].keys, stage.disks[i].keys.front, "state", "6");
	}
	if (how & 4 && stage.alive)
		stage_end_guest();
	stage_settle();
	stage_pass_time(4, NSEC_PER_SEC);
	stage_end_backend();
	if (stage.alive)
		check_memory(&stage.memory, stage.touched);
	check_memory(&stage.next_memory, NULL);
	bdev_delete_all();
	reactor_destroy(stage.host.control);
	xs_close(stage.guest_xs);
	xs_close(stage.next_xs);
	xs_close(stage.host.xs);
	if (double_leaks())
		fuzz_fail("something was left over");
	double_fini();
	memset(stage.disks, 0, sizeof(stage.disks));
}

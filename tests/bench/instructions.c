/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Has callgrind count the backend's instructions of a request, and of nothing else.
 *
 *	valgrind --tool=callgrind --collect-atstart=no --instr-atstart=no
 *		instructions BDEV WAY DEPTH PAGES
 *
 * The backend's reactor is the real one and has no thread of its own: a stepper gives it turns
 * until the disk is connected, and from then on this program does, one turn at a time.  A frontend
 * puts DEPTH requests of PAGES pages into the ring, the reactor has its turn (counted), the
 * frontend takes the responses; so each request costs the same each time, and figures of two
 * commits can be compared to the digit.  Two profiles are dumped: "work", and "vain" of turns
 * without a request.
 *
 * WAY is how data is shared: copy, map, persistent and dma over the double of Xen's libraries,
 * whose calls are counted and whose instructions are not (the linker puts us in between); direct
 * over a segment.  What was counted is printed, a name and a number a line.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <valgrind/callgrind.h>
#include <xencall.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#include "bdev/bdev.h"
#include "front/segment.h"
#include "guest.h"
#include "sivshm.h"
#include "sivshm/door.h"

enum {
	GUEST = 5,
	PAGE = BLKIF_PAGE_SIZE,
	DEPTH_MAX = 32,
	PAGES_MAX = 32, /* as Linux's frontend asks for */
	WARM_UP = 2048, /* pages */
	COUNTED = 4096,
	VAIN = 1024, /* turns */
	BOUNCE_PAGES = 4096,
	GUEST_MAPS = 8192,
	TURNS_MAX = 1000,
	CONNECT_MS = 60000, /* valgrind is slow */
};
#define DISK_BYTES  (UINT64_C(16) << 20)
#define RANGE_BYTES (UINT64_C(1) << 30)

static struct {
	struct host host;
	struct reactor *reactor;
	struct xen_backend *backend;
	struct sivshm_door *door;
	struct guest guest;
	struct sivshm_port *port;
	struct front_segment *segment;
	struct front *front;
	atomic_bool stepping;
	pthread_t stepper;
	const char *bdev;
	uint64_t turns;
	uint64_t hypercalls;
	unsigned outstanding;
	uint64_t sector;
	struct front_req reqs[DEPTH_MAX];
	struct blkif_wire_segment segments[DEPTH_MAX][PAGES_MAX];
} bench;

/* Only the thread that steps, and only within a turn that counts. */
static _Thread_local bool counting;

static void die(const char *what)
{
	fprintf(stderr, "instructions: %s\n", what);
	abort();
}

/* Calls to the hypervisor: counted, and left out of the profile */

static void leave(void)
{
	if (!counting)
		return;
	bench.hypercalls++;
	CALLGRIND_TOGGLE_COLLECT;
}

static void come_back(void)
{
	if (counting)
		CALLGRIND_TOGGLE_COLLECT;
}

#define WRAP(type, name, params, ...)            \
	type __real_##name params;               \
	type __wrap_##name params;               \
	type __wrap_##name params                \
	{                                        \
		type rc;                         \
                                                 \
		leave();                         \
		rc = __real_##name(__VA_ARGS__); \
		come_back();                     \
		return rc;                       \
	}

WRAP(int, xengnttab_grant_copy,
     (xengnttab_handle * xgt, uint32_t count, xengnttab_grant_copy_segment_t *segs), xgt, count,
     segs)
WRAP(void *, xengnttab_map_domain_grant_refs,
     (xengnttab_handle * xgt, uint32_t count, uint32_t domid, uint32_t *refs, int prot), xgt, count,
     domid, refs, prot)
WRAP(int, xengnttab_unmap, (xengnttab_handle * xgt, void *start, uint32_t count), xgt, start, count)
WRAP(int, xenevtchn_notify, (xenevtchn_handle * xce, evtchn_port_t port), xce, port)
WRAP(int, xencall2, (xencall_handle * x, unsigned op, uint64_t a, uint64_t b), x, op, a, b)
WRAP(int, xencall3, (xencall_handle * x, unsigned op, uint64_t a, uint64_t b, uint64_t c), x, op, a,
     b, c)

/* The door reserves more addresses for segments than valgrind has left; one segment comes. */
int __real_sivshm_manager_create(const struct sivshm_manager_opts *opts,
				 struct sivshm_manager **out);
int __wrap_sivshm_manager_create(const struct sivshm_manager_opts *opts,
				 struct sivshm_manager **out);
int __wrap_sivshm_manager_create(const struct sivshm_manager_opts *opts,
				 struct sivshm_manager **out)
{
	struct sivshm_manager_opts less = *opts;

	less.range_bytes = RANGE_BYTES;
	return __real_sivshm_manager_create(&less, out);
}

/* A device that fetches for itself, at once */

static void device_destroy(struct bdev *b)
{
	free(b);
}

static int device_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch)
{
	*ch = calloc(1, sizeof(**ch));
	return *ch ? 0 : -1;
}

static void device_close(struct bdev_channel *ch)
{
	free(ch);
}

static void device_submit(struct bdev_channel *ch, struct bdev_io *io)
{
	io->result = 0;
	io->done(io);
}

static void make_device(struct err *err)
{
	static const struct bdev_ops ops = {
		.product = "device",
		.destroy = device_destroy,
		.channel_open = device_open,
		.channel_close = device_close,
		.submit = device_submit,
	};
	struct bdev *b = calloc(1, sizeof(*b));

	if (!b)
		die("out of memory");
	strcpy(b->name, "bench");
	b->ops = &ops;
	b->size = DISK_BYTES;
	b->limits.block_size = 512;
	b->limits.physical_block_size = 512;
	b->limits.mem_align = 1;
	b->dma = host_get_dma(&bench.host);
	if (bdev_register(b, err))
		die(err->text);
}

/* The stage */

static void *step(void *arg)
{
	while (atomic_load(&bench.stepping))
		if (!reactor_step(bench.reactor))
			host_nap();
	return NULL;
}

static void make_bdev(void *arg)
{
	struct err err;
	int rc = 0;

	if (!strcmp(bench.bdev, "ram"))
		rc = bdev_ram_create("bench", DISK_BYTES, 512, NULL, &err);
	else if (guest_way->dma)
		make_device(&err);
	else
		rc = bdev_null_create("bench", DISK_BYTES, 512, NULL, &err);
	if (rc)
		die(err.text);
}

static void start_backend(void *arg)
{
	static const char *const kinds[] = {"vbd", NULL};
	struct xen_backend_opts opts = {
		.instance = "sluice",
		.kinds = kinds,
		.control = bench.host.control,
		.reactors = &bench.reactor,
		.nr_reactors = 1,
		.bounce_pages = BOUNCE_PAGES,
		.guest_bounce_pages = BOUNCE_PAGES,
		.guest_maps = GUEST_MAPS,
		.device_maps = 2 * GUEST_MAPS,
		.max_queues = 1,
		.spin_max_ns = UINT32_MAX,
		.root = bench.host.root,
	};
	char path[128];
	struct err err;

	snprintf(path, sizeof(path), "%s/ledger", bench.host.root);
	if (grant_ledger_open(path, &opts.ledger, &err) ||
	    xen_backend_create(&opts, &bench.backend, &err) ||
	    xen_backend_start(bench.backend, &err))
		die(err.text);
}

static void connect_guest(void)
{
	struct disk_opts disk = {.target = "bench"};
	struct guest_opts opts = {0};

	guest_create(&bench.guest, &bench.host, GUEST, &disk);
	if (!guest_connect(&bench.guest, &opts))
		die("the guest's disk does not connect");
	bench.front = bench.guest.front;
}

static void start_door(void *arg)
{
	struct sivshm_door_opts opts = {
		.control = bench.host.control,
		.reactors = &bench.reactor,
		.nr_reactors = 1,
		.bounce_pages = BOUNCE_PAGES,
		.guest_bounce_pages = BOUNCE_PAGES,
		.spin_max_ns = UINT32_MAX,
		.dir = bench.host.root,
	};
	struct sivshm_door_worker worker = {
		.name = "bench", .bdev = "bench", .uid = (int64_t)geteuid(), .gid = -1};
	struct err err;

	if (sivshm_door_create(&opts, &bench.door, &err) || sivshm_door_start(bench.door, &err) ||
	    sivshm_door_add(bench.door, &worker, &err))
		die(err.text);
}

static void connect_segment(void)
{
	struct front_segment_opts opts = {.queues = 1, .max_segments = PAGES_MAX};
	char where[128];

	snprintf(where, sizeof(where), "unix:%s/bench.sock", bench.host.root);
	if (sivshm_open(where, CONNECT_MS, &bench.port) ||
	    front_segment_create(bench.port, &opts, &bench.segment) ||
	    front_segment_connect(bench.segment, CONNECT_MS))
		die("the segment's disk does not connect");
	bench.front = front_segment_queue(bench.segment, 0);
}

static void request_is_done(struct front_req *req)
{
	if (req->status != BLKIF_OKAY)
		die("a request failed");
	bench.outstanding--;
}

static void make_requests(unsigned depth, unsigned pages)
{
	for (unsigned i = 0; i < depth; i++) {
		struct blkif_wire_segment *segments = bench.segments[i];
		uint32_t refs[PAGES_MAX];
		void *at;

		if (bench.segment)
			at = front_segment_pages_alloc(bench.segment, pages, refs);
		else
			at = bench.guest.ops.pages_alloc(&bench.guest, pages, false, refs);
		if (!at)
			die("no pages");
		for (unsigned n = 0; n < pages; n++)
			segments[n] = (struct blkif_wire_segment){
				.gref = refs[n], .last_sect = PAGE / BLKIF_SECTOR_SIZE - 1};
		bench.reqs[i] = (struct front_req){
			.op = BLKIF_READ,
			.segments = segments,
			.nr_segments = pages,
			.done = request_is_done,
		};
	}
}

/* Turns */

static void take_turn(bool count)
{
	counting = count;
	if (count)
		CALLGRIND_TOGGLE_COLLECT;
	reactor_step(bench.reactor);
	if (count)
		CALLGRIND_TOGGLE_COLLECT;
	counting = false;
	bench.turns += count;
}

static void serve(unsigned depth, unsigned requests, bool count)
{
	for (unsigned done = 0; done < requests; done += depth) {
		unsigned turns = 0;

		for (unsigned i = 0; i < depth; i++) {
			bench.reqs[i].sector = bench.sector;
			bench.sector += bench.reqs[i].nr_segments * (PAGE / BLKIF_SECTOR_SIZE);
			bench.sector %= DISK_BYTES / BLKIF_SECTOR_SIZE;
			if (front_submit(bench.front, &bench.reqs[i]))
				die("the ring is full");
		}
		bench.outstanding = depth;
		front_push(bench.front);
		while (bench.outstanding) {
			if (turns++ == TURNS_MAX)
				die("requests are not answered");
			take_turn(count);
			if (front_poll(bench.front) < 0)
				die(front_fault(bench.front));
		}
	}
}

static const struct guest_way *way_of(const char *name)
{
	static const struct {
		const char *name;
		const struct guest_way *way;
	} ways[] = {
		{"copy", &guest_copied},           {"map", &guest_mapped},
		{"persistent", &guest_persistent}, {"dma", &guest_dma},
		{"direct", &guest_copied},         {"dma persistent", &guest_dma_persistent},
	};

	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		if (!strcmp(ways[i].name, name))
			return ways[i].way;
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned depth = argc == 5 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
	unsigned pages = argc == 5 ? (unsigned)strtoul(argv[4], NULL, 10) : 0;
	bool direct = argc == 5 && !strcmp(argv[2], "direct");

	if (argc == 5)
		guest_way = way_of(argv[2]);
	/* The disk's size is a multiple of each request's, so that none crosses its end. */
	if (!depth || depth > DEPTH_MAX || !pages || pages > PAGES_MAX || pages & (pages - 1) ||
	    !guest_way || (strcmp(argv[1], "null") && strcmp(argv[1], "ram"))) {
		fprintf(stderr,
			"usage: instructions null|ram WAY DEPTH PAGES\n"
			"WAY is copy, map, persistent, dma, 'dma persistent' or direct,\n"
			"DEPTH is at most %d, PAGES a power of two of at most %d.\n",
			DEPTH_MAX, PAGES_MAX);
		return 2;
	}
	bench.bdev = argv[1];
	host_create(&bench.host);
	if (reactor_create("backend", -1, NULL, &bench.reactor))
		die("no reactor");
	host_run(&bench.host, make_bdev, NULL);
	host_run(&bench.host, direct ? start_door : start_backend, NULL);
	atomic_store(&bench.stepping, true);
	if (pthread_create(&bench.stepper, NULL, step, NULL))
		die("no thread");
	if (direct)
		connect_segment();
	else
		connect_guest();
	atomic_store(&bench.stepping, false);
	pthread_join(bench.stepper, NULL);
	make_requests(depth, pages);

	CALLGRIND_START_INSTRUMENTATION;
	serve(depth, WARM_UP / pages, false);
	CALLGRIND_ZERO_STATS;
	serve(depth, COUNTED / pages, true);
	CALLGRIND_DUMP_STATS_AT("work");
	printf("requests %u\nturns %lu\nhypercalls %lu\nvain %d\n", COUNTED / pages,
	       (unsigned long)bench.turns, (unsigned long)bench.hypercalls, VAIN);
	for (unsigned i = 0; i < VAIN; i++)
		take_turn(true);
	CALLGRIND_DUMP_STATS_AT("vain");
	fflush(stdout);
	/* Nobody is left to be served: what there is ends with the process. */
	host_remove_root(&bench.host);
	_exit(0);
}

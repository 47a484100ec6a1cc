/* SPDX-License-Identifier: BSD-2-Clause */
#include "stage.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "blkif/wire.h"

enum { DMA_PAGES = 4096, MAPPED_MAX = 16 };
#define DMA_OWN_BUS    (UINT64_C(3) << 40)
#define DMA_OTHERS_BUS (UINT64_C(5) << 40)
#define DMA_APART      (UINT64_C(1) << 36)

struct mapped {
	char *virt;
	size_t pages; /* 0: none */
};

static struct {
	char dir[64];
	struct reactor *control;
	struct reactor *reactors[STAGE_REACTORS];
	struct helper_pool *helpers;
	struct sivshm_door *door;
	bool drained;
	struct dma dma;
	bool has_dma;
	bool refuse;
	unsigned maps;
	unsigned faults;
	struct mapped mapped[MAPPED_MAX];
	pthread_mutex_t lock; /* of what devices reach */
	bool removing;
	bool removed;
} stage;

/* The control thread */

struct call {
	struct reactor_msg msg;
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void run_call(struct reactor_msg *msg)
{
	struct call *call = container_of(msg, struct call, msg);

	call->fn(call->arg);
	sem_post(&call->done);
}

void stage_on_control(void (*fn)(void *arg), void *arg)
{
	struct call call = {.msg = {.fn = run_call}, .fn = fn, .arg = arg};

	sem_init(&call.done, 0, 0);
	reactor_send(stage.control, &call.msg);
	while (sem_wait(&call.done))
		;
	sem_destroy(&call.done);
}

void stage_wait(bool (*done)(void *arg), void *arg)
{
	uint64_t end_ns = clock_now_ns() + STAGE_WAIT_MS * NSEC_PER_MSEC;

	while (!done(arg)) {
		if (clock_now_ns() > end_ns)
			fail_msg("nothing happens");
		usleep(200);
	}
}

/* Memory that devices reach */

static int dma_grow(struct dma *d, size_t pages, bool contiguous, struct err *err)
{
	for (size_t i = 0; i < pages; i++) {
		uint64_t bus = DMA_OWN_BUS + (d->pages * DMA_PAGE_SIZE);

		if (dma_add(d, &bus, 1))
			return err_set(err, -ENOMEM, "no more device memory");
	}
	return 0;
}

static int dma_map(struct dma *d, void *virt, size_t pages, uint64_t *bus, struct err *err)
{
	int rc = err_set(err, -ENOSPC, "the IOMMU is full");

	pthread_mutex_lock(&stage.lock);
	for (unsigned i = 0; i < MAPPED_MAX && rc && !stage.refuse; i++) {
		if (stage.mapped[i].pages)
			continue;
		stage.mapped[i] = (struct mapped){virt, pages};
		*bus = DMA_OTHERS_BUS + i * DMA_APART;
		stage.maps++;
		rc = 0;
	}
	pthread_mutex_unlock(&stage.lock);
	return rc;
}

static void dma_unmap(struct dma *d, uint64_t bus, size_t pages)
{
	struct mapped *m = &stage.mapped[(bus - DMA_OTHERS_BUS) / DMA_APART];

	pthread_mutex_lock(&stage.lock);
	if (m->pages != pages)
		abort();
	m->pages = 0;
	pthread_mutex_unlock(&stage.lock);
}

static void *reach(uint64_t bus, bool write)
{
	void *at = NULL;
	uint64_t i = (bus - DMA_OTHERS_BUS) / DMA_APART;
	uint64_t offset = (bus - DMA_OTHERS_BUS) % DMA_APART;

	pthread_mutex_lock(&stage.lock);
	if (bus >= DMA_OWN_BUS && bus < DMA_OWN_BUS + (uint64_t)DMA_PAGES * DMA_PAGE_SIZE)
		at = stage.dma.base + (bus - DMA_OWN_BUS);
	else if (bus >= DMA_OTHERS_BUS && i < MAPPED_MAX &&
		 offset < stage.mapped[i].pages * DMA_PAGE_SIZE)
		at = stage.mapped[i].virt + offset;
	else
		stage.faults++;
	pthread_mutex_unlock(&stage.lock);
	return at;
}

void stage_use_dma(void)
{
	static const struct dma_ops ops = {
		.name = "stage",
		.grow = dma_grow,
		.map = dma_map,
		.unmap = dma_unmap,
	};
	void *base = mmap(NULL, (size_t)DMA_PAGES * DMA_PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(base != MAP_FAILED);
	assert_int_equal(dma_init(&stage.dma, &ops, base, DMA_PAGES), 0);
	stage.has_dma = true;
	held_use_dma(&stage.dma, reach);
}

unsigned long stage_dma_mapped(void)
{
	unsigned long pages = 0;

	pthread_mutex_lock(&stage.lock);
	for (unsigned i = 0; i < MAPPED_MAX; i++)
		pages += stage.mapped[i].pages;
	pthread_mutex_unlock(&stage.lock);
	return pages;
}

unsigned stage_dma_faults(void)
{
	return stage.faults;
}

unsigned stage_dma_maps(void)
{
	return stage.maps;
}

void stage_dma_refuse(void)
{
	stage.refuse = true;
}

/* Beginning and end */

static void start_door(void *arg)
{
	struct err err;
	int *rc = arg;

	*rc = bdev_null_create("null", UINT64_C(1) << 30, 512, NULL, &err);
	if (!*rc)
		*rc = bdev_ram_create("ram", UINT64_C(16) << 20, 512, NULL, &err);
	if (!*rc)
		*rc = sivshm_door_start(stage.door, &err);
}

int stage_setup(void **state)
{
	struct sivshm_door_opts opts = {
		.nr_reactors = STAGE_REACTORS,
		.bounce_pages = 4096,
		.guest_bounce_pages = 2048,
		.spin_max_ns = 20000,
	};
	struct err err;
	int rc;

	memset(&stage, 0, sizeof(stage));
	log_set_level(getenv("SLUICE_TEST_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	pthread_mutex_init(&stage.lock, NULL);
	snprintf(stage.dir, sizeof(stage.dir), "/tmp/door.XXXXXX");
	if (!mkdtemp(stage.dir) || helper_pool_create(1, &stage.helpers) ||
	    reactor_create("control", -1, stage.helpers, &stage.control))
		return -1;
	for (int i = 0; i < STAGE_REACTORS; i++)
		if (reactor_create("queues", -1, stage.helpers, &stage.reactors[i]))
			return -1;
	opts.control = stage.control;
	opts.reactors = stage.reactors;
	opts.dir = stage.dir;
	if (sivshm_door_create(&opts, &stage.door, &err))
		return -1;
	for (int i = 0; i < STAGE_REACTORS; i++)
		if (reactor_start(stage.reactors[i]))
			return -1;
	if (reactor_start(stage.control))
		return -1;
	stage_on_control(start_door, &rc);
	return rc;
}

static void note_drained(void *arg)
{
	__atomic_store_n(&stage.drained, true, __ATOMIC_RELEASE);
}

static void drain(void *arg)
{
	sivshm_door_drain(stage.door, note_drained, NULL);
}

static bool is_drained(void *arg)
{
	return __atomic_load_n(&stage.drained, __ATOMIC_ACQUIRE);
}

void stage_drain(void)
{
	stage_on_control(drain, NULL);
	stage_wait(is_drained, NULL);
}

int stage_teardown(void **state)
{
	if (!stage.drained)
		stage_drain();
	for (int i = 0; i < STAGE_REACTORS; i++) {
		reactor_stop(stage.reactors[i]);
		reactor_join(stage.reactors[i]);
	}
	reactor_stop(stage.control);
	reactor_join(stage.control);
	sivshm_door_destroy(stage.door);
	bdev_delete_all();
	for (int i = 0; i < STAGE_REACTORS; i++)
		reactor_destroy(stage.reactors[i]);
	reactor_destroy(stage.control);
	helper_pool_destroy(stage.helpers);
	assert_int_equal(stage_dma_mapped(), 0);
	if (stage.has_dma) {
		assert_int_equal(stage.dma.nr_used, 0);
		munmap(stage.dma.base, (size_t)DMA_PAGES * DMA_PAGE_SIZE);
		dma_fini(&stage.dma);
		held_use_dma(NULL, NULL);
	}
	/* No socket is left behind. */
	assert_int_equal(rmdir(stage.dir), 0);
	pthread_mutex_destroy(&stage.lock);
	return 0;
}

struct sivshm_door *stage_door(void)
{
	return stage.door;
}

/* Bdevs */

struct make_held {
	const char *name;
	uint64_t size;
	struct held *held;
};

static void make_held(void *arg)
{
	struct make_held *make = arg;

	make->held = held_create(make->name, make->size);
	held_bdev(make->held)->limits.mem_align = 4;
}

struct held *stage_held(const char *name, uint64_t size)
{
	struct make_held make = {.name = name, .size = size};

	stage_on_control(make_held, &make);
	return make.held;
}

/* Workers */

struct add {
	struct sivshm_door_worker want;
	struct err err;
	int rc;
};

static void add(void *arg)
{
	struct add *a = arg;

	a->rc = sivshm_door_add(stage.door, &a->want, &a->err);
}

int stage_try_add(struct sivshm_door_worker want, struct err *err)
{
	struct add a = {.want = want};

	if (!a.want.name)
		a.want.name = "w";
	if (!a.want.bdev)
		a.want.bdev = "ram";
	if (!a.want.uid)
		a.want.uid = (int64_t)geteuid();
	if (!a.want.gid)
		a.want.gid = -1;
	stage_on_control(add, &a);
	*err = a.err;
	return a.rc;
}

void stage_add(struct sivshm_door_worker want)
{
	struct err err;

	if (stage_try_add(want, &err))
		fail_msg("%s", err.text);
}

struct removal {
	const char *name;
	bool force;
	int rc;
};

static void note_removed(void *arg, const char *error)
{
	if (error)
		fputs(error, stderr);
	__atomic_store_n(&stage.removed, !error, __ATOMIC_RELEASE);
}

static void ask_removal(void *arg)
{
	struct removal *r = arg;
	struct err err;

	r->rc = sivshm_door_remove(stage.door, r->name, r->force, note_removed, NULL, &err);
}

void stage_remove(const char *name, bool force)
{
	struct removal r = {.name = name, .force = force};

	stage.removed = false;
	stage_on_control(ask_removal, &r);
	assert_int_equal(r.rc, 0);
}

bool stage_is_removed(void)
{
	return __atomic_load_n(&stage.removed, __ATOMIC_ACQUIRE);
}

static bool removed(void *arg)
{
	return stage_is_removed();
}

void stage_wait_removed(void)
{
	stage_wait(removed, NULL);
}

static void get_list(void *arg)
{
	*(json_t **)arg = sivshm_door_list(stage.door);
}

static json_t *pick(json_t *list, const char *key, const char *name)
{
	json_t *entry, *found = NULL;
	size_t i;

	json_array_foreach(list, i,
			   entry) if (!strcmp(json_string_value(json_object_get(entry, key)), name))
		found = json_incref(entry);
	json_decref(list);
	return found;
}

json_t *stage_list(const char *name)
{
	json_t *list;

	stage_on_control(get_list, &list);
	return pick(list, "name", name);
}

struct wanted_state {
	const char *name;
	const char *state;
};

static bool is_in_state(void *arg)
{
	const struct wanted_state *w = arg;
	json_t *entry = stage_list(w->name);
	bool is = entry && !strcmp(json_string_value(json_object_get(entry, "state")), w->state);

	json_decref(entry);
	return is;
}

void stage_wait_state(const char *name, const char *state)
{
	struct wanted_state w = {name, state};

	stage_wait(is_in_state, &w);
}

struct stats {
	sem_t done;
	json_t *list;
};

static void got_stats(void *arg, json_t *list)
{
	struct stats *s = arg;

	s->list = list;
	sem_post(&s->done);
}

static void get_stats(void *arg)
{
	sivshm_door_stats(stage.door, got_stats, arg);
}

json_t *stage_stats(const char *name)
{
	struct stats s = {.list = NULL};

	sem_init(&s.done, 0, 0);
	stage_on_control(get_stats, &s);
	while (sem_wait(&s.done))
		;
	sem_destroy(&s.done);
	return pick(s.list, "worker", name);
}

/* Frontends */

struct sivshm_port *stage_open(const char *name)
{
	uint64_t end_ns = clock_now_ns() + STAGE_WAIT_MS * NSEC_PER_MSEC;
	struct sivshm_port *port = NULL;
	char where[128];

	snprintf(where, sizeof(where), "unix:%s/%s.sock", stage.dir, name);
	while (sivshm_open(where, STAGE_WAIT_MS, &port)) {
		if (clock_now_ns() > end_ns)
			fail_msg("cannot connect to %s", where);
		usleep(200);
	}
	return port;
}

static const struct front_segment_opts usual = {
	.queues = 1,
	.max_segments = 256,
	.sync_pages = 64,
};

void client_restart(struct client *c, const struct front_segment_opts *opts)
{
	assert_int_equal(front_segment_create(c->port, opts ? opts : &usual, &c->segment), 0);
	if (front_segment_connect(c->segment, STAGE_WAIT_MS))
		fail_msg("%s", front_segment_fault(c->segment));
}

struct client client_open(const char *name, const struct front_segment_opts *opts)
{
	struct client c = {.port = stage_open(name)};

	client_restart(&c, opts);
	return c;
}

void client_close(struct client *c)
{
	assert_int_equal(front_segment_close(c->segment, STAGE_WAIT_MS), 0);
	client_die(c);
}

void client_die(struct client *c)
{
	front_segment_destroy(c->segment);
	sivshm_port_close(c->port);
}

void client_check(struct client *c, unsigned queue, uint64_t sector, unsigned sectors)
{
	static uint64_t sequence;
	struct front *f = front_segment_queue(c->segment, queue);
	size_t len = (size_t)sectors * 512;
	uint64_t *out = malloc(len), *in = calloc(1, len);

	for (size_t i = 0; i < len / 8; i++)
		out[i] = ++sequence * UINT64_C(0x9e3779b97f4a7c15);
	assert_int_equal(front_rw_sync(f, BLKIF_WRITE, sector, out, len), 0);
	assert_int_equal(front_rw_sync(f, BLKIF_READ, sector, in, len), 0);
	assert_memory_equal(in, out, len);
	free(out);
	free(in);
}

/* By hand */

struct hand hand_open(const char *name)
{
	struct hand h = {.port = stage_open(name)};

	h.page = sivshm_port_memory(h.port);
	return h;
}

void hand_say(struct hand *h, uint32_t state)
{
	atomic_store_explicit(&h->page->frontend.state, state, memory_order_release);
	assert_int_equal(sivshm_port_ring(h->port, 0), 0);
}

struct expected {
	const struct hand *hand;
	uint32_t state;
};

static bool backend_is(void *arg)
{
	const struct expected *e = arg;
	const struct control_backend *b = &e->hand->page->backend;

	return atomic_load(&b->epoch) == e->hand->epoch && atomic_load(&b->state) == e->state;
}

void hand_wait(struct hand *h, uint32_t state)
{
	struct expected e = {h, state};

	stage_wait(backend_is, &e);
}

void hand_begin(struct hand *h, uint32_t epoch)
{
	h->epoch = epoch;
	atomic_store(&h->page->frontend.state, CONTROL_FRONTEND_NONE);
	atomic_store(&h->page->frontend.epoch, epoch);
	hand_say(h, CONTROL_FRONTEND_INIT);
	hand_wait(h, CONTROL_BACKEND_OFFER);
}

void hand_choose(struct hand *h)
{
	struct control_frontend *f = &h->page->frontend;

	f->version = CONTROL_VERSION;
	f->layout = CONTROL_LAYOUT_X86_64;
	f->nr_queues = 1;
	f->ring_order = 0;
	f->rings[0] = 1;
	memset((char *)h->page + BLKIF_PAGE_SIZE, 0, BLKIF_PAGE_SIZE);
}

void hand_assert_error(struct hand *h, const char *text)
{
	if (!strstr(h->page->backend.error, text))
		fail_msg("\"%s\" is not in \"%.256s\"", text, h->page->backend.error);
}

void hand_connect(struct hand *h, uint32_t epoch)
{
	hand_begin(h, epoch);
	hand_choose(h);
	hand_say(h, CONTROL_FRONTEND_READY);
	hand_wait(h, CONTROL_BACKEND_CONNECTED);
}

void hand_close(struct hand *h)
{
	sivshm_port_close(h->port);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frontends that die or begin anew, in every state and with requests at the device: what is under
 * way ends before its memory goes, or is used for something else.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../fds.h"
#include "blkif/wire.h"
#include "sivshm/page.h"
#include "stage.h"

static const struct sivshm_door_worker on_held = {
	.bdev = "held", .segment_bytes = 1 << 20, .max_queues = 2};

static unsigned count_segments(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned n = 0;
	char line[512];

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		n += strstr(line, "memfd:sivshm") != NULL;
	fclose(maps);
	return n;
}

/* A READ of one page into page 2 of the segment, by hand, in the ring at page 1. */
static void submit_read(struct hand *h, uint32_t n, uint64_t sector)
{
	struct blkif_sring *sring = (void *)((char *)h->page + BLKIF_PAGE_SIZE);
	char *slot = (char *)sring + BLKIF_RING_HEADER_BYTES + n * 112;
	struct blkif_wire_segment seg = {.gref = 2, .last_sect = 7};
	uint64_t id = 1000 + n;

	memset(slot, 0, 112);
	slot[BLKIF_REQ_OPERATION] = BLKIF_READ;
	slot[BLKIF_REQ_NR_SEGMENTS] = 1;
	memcpy(slot + blkif_layout_x86_64.id, &id, sizeof(id));
	memcpy(slot + blkif_layout_x86_64.sector, &sector, sizeof(sector));
	memcpy(slot + blkif_layout_x86_64.segments, &seg, sizeof(seg));
	atomic_store(&sring->req_prod, n + 1);
	sivshm_port_ring(h->port, 1);
}

static uint32_t responses(struct hand *h)
{
	return atomic_load(&((struct blkif_sring *)(void *)((char *)h->page + 4096))->rsp_prod);
}

/* Each way to be somewhere in a life, and to die there; the last ones have I/O under way. */
enum place {
	JOINED,
	SAID_INIT,
	OFFERED,
	SAID_READY,
	CONNECTED,
	REFUSED,
	CLOSED,
	BUSY,
	BUSY_AND_CLOSING,
	BUSY_AND_REBORN,
	PLACES,
};

static void go_to(struct hand *h, enum place place, struct held *held)
{
	if (place == JOINED)
		return;
	if (place == SAID_INIT) {
		atomic_store(&h->page->frontend.epoch, 7);
		hand_say(h, CONTROL_FRONTEND_INIT);
		return;
	}
	hand_begin(h, 7);
	if (place == OFFERED)
		return;
	hand_choose(h);
	if (place == REFUSED)
		h->page->frontend.nr_queues = 0;
	hand_say(h, CONTROL_FRONTEND_READY);
	if (place == SAID_READY)
		return;
	hand_wait(h, place == REFUSED ? CONTROL_BACKEND_REFUSED : CONTROL_BACKEND_CONNECTED);
	if (place == CLOSED) {
		hand_say(h, CONTROL_FRONTEND_CLOSING);
		hand_wait(h, CONTROL_BACKEND_CLOSED);
	}
	if (place < BUSY)
		return;
	held_hold(held);
	submit_read(h, 0, 0);
	submit_read(h, 1, 8);
	assert_true(held_wait(held, 2));
	if (place == BUSY_AND_CLOSING) {
		hand_say(h, CONTROL_FRONTEND_CLOSING);
		stage_wait_state("w", "closing");
	}
	if (place == BUSY_AND_REBORN) {
		atomic_store(&h->page->frontend.epoch, 8);
		hand_say(h, CONTROL_FRONTEND_INIT);
		stage_wait_state("w", "closing");
	}
}

static void deaths(enum sivshm_door_sharing sharing)
{
	struct held *held = stage_held("held", 1 << 20);
	struct sivshm_door_worker want = on_held;
	unsigned fds = 0;

	want.sharing = sharing;
	stage_add(want);
	for (enum place place = 0; place < PLACES; place++) {
		struct hand h = hand_open("w");
		struct client c;

		go_to(&h, place, held);
		hand_close(&h);
		if (place >= BUSY) {
			stage_wait_state("w", "closing");
			/* As long as the device may write there it is there. */
			usleep(20000);
			assert_int_equal(count_segments(), 1);
			if (sharing == SIVSHM_DOOR_SHARING_DMA)
				assert_int_equal(stage_dma_mapped(), 256);
			held_release(held, false);
		}
		stage_wait_state("w", "listening");
		/* The new one, and no other. */
		assert_int_equal(count_segments(), 1);
		assert_int_equal(stage_dma_mapped(), 0);
		if (!fds)
			fds = fds_count();
		assert_int_equal(fds_count(), fds);
		/* And the next one is served. */
		c = client_open("w", NULL);
		client_check(&c, 0, 0, 8);
		client_close(&c);
		stage_wait_state("w", "listening");
	}
	assert_int_equal(stage_dma_faults(), 0);
}

static void deaths_copied(void **state)
{
	deaths(SIVSHM_DOOR_SHARING_COPY);
}

static void deaths_direct(void **state)
{
	deaths(SIVSHM_DOOR_SHARING_MAP);
}

static void deaths_by_dma(void **state)
{
	stage_use_dma();
	deaths(SIVSHM_DOOR_SHARING_DMA);
}

/* A process of its own, which is killed with requests at the device. */
static void killed(void **state)
{
	struct held *held = stage_held("held", 1 << 20);
	struct client c;
	pid_t child;
	int status;

	stage_add(on_held);
	held_hold(held);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		struct hand h = hand_open("w");

		hand_connect(&h, 1);
		submit_read(&h, 0, 0);
		for (;;)
			pause();
	}
	assert_true(held_wait(held, 1));
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	stage_wait_state("w", "closing");
	held_release(held, false);
	stage_wait_state("w", "listening");
	c = client_open("w", NULL);
	client_check(&c, 0, 0, 8);
	client_close(&c);
}

/* A guest that is reset: the same segment, and a life that knows nothing of the one before. */
static void reboots(void **state)
{
	struct held *held = stage_held("held", 1 << 20);
	uint32_t epoch = 100;
	char *data;
	struct hand h;

	stage_add(on_held);
	h = hand_open("w");
	data = (char *)h.page + 2 * BLKIF_PAGE_SIZE;
	for (enum place place = 0; place < PLACES; place++) {
		go_to(&h, place, held);
		if (place >= BUSY) {
			/* The new life is not answered while pages are in use for the old one. */
			h.epoch = ++epoch;
			atomic_store(&h.page->frontend.state, CONTROL_FRONTEND_NONE);
			atomic_store(&h.page->frontend.epoch, h.epoch);
			hand_say(&h, CONTROL_FRONTEND_INIT);
			usleep(50000);
			assert_int_not_equal(h.page->backend.epoch, h.epoch);
			held_release(held, false);
			hand_wait(&h, CONTROL_BACKEND_OFFER);
		} else {
			hand_begin(&h, ++epoch);
		}
		/* Its memory is its own now: nothing of before writes there. */
		memset(data, 0x77, BLKIF_PAGE_SIZE);
		hand_choose(&h);
		hand_say(&h, CONTROL_FRONTEND_READY);
		hand_wait(&h, CONTROL_BACKEND_CONNECTED);
		usleep(5000);
		assert_int_equal(responses(&h), 0);
		for (unsigned i = 0; i < BLKIF_PAGE_SIZE; i++)
			assert_int_equal(data[i], 0x77);
		memset(held_data(held), (int)epoch, 4096);
		submit_read(&h, 0, 0);
		while (!responses(&h))
			usleep(100);
		assert_int_equal(data[0], (char)epoch);
		/* go_to() begins with epoch 7. */
		if (place + 1 < PLACES)
			hand_begin(&h, 1);
	}
	hand_close(&h);
}

/* Lives cost nothing that is not given back. */
static void many_lives(void **state)
{
	unsigned fds = 0;
	struct hand h;

	stage_add((struct sivshm_door_worker){.max_queues = 2});
	h = hand_open("w");
	for (uint32_t epoch = 1; epoch <= 300; epoch++) {
		hand_connect(&h, epoch);
		if (epoch == 10)
			fds = fds_count();
	}
	assert_int_equal(fds_count(), fds);
	hand_close(&h);
	for (unsigned i = 0; i < 50; i++) {
		stage_wait_state("w", "listening");
		h = hand_open("w");
		hand_connect(&h, 1);
		hand_close(&h);
	}
	stage_wait_state("w", "listening");
	assert_int_equal(count_segments(), 1);
}

/* What takes time is done once for a segment, and not for each life in it. */
static void mapped_once_for_all_lives(void **state)
{
	struct hand h;

	stage_use_dma();
	stage_held("held", 1 << 20);
	stage_add(on_held);
	h = hand_open("w");
	for (uint32_t epoch = 1; epoch <= 20; epoch++) {
		hand_connect(&h, epoch);
		submit_read(&h, 0, 0);
		while (!responses(&h))
			usleep(100);
	}
	assert_int_equal(stage_dma_maps(), 1);
	assert_int_equal(stage_dma_mapped(), 256);
	assert_int_equal(stage_dma_faults(), 0);
	hand_close(&h);
	stage_wait_state("w", "listening");
	assert_int_equal(stage_dma_mapped(), 0);
}

/* It takes no response, says nothing, and answers no question. */
static void one_that_stops_reading(void **state)
{
	struct sivshm_door_worker other = {.name = "other", .bdev = "ram"};
	struct client c;
	struct hand h;

	stage_held("held", 1 << 20);
	stage_add(on_held);
	stage_add(other);
	h = hand_open("w");
	hand_connect(&h, 1);
	for (uint32_t n = 0; n < 32; n++)
		submit_read(&h, n, n);
	while (responses(&h) < 32)
		usleep(100);
	c = client_open("other", NULL);
	client_check(&c, 0, 0, 8);
	client_close(&c);
	stage_remove("w", false);
	hand_wait(&h, CONTROL_BACKEND_CLOSING);
	usleep(20000);
	assert_false(stage_is_removed());
	stage_remove("w", true);
	stage_wait_removed();
	hand_close(&h);
}

/* The door ends while a dead frontend's requests are at the device, and while one is starting. */
static void drained_in_the_middle(void **state)
{
	struct held *held = stage_held("held", 1 << 20);
	struct hand dead, starting;

	stage_add(on_held);
	stage_add((struct sivshm_door_worker){.name = "v", .bdev = "null"});
	dead = hand_open("w");
	go_to(&dead, BUSY, held);
	hand_close(&dead);
	stage_wait_state("w", "closing");
	starting = hand_open("v");
	go_to(&starting, SAID_READY, held);
	held_release(held, false);
	stage_drain();
	assert_int_equal(count_segments(), 1); /* ours */
	assert_int_equal(starting.page->backend.state, CONTROL_BACKEND_CLOSED);
	hand_assert_error(&starting, "sluiced is ending");
	hand_close(&starting);
}

/* Removed by force with requests at the device: gone when they are. */
static void removed_while_busy(void **state)
{
	struct held *held = stage_held("held", 1 << 20);
	struct hand h;

	stage_add(on_held);
	h = hand_open("w");
	go_to(&h, BUSY, held);
	stage_remove("w", true);
	usleep(20000);
	assert_false(stage_is_removed());
	held_release(held, false);
	stage_wait_removed();
	h.epoch = 7;
	hand_wait(&h, CONTROL_BACKEND_CLOSED);
	assert_int_equal(responses(&h), 2);
	hand_close(&h);
}

struct lives {
	struct control_page page;
	atomic_bool over;
};

/* One life after the other: those of even epochs are READY, the others INIT. */
static void *live(void *arg)
{
	struct lives *l = arg;
	struct control_frontend *f = &l->page.frontend;

	for (uint32_t epoch = 1; !atomic_load_explicit(&l->over, memory_order_relaxed); epoch++) {
		atomic_store_explicit(&f->state, CONTROL_FRONTEND_NONE, memory_order_relaxed);
		atomic_store_explicit(&f->epoch, epoch, memory_order_release);
		atomic_store_explicit(&f->state,
				      epoch % 2 ? CONTROL_FRONTEND_INIT : CONTROL_FRONTEND_READY,
				      memory_order_release);
	}
	return NULL;
}

/* What one life says is never taken for another's. */
static void states_are_of_their_epoch(void **state)
{
	enum { ENOUGH = 200000 };
	struct lives *l = calloc(1, sizeof(*l));
	unsigned inits = 0, readies = 0, mixed = 0;
	uint32_t epoch, said;
	pthread_t thread;

	assert_non_null(l);
	assert_int_equal(pthread_create(&thread, NULL, live, l), 0);
	while (inits < ENOUGH || readies < ENOUGH) {
		sivshm_page_look(&l->page, &epoch, &said);
		inits += said == CONTROL_FRONTEND_INIT;
		readies += said == CONTROL_FRONTEND_READY;
		mixed += said == (epoch % 2 ? CONTROL_FRONTEND_READY : CONTROL_FRONTEND_INIT);
	}
	atomic_store(&l->over, true);
	pthread_join(thread, NULL);
	assert_int_equal(mixed, 0);
	free(l);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)
	const struct CMUnitTest tests[] = {
		TEST(deaths_copied),
		TEST(deaths_direct),
		TEST(deaths_by_dma),
		TEST(killed),
		TEST(reboots),
		TEST(many_lives),
		TEST(mapped_once_for_all_lives),
		TEST(one_that_stops_reading),
		TEST(drained_in_the_middle),
		TEST(removed_while_busy),
		cmocka_unit_test(states_are_of_their_epoch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The manager: where segments lie, which IDs are given, and what it is told of its workers. */
#include "../fds.h"
#include "desk.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1024 * KIB };

/* Whether nothing can be mapped over something, as when a process has too many mappings. */
static bool stuck;

void *__real_mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);

void *__wrap_mmap64(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	if (!stuck || !at || prot != PROT_NONE)
		return __real_mmap64(at, bytes, prot, flags, fd, offset);
	errno = ENOMEM;
	return MAP_FAILED;
}

/* Whether a byte of this process can be read, which the kernel tries without a signal. */
static bool is_readable(const void *at)
{
	int ends[2];
	bool readable;

	assert_int_equal(pipe(ends), 0);
	readable = write(ends[1], at, 1) == 1;
	close(ends[0]);
	close(ends[1]);
	return readable;
}

static void refuses_options(void **state)
{
	struct desk *desk = *state;
	struct sivshm_manager_opts mo = {.struct_bytes = sizeof(mo)};
	struct sivshm_manager *m;
	struct sivshm_worker *w;
	struct {
		struct sivshm_worker_opts opts;
		int rc;
	} bad[] = {
		{desk_opts(desk, 4 * KIB, 0), -EINVAL},
		{desk_opts(desk, 4 * KIB, SIVSHM_VECTORS_MAX + 1), -EINVAL},
		{desk_opts(desk, 2 * KIB, 1), -EINVAL},
		{desk_opts(desk, 0, 1), -EINVAL},
		{desk_opts(desk, 12 * KIB, 1), -EINVAL},
		{desk_opts(desk, (size_t)2048 * MIB, 1), -ENOSPC},
		{desk_opts(desk, (size_t)1 << 62, 1), -ENOSPC},
		{desk_opts(desk, 4 * KIB, 1), -EINVAL},
	};

	bad[7].opts.struct_bytes--;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(sivshm_worker_add(desk->manager, &bad[i].opts, &w), bad[i].rc);
	mo.range_bytes = 5000;
	assert_int_equal(sivshm_manager_create(&mo, &m), -EINVAL);
	mo.range_bytes = UINT64_MAX - 4095;
	assert_int_equal(sivshm_manager_create(&mo, &m), -EINVAL);
	mo.range_bytes = UINT64_C(1) << 60;
	assert_int_equal(sivshm_manager_create(&mo, &m), -ENOMEM);
	mo = (struct sivshm_manager_opts){0};
	assert_int_equal(sivshm_manager_create(&mo, &m), -EINVAL);
}

static void takes_defaults(void **state)
{
	struct sivshm_manager *m;

	assert_int_equal(sivshm_manager_create(NULL, &m), 0);
	assert_int_equal(sivshm_manager_range(m), UINT64_C(64) << 30);
	sivshm_manager_destroy(m);
	sivshm_manager_destroy(NULL);
}

/* Of a failure nothing remains, however far it came. */
static void leaves_nothing_behind(void **state)
{
	struct desk *desk = *state;
	unsigned before = fds_count();
	struct sivshm_worker_opts opts = desk_opts(desk, 512 * MIB, 2);
	struct sivshm_worker *w[3];

	assert_int_equal(sivshm_worker_add(desk->manager, &opts, &w[0]), 0);
	assert_int_equal(sivshm_worker_add(desk->manager, &opts, &w[1]), 0);
	assert_int_equal(sivshm_worker_add(desk->manager, &opts, &w[2]), -ENOSPC);
	sivshm_worker_remove(w[0]);
	assert_int_equal(sivshm_worker_add(desk->manager, &opts, &w[2]), 0);
	sivshm_worker_remove(w[1]);
	sivshm_worker_remove(w[2]);
	assert_int_equal(fds_count(), before);
}

static void lays_segments_side_by_side(void **state)
{
	static const size_t sizes[] = {4 * KIB, MIB, 8 * KIB, 64 * KIB, 4 * KIB, 256 * MIB};
	enum { N = sizeof(sizes) / sizeof(sizes[0]) };
	struct desk *desk = *state;
	char *base = sivshm_manager_base(desk->manager);
	struct sivshm_worker *w[N];

	for (unsigned i = 0; i < N; i++) {
		struct sivshm_port *p;
		char *memory;

		w[i] = desk_add(desk, sizes[i], 1);
		p = sivshm_worker_port(w[i]);
		memory = sivshm_port_memory(p);
		assert_int_equal(sivshm_port_size(p), sizes[i]);
		assert_ptr_equal(memory, base + sivshm_worker_offset(w[i]));
		assert_int_equal((uintptr_t)memory % sizes[i], 0);
		assert_true(sivshm_worker_offset(w[i]) + sizes[i] <=
			    sivshm_manager_range(desk->manager));
		assert_int_equal(memory[0] | memory[sizes[i] - 1], 0);
		memory[0] = memory[sizes[i] - 1] = (char)(i + 1);
	}
	for (unsigned i = 0; i < N; i++) {
		const char *memory = sivshm_port_memory(sivshm_worker_port(w[i]));

		assert_int_equal(memory[0], i + 1);
		assert_int_equal(memory[sizes[i] - 1], i + 1);
	}
	/* The small ones lie in the gap before the MiB. */
	assert_int_equal(sivshm_worker_offset(w[0]), 0);
	assert_int_equal(sivshm_worker_offset(w[1]), MIB);
	assert_int_equal(sivshm_worker_offset(w[2]), 8 * KIB);
	assert_int_equal(sivshm_worker_offset(w[3]), 64 * KIB);
	assert_int_equal(sivshm_worker_offset(w[4]), 4 * KIB);
	assert_false(is_readable(base + 16 * KIB));
	assert_true(is_readable(base + 8 * KIB));
	sivshm_worker_remove(w[2]);
	assert_false(is_readable(base + 8 * KIB));
	assert_int_equal(sivshm_worker_offset(desk_add(desk, 8 * KIB, 1)), 8 * KIB);
}

/* A place that cannot be emptied is not given to another before it is. */
static void keeps_a_place_that_is_stuck(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w[3] = {desk_add(desk, MIB, 1), desk_add(desk, MIB, 1)};
	unsigned before = fds_count();

	stuck = true;
	sivshm_worker_remove(w[0]);
	/* All else of it is gone. */
	assert_int_equal(before - fds_count(), 4);
	w[2] = desk_add(desk, MIB, 1);
	assert_int_equal(sivshm_worker_offset(w[2]), 2 * MIB);
	sivshm_worker_remove(w[1]);
	stuck = false;
	assert_int_equal(sivshm_worker_offset(desk_add(desk, MIB, 1)), 0);
	assert_int_equal(sivshm_worker_offset(desk_add(desk, MIB, 1)), MIB);
	stuck = true;
	sivshm_worker_remove(w[2]);
	/* The manager's end takes the range as it is. */
	sivshm_manager_destroy(desk->manager);
	stuck = false;
	assert_int_equal(sivshm_manager_create(NULL, &desk->manager), 0);
}

static void fits_one_as_large_as_the_range(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w = desk_add(desk, sivshm_manager_range(desk->manager), 1);

	assert_int_equal(sivshm_worker_offset(w), 0);
	/* What is not touched costs nothing. */
	((char *)sivshm_manager_base(desk->manager))[sivshm_manager_range(desk->manager) - 1] = 1;
}

static void gives_each_new_ids(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *first = desk_add(desk, 4 * KIB, 1);
	unsigned n = 0;

	assert_int_equal(sivshm_port_id(sivshm_worker_port(first)), 0);
	assert_int_equal(sivshm_port_peer(sivshm_worker_port(first)), 1);
	/* Once round: those of the first are left out, as it is still there. */
	for (unsigned pair = 1; pair != 2 || n < 2; pair = pair == 32767 ? 1 : pair + 1) {
		struct sivshm_worker *w = desk_add(desk, 4 * KIB, 1);
		struct sivshm_port *p = sivshm_worker_port(w);

		assert_int_equal(sivshm_port_id(p), 2 * pair);
		assert_int_equal(sivshm_port_peer(p), 2 * pair + 1);
		sivshm_worker_remove(w);
		n++;
	}
	assert_in_range(n, 32767, 32769);
}

/* A child that goes on as this program would hold on to the memory, and write it. */
static void leaves_children_without(void **state)
{
	struct desk *desk = *state;
	const char *memory = sivshm_port_memory(sivshm_worker_port(desk_add(desk, 4 * KIB, 1)));
	pid_t child;
	int status;

	assert_true(is_readable(memory));
	child = fork();
	if (child == 0)
		_exit(is_readable(memory));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* Rounds enough to stand out from what others do meanwhile. */
static void gives_memory_back(void **state)
{
	enum { ROUNDS = 8, BYTES = 64 * MIB };
	struct desk *desk = *state;
	long before = desk_shmem(), during = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct sivshm_worker *w;
		struct sivshm_port *p = desk_hire(desk, BYTES, 1, &w);

		memset(sivshm_port_memory(p), 1, BYTES);
		if (during < desk_shmem())
			during = desk_shmem();
		sivshm_port_close(p);
		sivshm_worker_remove(w);
	}
	assert_true(during - before >= BYTES / 2);
	assert_true(desk_shmem() - before < (long)ROUNDS * BYTES / 2);
}

static void hears_rings(void **state)
{
	struct desk *desk = *state;
	struct pollfd ready = {.fd = sivshm_manager_fd(desk->manager), .events = POLLIN};
	struct sivshm_worker *w[2];
	struct sivshm_port *p[2] = {desk_hire(desk, 4 * KIB, 3, &w[0]),
				    desk_hire(desk, 4 * KIB, 2, &w[1])};

	assert_int_equal(sivshm_manager_dispatch(desk->manager, 0), 0);
	assert_int_equal(poll(&ready, 1, 0), 0);
	assert_int_equal(sivshm_port_ring(p[1], 1), 0);
	assert_int_equal(poll(&ready, 1, 0), 1);
	assert_int_equal(sivshm_manager_dispatch(desk->manager, -1), 1);
	assert_ptr_equal(desk->notes[0].worker, w[1]);
	assert_int_equal(desk->notes[0].event, DESK_RUNG);
	assert_int_equal(desk->notes[0].vector, 1);
	/* Rings of one doorbell are one; of two, two. */
	for (int i = 0; i < 5; i++)
		assert_int_equal(sivshm_port_ring(p[0], 2), 0);
	assert_int_equal(sivshm_port_ring(p[0], 0), 0);
	desk_settle(desk);
	assert_int_equal(desk->nr_notes, 3);
	assert_int_equal(desk_count(desk, w[0], DESK_RUNG), 2);
	assert_int_equal(sivshm_port_ring(p[0], 3), -EINVAL);
	assert_int_equal(poll(&ready, 1, 0), 0);
	sivshm_port_close(p[0]);
	sivshm_port_close(p[1]);
}

static void leaves_rings_to_their_owner(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker_opts opts = desk_opts(desk, 4 * KIB, 1);
	struct sivshm_worker *w;
	struct sivshm_port *mine, *p;
	struct pollfd ready = {.events = POLLIN};

	opts.own_rings = true;
	assert_int_equal(sivshm_worker_add(desk->manager, &opts, &w), 0);
	p = desk_open(w);
	mine = sivshm_worker_port(w);
	ready.fd = sivshm_port_fd(mine, 0);
	assert_int_equal(poll(&ready, 1, 0), 0);
	sivshm_port_ring(p, 0);
	assert_int_equal(poll(&ready, 1, 0), 1);
	desk_settle(desk);
	assert_int_equal(desk->nr_notes, 0);
	assert_int_equal(sivshm_port_take(mine, 0), 1);
	assert_int_equal(sivshm_port_take(mine, 0), 0);
	sivshm_port_ring(p, 0);
	sivshm_port_close(p);
	desk_settle(desk);
	/* The end is told all the same, and the ring remains to be taken. */
	assert_int_equal(desk->nr_notes, 1);
	assert_int_equal(desk_count(desk, w, DESK_GONE), 1);
	assert_int_equal(sivshm_port_take(mine, 0), 1);
}

static void tells_the_end_last_and_once(void **state)
{
	struct desk *desk = *state;
	struct sivshm_worker *w;
	struct sivshm_port *p = desk_hire(desk, 4 * KIB, 4, &w);
	struct pollfd ready = {.fd = sivshm_manager_fd(desk->manager), .events = POLLIN};
	char *memory = sivshm_port_memory(sivshm_worker_port(w));
	int kept;

	strcpy(sivshm_port_memory(p), "last words");
	sivshm_port_ring(p, 3);
	sivshm_port_ring(p, 1);
	/* A descriptor that somebody has kept. */
	kept = dup(SIVSHM_CONTAINER_OF(p, struct sivshm_pair, port)->out[2]);
	sivshm_port_close(p);
	/* The end is seen first, and told last. */
	assert_int_equal(eventfd_write(kept, 1), 0);
	desk_settle(desk);
	assert_int_equal(desk->nr_notes, 4);
	assert_int_equal(desk_count(desk, w, DESK_RUNG), 3);
	assert_int_equal(desk->notes[3].event, DESK_GONE);
	assert_int_equal(eventfd_write(kept, 1), 0);
	assert_int_equal(poll(&ready, 1, 0), 0);
	desk_settle(desk);
	assert_int_equal(desk->nr_notes, 4);
	close(kept);
	/* The segment stays until it is removed. */
	assert_string_equal(memory, "last words");
	assert_int_equal(sivshm_port_ring(sivshm_worker_port(w), 0), -EPIPE);
	assert_int_equal(sivshm_port_is_alive(sivshm_worker_port(w)), 0);
	assert_int_equal(sivshm_worker_take_socket(w), -EALREADY);
	sivshm_worker_remove(w);
	assert_false(is_readable(memory));
}

/* Its doorbells live on in its hands; here nobody listens to them. */
static void hears_nothing_of_the_removed(void **state)
{
	struct desk *desk = *state;
	struct pollfd ready = {.fd = sivshm_manager_fd(desk->manager), .events = POLLIN};
	struct sivshm_worker *w = desk_add(desk, 4 * KIB, 2);
	struct bare bare = desk_read(sivshm_worker_take_socket(w), 2);

	sivshm_worker_remove(w);
	assert_int_equal(eventfd_write(bare.ring[0], 1), 0);
	assert_int_equal(eventfd_write(bare.ring[1], 1), 0);
	assert_int_equal(poll(&ready, 1, 0), 0);
	assert_int_equal(sivshm_manager_dispatch(desk->manager, 0), 0);
	desk_drop(&bare);
	assert_int_equal(poll(&ready, 1, 0), 0);
}

/* Who is called first removes all, itself included. */
static void remove_all(struct desk *desk, const struct desk_note *note)
{
	struct sivshm_worker **all = desk->arg;

	desk->then = NULL;
	for (unsigned i = 0; all[i]; i++)
		sivshm_worker_remove(all[i]);
	assert_int_equal(sivshm_manager_dispatch(desk->manager, 0), -EBUSY);
	/* New ones are not taken for those whose events are in hand. */
	all[0] = desk_add(desk, 4 * KIB, 3);
}

static void can_be_changed_from_callbacks(void **state)
{
	struct desk *desk = *state;

	for (unsigned with_end = 0; with_end < 3; with_end++) {
		struct sivshm_worker *w[4] = {0};
		struct sivshm_port *p[3];
		unsigned before = desk->nr_notes;

		for (unsigned i = 0; i < 3; i++)
			p[i] = desk_hire(desk, 4 * KIB, 3, &w[i]);
		for (unsigned i = 0; i < 3; i++) {
			for (unsigned v = 0; v < 3 && with_end != 1; v++)
				sivshm_port_ring(p[i], v);
			if (with_end)
				sivshm_port_close(p[i]);
		}
		desk->then = remove_all;
		desk->arg = w;
		desk_settle(desk);
		assert_int_equal(desk->nr_notes, before + 1);
		for (unsigned i = 0; i < 3 && !with_end; i++) {
			assert_int_equal(sivshm_port_is_alive(p[i]), 0);
			sivshm_port_close(p[i]);
		}
		sivshm_worker_remove(w[0]);
	}
}

static void waits_for_its_time(void **state)
{
	struct desk *desk = *state;
	int64_t begin = desk_now_ms();

	assert_int_equal(sivshm_manager_dispatch(desk->manager, 30), 0);
	assert_true(desk_now_ms() - begin >= 29);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_setup, desk_teardown)
		TEST(refuses_options),
		TEST(takes_defaults),
		TEST(leaves_nothing_behind),
		TEST(lays_segments_side_by_side),
		TEST(keeps_a_place_that_is_stuck),
		TEST(fits_one_as_large_as_the_range),
		TEST(gives_each_new_ids),
		TEST(leaves_children_without),
		TEST(gives_memory_back),
		TEST(hears_rings),
		TEST(leaves_rings_to_their_owner),
		TEST(tells_the_end_last_and_once),
		TEST(hears_nothing_of_the_removed),
		TEST(can_be_changed_from_callbacks),
		TEST(waits_for_its_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

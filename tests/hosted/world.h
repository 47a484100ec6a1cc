/* SPDX-License-Identifier: BSD-2-Clause */
/* world: what most hosted tests start from: a host with one bdev, an instance and a guest. */
#ifndef SLUICE_TEST_WORLD_H
#define SLUICE_TEST_WORLD_H

/* In the order that cmocka needs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "double.h"
#include "guest.h"
#include "held.h"
#include "load.h"

enum { WORLD_DISK_BYTES = 8 << 20, WORLD_GUEST = 5, WORLD_OTHER = 6 };

struct world {
	struct host host;
	struct held *disk; /* named "disk" */
	struct instance *daemon;
	struct guest guest;
	struct guest other; /* for tests that need two */
};

extern struct world world;

/* For cmocka: a host and the bdev; and the end of all, which fails if anything was left over. */
int world_setup(void **state);
int world_teardown(void **state);
/* Starts the instance. */
void world_start(const struct instance_opts *opts);
/* Starts the instance with its defaults, and a guest with the disk; and connects it, too. */
void world_start_with_guest(void);
/* The same, and connects; the disk holds a whole ring of the load's requests. */
struct load *world_fill_ring(void);
/* Ends the instance, as SIGTERM would. */
void world_end(void);
/* Waits until xenstore has an error of the guest's disk; false after HOST_WAIT_MS. */
bool world_wait_error(struct guest *g);
void world_connect(void);
/* Starts the instance with its defaults, and a guest with such a disk, and connects it. */
void world_connect_disk(const struct disk_opts *disk, const struct guest_opts *guest);
/* A load over the guest's disk: runs @requests and compares. */
void world_run_load(const struct load_opts *opts, unsigned requests);

/* Makes another bdev like the first, "other"; and a guest with it that is connected. */
struct held *world_make_other(void);
struct held *world_connect_other(const struct guest_opts *opts);
/* The backend's states of the disk so far, as disk_history(). */
void world_assert_history(struct disk *d, const char *states);
/* A figure of world.daemon's first disk, as vbd_get_iostat names it: "read", "requests"; a
 * group in a group is "shared_by/dma"; NULL: of none. */
int64_t world_stat(const char *group, const char *name);
/* Waits a while, in which what must not happen would happen. */
void world_settle(void);
/* The same, and whoever waits meanwhile does so without a turn of the instance's first reactor. */
void world_settle_idle(void);
/* A sector is written and read back. */
void world_assert_works(struct guest *g);
/* Whether somebody has the guest's ring mapped; waits until it is so, false after HOST_WAIT_MS. */
bool world_is_served(struct guest *g);
bool world_wait_served(struct guest *g);
/* How many disks the instance knows. */
unsigned world_disks(struct instance *i);
bool world_wait_disks(struct instance *i, unsigned n);
/* Keeps a reactor (the instance's first, or the control thread) busy until world_unblock(). */
void world_block(struct instance *i);
void world_block_control(void);
void world_unblock(void);
/* The kernel's xen-blkback binds to a device ("vbd-5-51712"), as sysfs tells; and lets go of it,
 * once it is asked to. */
void world_kernel_takes(const char *device);
void world_kernel_lets_go(const char *device);

#define world_test(fn) cmocka_unit_test_setup_teardown(fn, world_setup, world_teardown)
/* One test for each way in which a guest's pages can be reached. */
#define world_test_in(fn, way, text)                                                       \
	{                                                                                  \
		.name = #fn text, .test_func = (fn), .setup_func = world_setup,            \
		.teardown_func = world_teardown, .initial_state = (void *)(uintptr_t)(way) \
	}
#define world_tests(fn)                                                                     \
	world_test_in(fn, &guest_copied, ""), world_test_in(fn, &guest_mapped, ", mapped"), \
		world_test_in(fn, &guest_persistent, ", persistent"),                       \
		world_test_in(fn, &guest_dma, ", dma"),                                     \
		world_test_in(fn, &guest_dma_persistent, ", dma persistent"),               \
		world_test_in(fn, &guest_auto, ", auto")

#endif

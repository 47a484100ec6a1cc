/* SPDX-License-Identifier: BSD-2-Clause */
#include "admin.h"

#include <stdatomic.h>

#include "world.h"

static atomic_int quiet, failed; /* pauses that were answered */
static struct {
	int rc;
	struct err err;
	struct xen_limits limits;
} ask;

static struct xen_backend *backend(void)
{
	return instance_backend(world.daemon);
}

static void came_to_rest(void *arg, const char *error)
{
	atomic_fetch_add(error ? &failed : &quiet, 1);
}

static void pause_on_control(void *arg)
{
	ask.rc = xen_backend_pause(backend(), WORLD_GUEST, ADMIN_DEVID, came_to_rest, NULL,
				   &ask.err);
}

static void resume_on_control(void *arg)
{
	ask.rc = xen_backend_resume(backend(), WORLD_GUEST, ADMIN_DEVID, &ask.err);
}

static void limit_on_control(void *arg)
{
	ask.rc = xen_backend_set_limits(backend(), WORLD_GUEST, ADMIN_DEVID, &ask.limits, &ask.err);
}

int admin_try_pause(void)
{
	host_run(&world.host, pause_on_control, NULL);
	return ask.rc;
}

void admin_pause(void)
{
	assert_int_equal(admin_try_pause(), 0);
}

void admin_resume(void)
{
	host_run(&world.host, resume_on_control, NULL);
	assert_int_equal(ask.rc, 0);
}

void admin_limit(uint64_t ios_per_sec, uint64_t bytes_per_sec)
{
	ask.limits = (struct xen_limits){ios_per_sec, bytes_per_sec};
	host_run(&world.host, limit_on_control, NULL);
	assert_int_equal(ask.rc, 0);
}

int admin_pause_here(void)
{
	pause_on_control(NULL);
	return ask.rc;
}

int admin_limit_here(uint64_t ios_per_sec, uint64_t bytes_per_sec)
{
	ask.limits = (struct xen_limits){ios_per_sec, bytes_per_sec};
	limit_on_control(NULL);
	return ask.rc;
}

static bool wait_for(atomic_int *count, int n)
{
	uint64_t start = host_now_ms();

	while (atomic_load(count) < n && host_now_ms() - start < HOST_WAIT_MS)
		host_nap();
	return atomic_load(count) == n;
}

int admin_quiet(void)
{
	return atomic_load(&quiet);
}

bool admin_wait_quiet(int n)
{
	return wait_for(&quiet, n);
}

int admin_failed(void)
{
	return atomic_load(&failed);
}

bool admin_wait_failed(int n)
{
	return wait_for(&failed, n);
}

static json_t *list;

static void list_on_control(void *arg)
{
	list = xen_backend_list(backend());
}

const json_t *admin_listed_of(unsigned domid, const char *key)
{
	json_decref(list);
	host_run(&world.host, list_on_control, NULL);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *disk = json_array_get(list, i);

		if (json_integer_value(json_object_get(disk, "domid")) == domid)
			return json_object_get(disk, key);
	}
	return NULL;
}

const json_t *admin_listed(const char *key)
{
	return admin_listed_of(WORLD_GUEST, key);
}

int64_t admin_listed_limit(const char *key)
{
	return json_integer_value(json_object_get(admin_listed("limits"), key));
}

void admin_forget(void)
{
	json_decref(list);
	list = NULL;
	atomic_store(&quiet, 0);
	atomic_store(&failed, 0);
}

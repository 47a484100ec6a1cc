/* SPDX-License-Identifier: BSD-2-Clause */
/* What others do: the device, the toolstack, the administrator, time, and whatever may fail. */
#include "stage.h"

#include <errno.h>

#include "disk.h"
#include "double.h"

void act_use_device(const struct fuzz_record *rec)
{
	static const int errors[] = {-EIO, -ENOSPC, -EOPNOTSUPP, -EAGAIN};

	switch (rec->what & 3) {
	case 0:
	case 1:
		disk_hold(rec->what & 1);
		return;
	case 2:
		if (rec->what & 0x80)
			disk_fail_open(rec->v[0] % 4);
		else
			disk_complete(rec->v[0], rec->what & 4);
		return;
	default:
		disk_fail(errors[rec->v[0] & 3], rec->v[1]);
		return;
	}
}

void act_use_toolstack(const struct fuzz_record *rec)
{
	unsigned n = rec->target % DISKS;
	struct guest_disk *d = &stage.disks[n];

	if (!d->keys.back[0] && rec->what % 6 != 4)
		return;
	d->meddled = true;
	switch (rec->what % 6) {
	case 0:
		toolstack_ask(&d->keys);
		return;
	case 1:
		stage_mar_rings(d);
		toolstack_remove_by_force(&d->keys);
		return;
	case 2:
		xs_rm(stage.host.xs, XBT_NULL, d->keys.back);
		return;
	case 3:
		stage_mar_rings(d);
		xs_rm(stage.host.xs, XBT_NULL, d->keys.front);
		return;
	case 4:
		if (stage_is_alive(d))
			stage_add_disk(n, rec->v[0]);
		return;
	default:
		stage_run_script(n);
		return;
	}
}

static void gone(void *arg, const char *error)
{
}

static void quiet(void *arg, const char *error)
{
}

static void stats_came(void *arg, json_t *stats)
{
	json_decref(stats);
}

void act_administer(const struct fuzz_record *rec)
{
	uint32_t domid = disk_of(rec)->domid, devid = disk_of(rec)->devid;
	struct xen_attach attach = {
		.domid = domid,
		.devid = devid,
		.readonly = rec->v[0] & 1,
		.target = {.bdev = "disk", .shared = rec->v[0] & 2},
	};
	char name[64];
	struct xen_limits limits = {.ios_per_sec = rec->v[1], .bytes_per_sec = rec->v[2] << 9};
	const char *kind;
	struct err err;

	switch (rec->what % 12) {
	case 0:
	case 1:
		disk_of(rec)->meddled = true;
		xen_backend_detach(stage.backend, domid, devid, rec->what % 12, gone, NULL, &err);
		return;
	case 2:
		xen_backend_stats(stage.backend, stats_came, NULL);
		return;
	case 3:
		json_decref(xen_backend_list(stage.backend));
		return;
	case 4:
		xen_backend_forget_detach(stage.backend, domid, devid, NULL);
		return;
	case 5:
		xen_backend_pause(stage.backend, domid, devid, quiet, NULL, &err);
		return;
	case 6:
		xen_backend_resume(stage.backend, domid, devid, &err);
		return;
	case 7:
		xen_backend_set_limits(stage.backend, domid, devid, &limits, &err);
		return;
	case 8:
		xen_backend_get_limits(stage.backend, domid, devid, &limits, &err);
		return;
	case 9:
		xen_backend_find_domain(stage.backend, rec->v[0] & 1 ? "next" : "5", &domid, name,
					&err);
		return;
	case 10:
		disk_grow(rec->v[0] & 1 ? "disk" : "other", (uint64_t)rec->v[1] << 12);
		return;
	default:
		xen_backend_attach(stage.backend, &attach, &kind, &err);
		return;
	}
}

void act_change_domain(const struct fuzz_record *rec)
{
	if (stage.alive)
		stage_end_guest();
	else
		stage_make_guest();
}

void act_restart(const struct fuzz_record *rec)
{
	disk_hold(false);
	disk_complete(UINT32_MAX, rec->what & 1);
	stage_end_backend();
	stage_start_backend();
}

void act_set_fault(const struct fuzz_record *rec)
{
	static const int errors[] = {ENOMEM, EINVAL, EAGAIN, ENOSPC, EIO, EACCES, EDQUOT, EBUSY};
	enum double_call call = rec->what % DOUBLE_CALLS;

	if (call == DOUBLE_XS_OPEN || call == DOUBLE_EVTCHN_OPEN || call == DOUBLE_GNTTAB_OPEN)
		return; /* the daemon does not start: no play */
	if (call == DOUBLE_DEVICE_UNMAP)
		return; /* what the hypervisor does not let go of, stays with us */
	double_fail(call, errors[rec->v[0] & 7], rec->v[1], rec->v[2] & 15, NULL);
}

void act_set_share_fault(const struct fuzz_record *rec)
{
	if (rec->what & 1) {
		double_limit_maps(rec->v[0] < 0xf0 ? rec->v[0] : UINT32_MAX);
	} else if (stage.copy_faults < FAULTS_MAX) {
		uint32_t ref = stage.memory.refs[rec->v[0] % PAGES];
		int16_t status = (int16_t)(-1 - rec->v[1] % 13);

		stage.copy_faults++;
		if (rec->what & 2)
			double_fail_device_map(GUEST, ref, status, 1);
		else
			double_fail_copy(GUEST, ref, status, 1);
	}
}

void act_let_time_pass(const struct fuzz_record *rec)
{
	fuzz_clock_advance((uint64_t)(rec->what + 1) << (rec->v[0] % 32));
}

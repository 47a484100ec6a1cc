/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What changes while a disk is served: it is paused and goes on, gets other limits, grows, and has
 * trouble with its device.  None of it ends the connection; the frontend notices no more than that
 * its requests take longer, or that the disk is larger.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "xen/internal.h"
#include "xen/vbd.h"
#include "xen/vbd_store.h"

/* Pausing */

void vbd_tell_quiet(struct vbd *v)
{
	if (v->pause_waiter)
		reactor_send(v->be->opts.control, &v->pause_waiter->msg);
	v->pause_waiter = NULL;
}

static void queues_quiet(void *arg)
{
	struct vbd *v = arg;
	bool again = v->repause;

	v->pausing = false;
	v->repause = false;
	/* Queues that stop say so at once; it is quiet when they have stopped. */
	if (v->phase == VBD_SERVING && (!again || vbd_pause_queues(v)))
		vbd_tell_quiet(v);
}

int vbd_pause_queues(struct vbd *v)
{
	int rc;

	/* A queue is asked once at a time. */
	if (v->pausing) {
		v->repause = true;
		return 0;
	}
	rc = blkif_connection_pause(connection_get_rings(v->conn), queues_quiet, v);
	v->pausing = !rc;
	return rc;
}

int vbd_pause(struct vbd *v, struct vbd_waiter *w)
{
	int rc = v->phase == VBD_SERVING ? vbd_pause_queues(v) : 0;

	if (rc)
		return rc;
	v->paused = true;
	v->pause_waiter = w;
	if (vbd_write_paused(v))
		w->error = "the disk is paused, but only until the daemon ends: this cannot be "
			   "written to xenstore";
	log_info("%s: pausing", v->label);
	/* One that starts or stops is quiet when it has. */
	if (v->phase == VBD_IDLE)
		vbd_tell_quiet(v);
	return 0;
}

static void queues_resumed(void *arg)
{
	struct vbd *v = arg;

	log_info("%s: goes on", v->label);
}

int vbd_resume(struct vbd *v)
{
	int rc = 0;

	v->repause = false;
	/* While it starts it is told when it has. */
	if (v->phase == VBD_SERVING)
		rc = blkif_connection_resume(connection_get_rings(v->conn), queues_resumed, v);
	if (rc)
		return rc;
	v->paused = false;
	if (v->pause_waiter)
		v->pause_waiter->error = "the disk was resumed before it was quiet";
	vbd_tell_quiet(v);
	return vbd_write_paused(v);
}

/* Limits */

int vbd_set_limits(struct vbd *v, uint64_t ios_per_sec, uint64_t bytes_per_sec)
{
	v->ios_per_sec = ios_per_sec;
	v->bytes_per_sec = bytes_per_sec;
	blkif_limiter_set(&v->limiter, ios_per_sec, bytes_per_sec);
	return vbd_write_limits(v);
}

/* Growth */

/* First the queues take requests to the new end, then the frontend is told of it. */
static void queues_know_size(void *arg)
{
	struct vbd *v = arg;
	int rc;

	v->resizing = false;
	if (v->phase != VBD_SERVING)
		return;
	rc = vbd_write_size(v, v->new_sectors);
	if (rc == -ENOENT || rc == -ECANCELED)
		return; /* it is going away */
	if (rc) {
		log_limited(&v->log_limit, LOG_LEVEL_ERROR,
			    "%s: cannot tell the guest its disk's new size: %s", v->label,
			    strerror(-rc));
		vbd_look_again(v, VBD_RETRY_NS);
		return;
	}
	v->sectors = v->new_sectors;
	log_info("%s: has %lu sectors now", v->label, (unsigned long)v->sectors);
	vbd_follow_size(v);
}

void vbd_follow_size(struct vbd *v)
{
	uint64_t sectors;

	if (!v->bdev || v->phase != VBD_SERVING || v->resizing || v->state != XENBUS_CONNECTED)
		return;
	sectors = bdev_get_size(v->bdev) / BLKIF_SECTOR_SIZE;
	if (sectors == v->sectors)
		return;
	v->new_sectors = sectors;
	v->resizing = !blkif_connection_set_sectors(connection_get_rings(v->conn), sectors,
						    queues_know_size, v);
	if (!v->resizing)
		vbd_look_again(v, VBD_RETRY_NS);
}

/* Trouble */

static void queues_gave_up(void *arg)
{
	struct vbd *v = arg;

	log_limited(&v->log_limit, LOG_LEVEL_WARNING,
		    "%s: is to go: what waits for the device is answered with the error", v->label);
}

void vbd_give_up(struct vbd *v)
{
	/* Once a connection; a frontend that stays gets errors from now on. */
	if (v->phase != VBD_SERVING || !v->trouble || v->gave_up)
		return;
	v->gave_up = !blkif_connection_give_up(connection_get_rings(v->conn), queues_gave_up, v);
	if (!v->gave_up)
		vbd_look_again(v, VBD_RETRY_NS);
}

void vbd_take_trouble(void *arg, int error)
{
	struct vbd *v = arg;

	if (v->trouble == error)
		return;
	v->trouble = error;
	if (error && v->want.on_error == BLKIF_ERROR_STOP)
		log_limited(&v->log_limit, LOG_LEVEL_ERROR,
			    "%s: stopped, since the device fails (%s): mend it, then 'sluice "
			    "resume'",
			    v->label, strerror(-error));
	else if (error)
		log_limited(&v->log_limit, LOG_LEVEL_WARNING,
			    "%s: the device fails (%s): trying again for up to %u s", v->label,
			    strerror(-error), v->want.retry_s);
	else
		log_limited(&v->log_limit, LOG_LEVEL_INFO, "%s: no request waits any more",
			    v->label);
	/* While it closes nobody waits for the device to be mended. */
	if (v->state == XENBUS_CLOSING)
		vbd_give_up(v);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "sivshm/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

/* A frontend may ring the control vector as it likes: so often in a while its page is looked at. */
enum { LOOKS_MAX = 64 };
#define CALM_NS (20 * NSEC_PER_MSEC)

/*
 * What a frontend has the control thread do beyond looking (queues and segments are made for it,
 * and taken away) can take long: many milliseconds for many deep queues. For each of them it is not
 * listened to for PRICE others, which belong to everybody else. So much it may owe before, and no
 * more is ever collected.
 */
enum { PRICE = 8 };
#define DEBT_MAX_NS (2 * NSEC_PER_SEC)
#define CREDIT_NS   (500 * NSEC_PER_MSEC)

/* Always one shot: see lane.c. */
enum { DEAF = EPOLLONESHOT, LISTENING = EPOLLIN | EPOLLONESHOT };

static void set_error(struct sivshm_disk *d, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Once as long as it is the same. */
static void set_error(struct sivshm_disk *d, const char *fmt, ...)
{
	char error[sizeof(d->error)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(error, sizeof(error), fmt, args);
	va_end(args);
	if (!strcmp(error, d->error))
		return;
	memcpy(d->error, error, sizeof(error));
	log_limited(&d->log_limit, LOG_LEVEL_WARNING, "%s: %s", d->label, d->error);
}

static void calmed(struct reactor_timer *t);

struct sivshm_disk *sivshm_disk_create(struct sivshm_door *door,
				       const struct sivshm_door_worker *want, uint32_t number)
{
	struct sivshm_disk *d = calloc(1, sizeof(*d));
	unsigned reactors = door->opts.nr_reactors;

	if (!d)
		return NULL;
	d->door = door;
	d->number = number;
	snprintf(d->name, sizeof(d->name), "%s", want->name);
	snprintf(d->label, sizeof(d->label), "worker %s", want->name);
	snprintf(d->bdev_name, sizeof(d->bdev_name), "%s", want->bdev);
	d->segment_bytes = want->segment_bytes ? want->segment_bytes : SIVSHM_DOOR_DEFAULT_SEGMENT;
	d->queues_given = want->max_queues;
	d->max_queues = want->max_queues ? want->max_queues : reactors;
	if (d->max_queues > SIVSHM_DOOR_MAX_QUEUES)
		d->max_queues = SIVSHM_DOOR_MAX_QUEUES;
	d->sharing = want->sharing;
	d->readonly = want->readonly;
	d->shared = want->shared;
	d->path_given = want->socket;
	if (want->socket)
		snprintf(d->path, sizeof(d->path), "%s", want->socket);
	else
		snprintf(d->path, sizeof(d->path), "%s/%s.sock", door->dir, want->name);
	d->uid = want->uid;
	d->gid = want->gid;
	d->mode = want->mode ? want->mode : 0600;
	d->guest.bounce.max = door->opts.guest_bounce_pages;
	d->calm.fire = calmed;
	list_init(&d->waiters);
	door->numbers[number] = true;
	list_add_tail(&door->disks, &d->node);
	return d;
}

/* Its bdev */

static bool can_dma(const struct bdev *b)
{
	const struct dma *dma = bdev_sectors((struct bdev *)b)->dma;

	return dma && dma_can_map(dma);
}

enum blkif_sharing sivshm_disk_get_sharing(const struct sivshm_disk *d)
{
	switch (d->sharing) {
	case SIVSHM_DOOR_SHARING_COPY:
		return BLKIF_SHARE_COPY;
	case SIVSHM_DOOR_SHARING_MAP:
		return BLKIF_SHARE_DIRECT;
	case SIVSHM_DOOR_SHARING_DMA:
		return BLKIF_SHARE_DIRECT_DMA;
	case SIVSHM_DOOR_SHARING_AUTO:
		break;
	}
	if (!d->bdev || !d->bdev->dma)
		return BLKIF_SHARE_DIRECT;
	/* Bounce pages are of the device's own memory; the segment would be copied by its driver.
	 */
	return can_dma(d->bdev) ? BLKIF_SHARE_DIRECT_DMA : BLKIF_SHARE_COPY;
}

int sivshm_disk_claim(struct sivshm_disk *d, struct err *err)
{
	struct bdev *b = bdev_find(d->bdev_name);
	int rc;

	if (!b)
		return err_set(err, -ENOENT, "no bdev named %s: make it with 'sluice bdev create'",
			       d->bdev_name);
	if (d->sharing == SIVSHM_DOOR_SHARING_DMA && !can_dma(b))
		return err_set(err, -EOPNOTSUPP,
			       "bdev %s is on no drive that could reach a segment by itself: use "
			       "sharing=map or sharing=copy",
			       b->name);
	rc = bdev_claim(b, !d->readonly, d->shared, err);
	if (!rc)
		d->bdev = b;
	return rc;
}

static void make_offer(struct sivshm_disk *d)
{
	struct bdev *b = bdev_sectors(d->bdev);
	struct sivshm_offer *o = &d->offer;

	o->pages = (uint32_t)(d->segment_bytes / BLKIF_PAGE_SIZE);
	o->max_queues = d->max_queues;
	o->limits = blkif_limits_of(b, d->readonly, true);
	o->physical_sector_size = b->limits.physical_block_size;
	o->discard_granularity = o->limits.discard ? b->limits.discard_granularity : 0;
	o->discard_alignment = o->limits.discard ? b->limits.discard_alignment : 0;
	d->sectors = o->limits.sectors;
}

/* What we say */

static struct sivshm_port *port_of(const struct sivshm_disk *d)
{
	return sivshm_worker_port(d->peer);
}

static void ring(struct sivshm_disk *d)
{
	/* Fails only for a peer that is gone, of which we are told. */
	(void)sivshm_port_ring(port_of(d), 0);
}

static void say(struct sivshm_disk *d, enum control_backend_state state, const char *error)
{
	d->state = state;
	sivshm_page_say(d->page, state, error);
	ring(d);
}

/* To one whose choice, or whose behaviour, will not do. */
static void say_why(struct sivshm_disk *d, enum control_backend_state state, const char *why)
{
	set_error(d, "%s", why);
	say(d, state, why);
}

static void offer(struct sivshm_disk *d, uint32_t epoch)
{
	d->epoch = epoch;
	d->state = CONTROL_BACKEND_OFFER;
	make_offer(d);
	sivshm_page_offer(d->page, &d->offer, epoch);
	ring(d);
}

/* The control thread's time */

static void charge(struct sivshm_disk *d, uint64_t begin_ns)
{
	uint64_t now_ns = clock_now_ns();

	if (d->paid_ns + CREDIT_NS < now_ns)
		d->paid_ns = now_ns - CREDIT_NS;
	d->paid_ns += (now_ns - begin_ns) * PRICE;
	if (d->paid_ns > now_ns + DEBT_MAX_NS)
		d->paid_ns = now_ns + DEBT_MAX_NS;
}

/* Whether nothing is done for it now; then the calm timer will tell. */
static bool has_to_rest(struct sivshm_disk *d)
{
	uint64_t now_ns = clock_now_ns();

	if (d->paid_ns <= now_ns)
		return false;
	reactor_timer_start(d->door->opts.control, &d->calm, d->paid_ns - now_ns);
	return true;
}

/* The segment */

static void forget_control(struct sivshm_disk *d)
{
	reactor_fd_del(d->door->opts.control, &d->control);
	d->looks = 0;
	d->deaf = false;
}

static void listen_again(struct sivshm_disk *d)
{
	(void)reactor_fd_modify(d->door->opts.control, &d->control, LISTENING);
}

static void control_rung(struct reactor_fd *f, uint32_t events)
{
	struct sivshm_disk *d = container_of(f, struct sivshm_disk, control);

	if (has_to_rest(d)) {
		d->deaf = true;
		return;
	}
	(void)sivshm_port_take(port_of(d), 0);
	if (!d->looks)
		reactor_timer_start(d->door->opts.control, &d->calm, CALM_NS);
	d->deaf = ++d->looks >= LOOKS_MAX;
	if (!d->deaf)
		listen_again(d);
	sivshm_disk_evaluate(d);
}

static void calmed(struct reactor_timer *t)
{
	struct sivshm_disk *d = container_of(t, struct sivshm_disk, calm);

	d->looks = 0;
	if (d->deaf)
		listen_again(d);
	d->deaf = false;
	if (!d->peer)
		sivshm_disk_evaluate(d);
}

static void peer_joined(struct sivshm_worker *w, void *arg)
{
	struct sivshm_disk *d = arg;

	d->joined = true;
	log_limited(&d->log_limit, LOG_LEVEL_INFO, "%s: a frontend has come", d->label);
	sivshm_disk_evaluate(d);
}

static void peer_gone(struct sivshm_worker *w, void *arg)
{
	struct sivshm_disk *d = arg;

	d->gone = true;
	log_limited(&d->log_limit, LOG_LEVEL_INFO, "%s: the frontend is gone", d->label);
	sivshm_disk_evaluate(d);
}

/*
 * Listens as itself, or lets in who was named. The directory may be somebody else's, who can put
 * another file in the socket's place: what is given away is a socket of ours, whatever its name is.
 */
static int give_socket(const struct sivshm_disk *d, struct err *err)
{
	uid_t uid = d->uid < 0 || d->uid == (int64_t)geteuid() ? (uid_t)-1 : (uid_t)d->uid;
	gid_t gid = d->gid < 0 ? (gid_t)-1 : (gid_t)d->gid;
	struct stat st;
	int fd, rc = 0;

	if (uid == (uid_t)-1 && gid == (gid_t)-1)
		return 0;
	fd = open(d->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		rc = -errno;
	else if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1)
		rc = -EADDRINUSE;
	else if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH))
		rc = -errno;
	if (fd >= 0)
		close(fd);
	if (rc)
		err_set(err, rc, "cannot give socket %s to user %lld, group %lld: %s", d->path,
			(long long)d->uid, (long long)d->gid, strerror(-rc));
	return rc;
}

static int listen_for_peer(struct sivshm_disk *d, struct err *err)
{
	struct sivshm_credentials who = {.uid = d->uid, .gid = d->gid, .pid = -1};
	int rc = sivshm_worker_listen(d->peer, d->path, d->mode, &who);

	if (rc == -EADDRINUSE)
		return err_set(err, rc,
			       "%s is in use, or is no socket: remove it, or choose another path",
			       d->path);
	if (rc)
		return err_set(err, rc, "cannot listen at %s: %s", d->path, strerror(-rc));
	return give_socket(d, err);
}

int sivshm_disk_open(struct sivshm_disk *d, struct err *err)
{
	struct sivshm_worker_opts opts = {
		.struct_bytes = sizeof(opts),
		.segment_bytes = d->segment_bytes,
		.vectors = 1 + d->max_queues,
		.huge_pages = true,
		.own_rings = true,
		.joined = peer_joined,
		.gone = peer_gone,
		.arg = d,
	};
	int rc = sivshm_worker_add(d->door->manager, &opts, &d->peer);

	if (rc) {
		d->peer = NULL;
		return err_set(err, rc, "cannot make a segment of %llu bytes: %s",
			       (unsigned long long)d->segment_bytes, strerror(-rc));
	}
	d->page = sivshm_port_memory(port_of(d));
	d->joined = false;
	d->gone = false;
	d->state = CONTROL_BACKEND_NONE;
	d->epoch = 0;
	d->revision = 0;
	make_offer(d);
	/* Before anybody can see it. */
	sivshm_page_init(d->page, &d->offer);
	d->control =
		(struct reactor_fd){.fd = sivshm_port_fd(port_of(d), 0), .ready = control_rung};
	rc = reactor_fd_add(d->door->opts.control, &d->control, LISTENING);
	if (rc) {
		err_set(err, rc, "cannot listen to a doorbell: %s", strerror(-rc));
		goto no_doorbell;
	}
	rc = listen_for_peer(d, err);
	if (!rc)
		return 0;
	forget_control(d);
no_doorbell:
	sivshm_worker_remove(d->peer);
	d->peer = NULL;
	return rc;
}

static void unmap_segment(struct sivshm_disk *d)
{
	if (d->dma)
		dma_unmap_memory(d->dma, d->segment.bus, d->segment.pages);
	d->dma = NULL;
}

static void close_segment(struct sivshm_disk *d)
{
	reactor_timer_stop(d->door->opts.control, &d->calm);
	if (!d->peer)
		return;
	forget_control(d);
	unmap_segment(d);
	sivshm_worker_remove(d->peer);
	d->peer = NULL;
	d->page = NULL;
	d->joined = false;
	d->gone = false;
}

/* The connection */

static int open_ring(void *ctx, unsigned n, struct blkif_connection_ring *r, struct err *err)
{
	struct sivshm_disk *d = ctx;
	struct sivshm_door *door = d->door;
	struct sivshm_lane *lane = &door->lanes[(d->first_lane + n) % door->opts.nr_reactors];

	sivshm_doorbell_init(&d->bells[n], lane, port_of(d), 1 + n);
	*r = (struct blkif_connection_ring){
		.pages = d->segment.base + (size_t)d->choice.rings[n] * BLKIF_PAGE_SIZE,
		.doorbell = &d->bells[n].doorbell,
		.engine = lane->engine,
	};
	return 0;
}

static int route(void *ctx, unsigned n, struct blkif_queue *q)
{
	struct sivshm_disk *d = ctx;
	struct sivshm_lane *lane = d->bells[n].lane;
	int rc;

	sivshm_lane_show(lane, d->number, &d->segment);
	rc = sivshm_doorbell_route(&d->bells[n], q);
	if (rc)
		sivshm_lane_hide(lane, d->number);
	return rc;
}

static void unroute(void *ctx, unsigned n)
{
	struct sivshm_disk *d = ctx;

	sivshm_doorbell_unroute(&d->bells[n]);
	sivshm_lane_hide(d->bells[n].lane, d->number);
}

static const struct blkif_connection_ops ops = {
	.open = open_ring,
	.route = route,
	.unroute = unroute,
};

/*
 * For the bdev's device, if that is to reach it, and then for as long as the segment is there: it
 * takes time, which one life after the other is not to cost. Returns 0 or a negative errno with the
 * reason.
 */
static int map_segment(struct sivshm_disk *d, enum blkif_sharing *sharing, struct err *err)
{
	struct dma *dma = bdev_sectors(d->bdev)->dma;
	int rc;

	*sharing = sivshm_disk_get_sharing(d);
	if (d->dma)
		return 0;
	d->segment = (struct sivshm_segment){
		.base = sivshm_port_memory(port_of(d)),
		.pages = d->offer.pages,
		.bus = DMA_NO_BUS,
	};
	if (*sharing != BLKIF_SHARE_DIRECT_DMA)
		return 0;
	rc = dma_map_memory(dma, d->segment.base, d->segment.pages, &d->segment.bus, err);
	if (!rc) {
		d->dma = dma;
		return 0;
	}
	d->segment.bus = DMA_NO_BUS;
	if (d->sharing == SIVSHM_DOOR_SHARING_DMA)
		return rc;
	log_limited(&d->log_limit, LOG_LEVEL_WARNING, "%s: data is copied: %s", d->label,
		    err->text);
	*sharing = BLKIF_SHARE_COPY;
	return 0;
}

/* @reason, NULL: none but what there may be already. */
static void stop(struct sivshm_disk *d, const char *reason)
{
	if (reason)
		snprintf(d->reason, sizeof(d->reason), "%s", reason);
	d->phase = SIVSHM_DISK_STOPPING;
	blkif_connection_stop(d->rings, false);
}

static void end_connection(struct sivshm_disk *d)
{
	uint64_t begin_ns = clock_now_ns();

	blkif_connection_destroy(d->rings);
	d->rings = NULL;
	d->phase = SIVSHM_DISK_IDLE;
	charge(d, begin_ns);
}

static void conn_started(void *arg, int rc)
{
	struct sivshm_disk *d = arg;
	bool no_device_memory = d->bdev->dma && (rc == -ENOMEM || rc == -ENOSPC);
	char why[CONTROL_ERROR_MAX];

	d->phase = SIVSHM_DISK_SERVING;
	if (rc) {
		end_connection(d);
		snprintf(why, sizeof(why), "cannot open the disk: %s",
			 no_device_memory ? "no device memory is left for its queues (raise "
					    "--device-memory-mib, or take fewer queues)"
					  : strerror(-rc));
		say_why(d, CONTROL_BACKEND_REFUSED, why);
	} else if (d->reason[0]) {
		stop(d, NULL); /* the frontend broke a ring already */
		return;
	} else {
		d->error[0] = 0;
		log_limited(&d->log_limit, LOG_LEVEL_INFO, "%s: connected to bdev %s%s", d->label,
			    d->bdev_name, d->readonly ? ", read-only" : "");
		say(d, CONTROL_BACKEND_CONNECTED, NULL);
		sivshm_disk_follow_size(d);
	}
	sivshm_disk_evaluate(d);
}

/* Whether nobody is asked any more. */
static bool has_to_end(const struct sivshm_disk *d)
{
	return d->door->draining || (d->removing && (d->force || d->phase == SIVSHM_DISK_IDLE));
}

static void conn_stopped(void *arg)
{
	struct sivshm_disk *d = arg;

	blkif_connection_add_stats(d->rings, &d->past);
	end_connection(d);
	log_limited(&d->log_limit, LOG_LEVEL_INFO, "%s: disconnected", d->label);
	if (d->reason[0] && !has_to_end(d))
		set_error(d, "%s", d->reason);
	say(d, CONTROL_BACKEND_CLOSED, d->reason);
	d->reason[0] = 0;
	sivshm_disk_evaluate(d);
}

static void conn_broken(void *arg)
{
	static const char why[] = "the frontend broke its ring: its counters are impossible";
	struct sivshm_disk *d = arg;

	if (d->phase == SIVSHM_DISK_SERVING)
		stop(d, why);
	else if (!d->reason[0])
		snprintf(d->reason, sizeof(d->reason), "%s", why);
}

static int start_connection(struct sivshm_disk *d, struct err *err)
{
	struct sivshm_door *door = d->door;
	struct blkif_connection_opts opts = {
		.control = door->opts.control,
		.ops = &ops,
		.ctx = d,
		.nr_queues = d->choice.nr_queues,
		.log_limits = d->data_log_limits,
		.started = conn_started,
		.stopped = conn_stopped,
		.broken = conn_broken,
		.arg = d,
	};
	int rc;

	opts.queue = (struct blkif_queue_opts){
		.bdev = bdev_sectors(d->bdev),
		.limits = d->offer.limits,
		.peer = d->number,
		.label = d->label,
		.layout = d->choice.layout,
		.ring_nr = d->choice.ring_pages,
		.spin_max_ns = door->opts.spin_max_ns,
		.guest = &d->guest,
		.limiter = &d->limiter,
		.on_error = BLKIF_ERROR_REPORT,
	};
	rc = map_segment(d, &opts.queue.sharing, err);
	if (rc)
		return rc;
	d->first_lane = door->next_lane;
	rc = blkif_connection_create(&opts, &d->rings, err);
	if (!rc)
		door->next_lane = (door->next_lane + d->choice.nr_queues) % door->opts.nr_reactors;
	return rc;
}

static void connect_frontend(struct sivshm_disk *d)
{
	uint64_t begin_ns = clock_now_ns();
	struct err err;
	int rc = sivshm_page_read(d->page, &d->offer, &d->choice, &err);

	d->reason[0] = 0;
	if (!rc)
		rc = start_connection(d, &err);
	charge(d, begin_ns);
	if (rc) {
		say_why(d, CONTROL_BACKEND_REFUSED, err.text);
		return;
	}
	d->phase = SIVSHM_DISK_STARTING;
	blkif_connection_start(d->rings);
}

/* What the frontend says */

static void answer_in_offer(struct sivshm_disk *d, uint32_t state)
{
	char why[64];

	switch (state) {
	case CONTROL_FRONTEND_NONE:
	case CONTROL_FRONTEND_INIT:
		break;
	case CONTROL_FRONTEND_READY:
		connect_frontend(d);
		break;
	case CONTROL_FRONTEND_CLOSING:
		say(d, CONTROL_BACKEND_CLOSED, NULL);
		break;
	default:
		snprintf(why, sizeof(why), "there is no frontend's state %u", state);
		say_why(d, CONTROL_BACKEND_REFUSED, why);
	}
}

static void answer_in_service(struct sivshm_disk *d, uint32_t state)
{
	char why[64];

	switch (state) {
	case CONTROL_FRONTEND_NONE: /* a new life is about to begin */
	case CONTROL_FRONTEND_READY:
		break;
	case CONTROL_FRONTEND_CLOSING:
		stop(d, NULL);
		break;
	default:
		snprintf(why, sizeof(why), "the frontend's state %u cannot follow READY", state);
		stop(d, why);
	}
}

static void answer(struct sivshm_disk *d)
{
	uint32_t epoch, state;

	sivshm_page_look(d->page, &epoch, &state);
	if (epoch != d->epoch) {
		/* All that an earlier life has begun ends before the new one is answered. */
		if (d->phase == SIVSHM_DISK_SERVING)
			stop(d, NULL);
		else if (state == CONTROL_FRONTEND_INIT)
			offer(d, epoch);
	} else if (d->phase == SIVSHM_DISK_SERVING) {
		answer_in_service(d, state);
	} else if (d->state == CONTROL_BACKEND_OFFER) {
		answer_in_offer(d, state);
	} else if (d->state == CONTROL_BACKEND_NONE && state == CONTROL_FRONTEND_INIT) {
		say_why(d, CONTROL_BACKEND_REFUSED,
			"an epoch has to be another than the backend's present one, 0");
	}
}

/* Its end */

static const char *why_ending(const struct sivshm_disk *d)
{
	return d->door->draining ? "sluiced is ending" : "the disk was taken away";
}

static void tell_waiter(struct reactor_msg *msg)
{
	struct sivshm_waiter *w = container_of(msg, struct sivshm_waiter, msg);

	w->done(w->arg, NULL);
	free(w);
}

static void finish_removal(struct sivshm_disk *d)
{
	struct list *pos;

	while ((pos = list_pop(&d->waiters))) {
		struct sivshm_waiter *w = list_entry(pos, struct sivshm_waiter, node);

		w->msg.fn = tell_waiter;
		reactor_send(d->door->opts.control, &w->msg);
	}
	sivshm_disk_destroy(d);
}

static void end(struct sivshm_disk *d)
{
	struct sivshm_door *door = d->door;

	if (d->joined && !d->gone && d->state != CONTROL_BACKEND_CLOSED)
		say(d, CONTROL_BACKEND_CLOSED, why_ending(d));
	close_segment(d);
	if (d->removing && !door->draining)
		finish_removal(d);
	else
		sivshm_door_disk_idle(door);
}

static void reopen(struct sivshm_disk *d)
{
	uint64_t begin_ns = clock_now_ns();
	struct err err;
	int rc;

	if (has_to_rest(d))
		return;
	rc = d->bdev ? 0 : sivshm_disk_claim(d, &err);
	if (!rc)
		rc = sivshm_disk_open(d, &err);
	charge(d, begin_ns);
	if (!rc) {
		d->error[0] = 0;
		return;
	}
	set_error(d, "%s", err.text);
	/* A bdev that comes tells of itself. */
	if (d->bdev)
		sivshm_door_retry_later(d->door);
}

static void lose_peer(struct sivshm_disk *d)
{
	uint64_t begin_ns = clock_now_ns();

	close_segment(d);
	charge(d, begin_ns);
}

void sivshm_disk_evaluate(struct sivshm_disk *d)
{
	if (d->phase == SIVSHM_DISK_STARTING || d->phase == SIVSHM_DISK_STOPPING)
		return;
	if (has_to_end(d)) {
		if (d->phase == SIVSHM_DISK_SERVING)
			stop(d, why_ending(d));
		else
			end(d);
		return;
	}
	if (d->gone && d->phase == SIVSHM_DISK_SERVING) {
		stop(d, NULL);
		return;
	}
	if (d->gone)
		lose_peer(d);
	if (!d->peer) {
		reopen(d);
		return;
	}
	if (d->removing && d->state == CONTROL_BACKEND_CONNECTED)
		say(d, CONTROL_BACKEND_CLOSING, NULL);
	answer(d);
}

void sivshm_disk_destroy(struct sivshm_disk *d)
{
	close_segment(d);
	if (d->bdev)
		bdev_release(d->bdev);
	d->door->numbers[d->number] = false;
	list_del(&d->node);
	blkif_stats_fini(&d->past);
	free(d);
}

/* Its size */

static void queues_know_size(void *arg)
{
	struct sivshm_disk *d = arg;

	d->resizing = false;
	d->sectors = d->new_sectors;
	sivshm_page_resize(d->page, d->sectors, ++d->revision);
	ring(d);
	log_limited(&d->log_limit, LOG_LEVEL_INFO, "%s: has %llu sectors now", d->label,
		    (unsigned long long)d->sectors);
	sivshm_disk_follow_size(d);
}

void sivshm_disk_follow_size(struct sivshm_disk *d)
{
	uint64_t sectors;

	/* Who has not connected yet finds the size in what is offered, or is told then. */
	if (d->phase != SIVSHM_DISK_SERVING || d->resizing)
		return;
	sectors = bdev_get_size(d->bdev) / BLKIF_SECTOR_SIZE;
	if (sectors == d->sectors)
		return;
	d->new_sectors = sectors;
	d->resizing = !blkif_connection_set_sectors(d->rings, sectors, queues_know_size, d);
	if (!d->resizing)
		sivshm_door_retry_later(d->door);
}

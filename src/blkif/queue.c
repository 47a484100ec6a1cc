/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "blkif/io.h"
#include "blkif/io_pool.h"

/* So many requests of one queue in one pass: a queue at full depth leaves the others their turn. */
enum { TAKE_BUDGET = 32 };

/*
 * A frontend may ring once in vain now and then: its request was seen before its ring. One that
 * does nothing else is answered later and later.
 */
enum { EMPTY_RINGS_MAX = 16, CALM_DOUBLINGS = 6 };
#define CALM_NS NSEC_PER_MSEC

#define THROTTLE_MAX_NS (100 * NSEC_PER_MSEC)
/* How often a failing device is tried again. */
#define RETRY_NS (500 * NSEC_PER_MSEC)
/* Pages that were not used for so long are unmapped; looked for so often. */
#define MAPS_KEEP_NS   (60 * NSEC_PER_SEC)
#define MAPS_EXPIRE_NS (10 * NSEC_PER_SEC)

static struct blkif_ledger_entry *ledger_of(struct blkif_queue *q, const struct blkif_io *io)
{
	return &q->opts.ledger[io->slot];
}

/* What a request needs on its way, or NULL: it is left in its ring until there is memory. */
static struct blkif_io *new_io(struct blkif_queue *q)
{
	struct blkif_io *io = blkif_io_pool_take(q->pool);

	if (!io && !q->own_is_taken) {
		io = &q->own;
		q->own_is_taken = true;
	}
	if (!io)
		return NULL;
	io->queue = q;
	/* A ring has no more requests under way than slots, so there is an entry. */
	io->slot = q->entries[q->ring.slots - ++q->in_flight];
	return io;
}

static void free_io(struct blkif_queue *q, struct blkif_io *io)
{
	q->entries[q->ring.slots - q->in_flight--] = io->slot;
	if (io->chunk)
		blkif_io_pool_put(q->pool, io);
	else
		q->own_is_taken = false;
}

/*
 * Requests that go nowhere by themselves: those that a failing device has stopped, that wait for
 * memory, and a barrier that waits for them.
 */
static uint32_t count_stuck(const struct blkif_queue *q)
{
	return q->nr_parked + q->nr_starved + (q->barrier && !q->barrier_begun);
}

/* A barrier begins when it is the only one left. */
static void begin_barrier(struct blkif_queue *q)
{
	if (!q->barrier || q->barrier_begun || q->in_flight != 1 || q->paused ||
	    (q->stopping && q->keep))
		return;
	q->barrier_begun = true;
	blkif_engine_take(q->opts.engine, q->barrier);
}

/* A size that the request does not exceed: its segments may not be known yet. */
static uint64_t most_bytes(const struct blkif_io *io)
{
	return io->req.indirect ? (uint64_t)io->req.nr_segments * BLKIF_PAGE_SIZE : io->bytes;
}

/* An indirect request is charged for whole pages, since its segments are not known yet. */
static void charge(struct blkif_queue *q, const struct blkif_io *io, uint64_t now_ns)
{
	if (!blkif_limiter_is_on(q->opts.limiter))
		return;
	blkif_limiter_charge(q->opts.limiter, 1, io->refused ? io->bytes : most_bytes(io), now_ns);
}

/* Takes the ring's next request on @io. */
static void take_one(struct blkif_queue *q, struct blkif_io *io, uint64_t now_ns)
{
	struct blkif_ledger_entry *entry = ledger_of(q, io);
	uint32_t bytes = 0;

	/* The guest can change its slot at any time; from here on only this copy counts. */
	blkif_ring_take(&q->ring, entry->slot);
	entry->live = 1;
	q->waited = false;
	io->taken_ns = now_ns;
	io->failed_ns = 0;
	io->nr_pages = 0;
	io->has_meta = false;
	io->share_status = 0;
	io->way = BLKIF_COPIED;
	io->status = blkif_decode_request(q->ring.layout, entry->slot, &q->opts.limits, &io->req,
					  io->direct_segments);
	if (io->status == BLKIF_OKAY && io->req.nr_segments && !io->req.indirect)
		io->status = blkif_decode_segments(&io->req, io->direct_segments, &q->opts.limits,
						   &bytes);
	io->refused = io->status != BLKIF_OKAY;
	io->bytes = bytes;
	io->copy = q->opts.sharing == BLKIF_SHARE_COPY || most_bytes(io) < q->opts.dma_from_bytes;
	charge(q, io, now_ns);
	if (!io->refused && io->req.barrier) {
		q->barrier = io;
		q->barrier_begun = false;
		begin_barrier(q);
	} else {
		blkif_engine_take(q->opts.engine, io);
	}
}

/* The disk's limit is reached: nothing is taken until the time has come. */
static bool throttle(struct blkif_queue *q, uint64_t now_ns)
{
	uint64_t wait_ns;

	if (!blkif_limiter_is_on(q->opts.limiter))
		return false;
	wait_ns = blkif_limiter_wait_ns(q->opts.limiter, now_ns);
	if (!wait_ns)
		return false;
	/* Looked at again and again, it is one wait. */
	q->stats.throttled += !q->waited;
	q->waited = true;
	q->throttled = true;
	/* Looked at again soon, for the limit may be changed. */
	reactor_timer_start(blkif_engine_reactor(q->opts.engine), &q->throttle,
			    wait_ns < THROTTLE_MAX_NS ? wait_ns : THROTTLE_MAX_NS);
	return true;
}

/* Nothing is taken now; whoever opens it wakes the poller. */
static bool queue_is_shut(const struct blkif_queue *q)
{
	return q->broken || q->stopping || q->paused || q->barrier || q->throttled;
}

static void break_ring(struct blkif_queue *q)
{
	log_limited(
		q->opts.log_limit, LOG_LEVEL_WARNING,
		"%s: the frontend's ring counters are impossible; its ring is not served any more",
		q->label);
	q->broken = true;
	q->opts.broken(q->opts.arg);
}

static int queue_poll(struct poller *p)
{
	struct blkif_queue *q = container_of(p, struct blkif_queue, poller);
	uint64_t now_ns;
	int pending, taken;

	if (queue_is_shut(q))
		return 0;
	pending = blkif_ring_pending(&q->ring);
	if (pending < 0) {
		break_ring(q);
		return 1;
	}
	if (!pending) {
		q->stats.rung_empty += q->rung;
		q->rung = false;
		return 0;
	}
	q->rung = false;
	q->empty_rings = 0;
	if (pending > TAKE_BUDGET)
		pending = TAKE_BUDGET;
	now_ns = reactor_now_ns(blkif_engine_reactor(q->opts.engine));
	for (taken = 0; taken < pending && !q->barrier && !throttle(q, now_ns); taken++) {
		struct blkif_io *io = new_io(q);

		if (!io)
			break;
		take_one(q, io, now_ns);
	}
	return taken;
}

static bool queue_arm(struct poller *p)
{
	struct blkif_queue *q = container_of(p, struct blkif_queue, poller);

	/* Nothing is taken: let its frontend ring in vain, the doorbell stays disarmed. */
	if (queue_is_shut(q))
		return false;
	if (q->empty_rings > EMPTY_RINGS_MAX && !q->calmed) {
		uint32_t doublings = q->empty_rings - EMPTY_RINGS_MAX - 1;

		if (doublings > CALM_DOUBLINGS)
			doublings = CALM_DOUBLINGS;
		reactor_timer_start(blkif_engine_reactor(q->opts.engine), &q->calm,
				    CALM_NS << doublings);
		return blkif_ring_pending(&q->ring) != 0;
	}
	q->calmed = false;
	q->opts.doorbell->ops->arm(q->opts.doorbell);
	return blkif_ring_arm(&q->ring);
}

static void queue_calmed(struct reactor_timer *t)
{
	struct blkif_queue *q = container_of(t, struct blkif_queue, calm);

	q->calmed = true;
	reactor_poller_wake(&q->poller);
}

static void queue_throttled(struct reactor_timer *t)
{
	struct blkif_queue *q = container_of(t, struct blkif_queue, throttle);

	q->throttled = false;
	reactor_poller_wake(&q->poller);
}

static void queue_expire(struct reactor_timer *t)
{
	struct blkif_queue *q = container_of(t, struct blkif_queue, expire);
	uint64_t now_ns = clock_now_ns();
	uint64_t since_ns = now_ns > MAPS_KEEP_NS ? now_ns - MAPS_KEEP_NS : 0;

	blkif_maps_expire(&q->maps, since_ns);
	blkif_maps_expire(&q->lists, since_ns);
	q->expiring = q->maps.mapped || q->lists.mapped;
	if (q->expiring)
		reactor_timer_start(blkif_engine_reactor(q->opts.engine), t, MAPS_EXPIRE_NS);
}

static void queue_retry(struct reactor_timer *t);

int blkif_queue_create(const struct blkif_queue_opts *opts, struct blkif_queue **out)
{
	uint32_t slots = blkif_layout_slots(opts->layout, opts->ring_nr);
	struct blkif_queue *q = calloc(1, sizeof(*q) + slots * sizeof(q->entries[0]));
	int rc;

	if (!q)
		return -ENOMEM;
	q->opts = *opts;
	q->opts.label = NULL;
	snprintf(q->label, sizeof(q->label), "%s", opts->label);
	rc = blkif_ring_attach(&q->ring, opts->layout, opts->ring_pages, opts->ring_nr);
	if (rc) {
		free(q);
		return rc;
	}
	q->poller = (struct poller){
		.name = q->label,
		.poll = queue_poll,
		.arm = queue_arm,
		.spin_max_ns = opts->spin_max_ns,
	};
	q->paused = opts->paused;
	q->calm.fire = queue_calmed;
	q->throttle.fire = queue_throttled;
	q->expire.fire = queue_expire;
	q->retry.fire = queue_retry;
	list_init(&q->parked);
	/* One request of the largest size. */
	q->reserve = opts->limits.max_indirect_segments
			     ? opts->limits.max_indirect_segments + BLKIF_INDIRECT_META_PAGES
			     : BLKIF_MAX_DIRECT_SEGMENTS;
	list_init(&q->starved);
	list_init(&q->starved_node);
	list_init(&q->node);
	q->pool = blkif_engine_ios(opts->engine);
	blkif_io_init(&q->own);
	for (uint32_t i = 0; i < slots; i++)
		q->entries[i] = (uint16_t)(slots - 1 - i);
	*out = q;
	return 0;
}

void blkif_queue_destroy(struct blkif_queue *q)
{
	blkif_stats_fini(&q->stats);
	free(q);
}

int blkif_queue_start(struct blkif_queue *q)
{
	struct share *share = blkif_engine_share(q->opts.engine);
	struct reactor *r = blkif_engine_reactor(q->opts.engine);
	int rc = blkif_bounce_join(blkif_engine_bounces(q->opts.engine), q);

	if (rc)
		return rc;
	blkif_maps_init(&q->maps, share, q->opts.peer, q->opts.guest,
			q->opts.sharing == BLKIF_SHARE_DMA_PERSISTENT ? BLKIF_MAPS_FOR_DEVICES
								      : BLKIF_MAPS_TO_WRITE);
	blkif_maps_init(&q->lists, share, q->opts.peer, q->opts.guest, BLKIF_MAPS_TO_READ);
	rc = bdev_channel_open(q->opts.bdev, r, &q->channel);
	if (rc) {
		blkif_bounce_leave(q);
		return rc;
	}
	reactor_poller_add(r, &q->poller);
	return 0;
}

static void finish_stop(struct blkif_queue *q)
{
	struct reactor *r = blkif_engine_reactor(q->opts.engine);
	void (*stopped)(void *arg) = q->stopped;

	list_del(&q->node);
	reactor_timer_stop(r, &q->calm);
	reactor_timer_stop(r, &q->throttle);
	reactor_timer_stop(r, &q->retry);
	reactor_timer_stop(r, &q->expire);
	reactor_poller_del(&q->poller);
	bdev_channel_close(q->channel);
	blkif_maps_fini(&q->lists);
	blkif_maps_fini(&q->maps);
	blkif_bounce_leave(q);
	q->stopped = NULL;
	stopped(q->stopped_arg);
}

/* The io is not ours any more. */
static void forget_io(struct blkif_queue *q, struct blkif_io *io)
{
	ledger_of(q, io)->live = 0;
	if (io->failed_ns && !--q->nr_failed)
		q->opts.troubled(q->opts.arg, 0);
	if (io == q->barrier) {
		q->barrier = NULL;
		reactor_poller_wake(&q->poller);
	}
	free_io(q, io);
}

/* What is stuck, in the order in which it was taken as far as that matters, back to the ring. */
static void give_back(struct blkif_queue *q)
{
	const void *slots[BLKIF_MAX_SLOTS];
	struct list back = LIST_INIT(back);
	struct list *pos;
	uint32_t n = 0;

	while ((pos = list_pop(&q->parked))) {
		blkif_engine_release(list_entry(pos, struct blkif_io, node));
		list_add_tail(&back, pos);
	}
	/* Before its ring has them again, the guest's pages are its own. */
	blkif_engine_flush(q->opts.engine);
	q->nr_parked = 0;
	list_splice_tail(&back, &q->starved);
	list_del(&q->starved_node);
	q->nr_starved = 0;
	if (q->barrier && !q->barrier_begun)
		list_add_tail(&back, &q->barrier->node);
	list_for_each (pos, &back)
		slots[n++] = ledger_of(q, list_entry(pos, struct blkif_io, node))->slot;
	blkif_ring_give_back(&q->ring, slots, n);
	while ((pos = list_pop(&back)))
		forget_io(q, list_entry(pos, struct blkif_io, node));
	/* Others may have waited for the memory. */
	blkif_engine_wake(q->opts.engine);
}

void blkif_queue_look_for_end(struct blkif_queue *q)
{
	if (q->stopped) {
		/* All responses are pushed: nothing is in flight that could have brought one. */
		if (q->keep && q->in_flight && q->in_flight == count_stuck(q))
			give_back(q);
		if (!q->in_flight)
			finish_stop(q);
	} else if (q->quiet && q->in_flight == count_stuck(q)) {
		void (*quiet)(void *arg) = q->quiet;

		q->quiet = NULL;
		quiet(q->quiet_arg);
	}
}

static void end_pause(struct blkif_queue *q)
{
	void (*quiet)(void *arg) = q->quiet;

	q->paused = false;
	q->quiet = NULL;
	if (quiet)
		quiet(q->quiet_arg);
}

/* All that is parked goes to the device again, or (@fail) is answered with an error. */
static void unpark_all(struct blkif_queue *q, bool fail)
{
	struct list *pos;

	while ((pos = list_pop(&q->parked))) {
		q->nr_parked--;
		blkif_engine_retry(q->opts.engine, list_entry(pos, struct blkif_io, node), fail);
	}
}

void blkif_queue_stop(struct blkif_queue *q, bool keep, void (*stopped)(void *arg), void *arg)
{
	q->stopping = true;
	q->keep = keep;
	end_pause(q);
	if (!keep) {
		unpark_all(q, true);
		begin_barrier(q);
		blkif_engine_wake(q->opts.engine);
	}
	q->stopped = stopped;
	q->stopped_arg = arg;
	blkif_queue_look_for_end(q);
}

void blkif_queue_pause(struct blkif_queue *q, void (*quiet)(void *arg), void *arg)
{
	if (q->stopping) {
		quiet(arg);
		return;
	}
	q->paused = true;
	q->quiet = quiet;
	q->quiet_arg = arg;
	blkif_queue_look_for_end(q);
}

void blkif_queue_resume(struct blkif_queue *q)
{
	if (q->stopping)
		return;
	end_pause(q);
	unpark_all(q, false);
	begin_barrier(q);
	blkif_engine_wake(q->opts.engine);
	reactor_poller_wake(&q->poller);
}

void blkif_queue_set_sectors(struct blkif_queue *q, uint64_t sectors)
{
	q->opts.limits.sectors = sectors;
}

/*
 * A device that fails
 *
 * A flush is never tried again: once it has failed, what it was to make durable may be gone, and
 * the next one would succeed without it.
 */

bool blkif_queue_park(struct blkif_queue *q, struct blkif_io *io, int error)
{
	uint64_t now_ns = clock_now_ns();

	if (q->opts.on_error == BLKIF_ERROR_REPORT || (q->stopping && !q->keep) ||
	    io->bio.op == BDEV_FLUSH || error == -EOPNOTSUPP || error == -EINVAL || error == -EROFS)
		return false;
	if (!io->failed_ns) {
		io->failed_ns = now_ns;
		if (!q->nr_failed++)
			q->opts.troubled(q->opts.arg, error);
	} else if (q->opts.on_error == BLKIF_ERROR_RETRY &&
		   now_ns - io->failed_ns >= q->opts.retry_ns) {
		return false;
	}
	list_add_tail(&q->parked, &io->node);
	if (!q->nr_parked++ && q->opts.on_error == BLKIF_ERROR_RETRY)
		reactor_timer_start(blkif_engine_reactor(q->opts.engine), &q->retry, RETRY_NS);
	blkif_queue_look_for_end(q);
	return true;
}

bool blkif_queue_hold(struct blkif_queue *q, struct blkif_io *io)
{
	if (!q->paused && !(q->stopping && q->keep))
		return false;
	list_add_tail(&q->parked, &io->node);
	q->nr_parked++;
	blkif_queue_look_for_end(q);
	return true;
}

void blkif_queue_give_up(struct blkif_queue *q)
{
	q->opts.on_error = BLKIF_ERROR_REPORT;
	if (!q->stopping && !q->paused)
		unpark_all(q, true);
}

static void queue_retry(struct reactor_timer *t)
{
	struct blkif_queue *q = container_of(t, struct blkif_queue, retry);

	if (q->paused)
		reactor_timer_start(blkif_engine_reactor(q->opts.engine), t, RETRY_NS);
	else
		unpark_all(q, false);
}

void blkif_queue_ring(struct blkif_queue *q)
{
	q->stats.rung++;
	q->rung = true;
	q->empty_rings++;
	reactor_poller_wake(&q->poller);
}

static void count_way(struct blkif_stats *stats, const struct blkif_io *io)
{
	static const enum blkif_way ways[] = {
		[BLKIF_COPIED] = BLKIF_WAY_COPY,        [BLKIF_MAPPED] = BLKIF_WAY_MAP,
		[BLKIF_PERSISTENT] = BLKIF_WAY_MAP,     [BLKIF_DMA] = BLKIF_WAY_DMA,
		[BLKIF_DMA_PERSISTENT] = BLKIF_WAY_DMA, [BLKIF_DIRECT] = BLKIF_WAY_MAP,
		[BLKIF_DIRECT_DMA] = BLKIF_WAY_DMA,
	};
	struct blkif_way_stats *way = &stats->ways[ways[io->way]];

	/* What has no segments has no data: flushes, discards. */
	if (!io->req.nr_segments)
		return;
	way->requests++;
	way->bytes += io->bytes;
}

static void count(struct blkif_stats *stats, const struct blkif_io *io, uint64_t now_ns)
{
	struct blkif_kind_stats *kind = &stats->kinds[io->req.kind];

	if (io->refused) {
		stats->invalid++;
		return;
	}
	kind->requests++;
	if (io->status == BLKIF_OKAY) {
		kind->bytes += io->bytes;
		sparse_hist_add(&kind->latency, now_ns - io->taken_ns);
		count_way(stats, io);
	} else if (io->share_status) {
		stats->share_errors++;
	} else {
		kind->errors++;
	}
}

void blkif_queue_answer(struct blkif_queue *q, struct blkif_io *io, uint64_t now_ns)
{
	blkif_ring_respond(&q->ring, io->req.id, io->req.operation, (int16_t)io->status);
	count(&q->stats, io, now_ns);
	forget_io(q, io);
	begin_barrier(q);
}

void blkif_queue_push(struct blkif_queue *q)
{
	if (blkif_ring_push(&q->ring)) {
		q->stats.notified++;
		q->opts.doorbell->ops->notify(q->opts.doorbell);
	}
	if ((q->maps.mapped || q->lists.mapped) && !q->expiring) {
		q->expiring = true;
		reactor_timer_start(blkif_engine_reactor(q->opts.engine), &q->expire,
				    MAPS_EXPIRE_NS);
	}
	blkif_queue_look_for_end(q);
}

void blkif_stats_add(struct blkif_stats *to, const struct blkif_stats *from)
{
	for (unsigned i = 0; i < BLKIF_KINDS; i++) {
		to->kinds[i].requests += from->kinds[i].requests;
		to->kinds[i].bytes += from->kinds[i].bytes;
		to->kinds[i].errors += from->kinds[i].errors;
		sparse_hist_merge(&to->kinds[i].latency, &from->kinds[i].latency);
	}
	for (unsigned i = 0; i < BLKIF_WAYS; i++) {
		to->ways[i].requests += from->ways[i].requests;
		to->ways[i].bytes += from->ways[i].bytes;
	}
	to->invalid += from->invalid;
	to->share_errors += from->share_errors;
	to->notified += from->notified;
	to->rung += from->rung;
	to->rung_empty += from->rung_empty;
	to->throttled += from->throttled;
	to->starved += from->starved;
	to->map_hits += from->map_hits;
	to->map_misses += from->map_misses;
	to->in_flight += from->in_flight;
	to->parked += from->parked;
	to->bounce_pages += from->bounce_pages;
	to->mapped_pages += from->mapped_pages;
}

void blkif_stats_fini(struct blkif_stats *stats)
{
	for (unsigned i = 0; i < BLKIF_KINDS; i++)
		sparse_hist_fini(&stats->kinds[i].latency);
}

void blkif_queue_add_stats(const struct blkif_queue *q, struct blkif_stats *stats)
{
	blkif_stats_add(stats, &q->stats);
	stats->map_hits += q->maps.hits + q->lists.hits;
	stats->map_misses += q->maps.misses + q->lists.misses;
	stats->in_flight += q->in_flight;
	stats->parked += q->nr_parked;
	stats->bounce_pages += (uint32_t)q->held;
	stats->mapped_pages += q->maps.mapped + q->lists.mapped;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The watch: notices that a file or a device has grown, and lets its bdev grow with it.
 *
 * Nothing tells a program without being asked that a file has another size, whatever file system it
 * is on, so the watch asks, every two seconds, about the bdevs that somebody uses.  A file system
 * whose server is gone answers late or never, so helper threads do the asking; and there are few of
 * them, so one question is asked at a time: at most one helper gets stuck, and until it comes back
 * no bdev grows, while everything else goes on.
 *
 * A helper that may never come back must not hold what others wait for.  It gets a descriptor of
 * its own to ask by, one that carries neither the locks nor the claim of the bdev's, so that the
 * bdev can be deleted meanwhile and its file used by others; the answer then finds nobody.
 *
 * A bdev never shrinks, as its guest may have its data anywhere: what a file has lost is said once,
 * and reads and writes there fail until somebody extends it again.
 */
#include "bdev/watch.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "bdev/bdev.h"
#include "reactor/reactor.h"

#define PERIOD_NS (2 * NSEC_PER_SEC)

static struct {
	struct reactor *control;     /* NULL: not started */
	struct reactor_timer timer;  /* until the next round */
	bool round;                  /* in the middle of one */
	char reached[64];            /* by the round: a bdev, by name */
	struct list asked;           /* rescans */
	bool busy;                   /* the job is under way */
	struct bdev_rescan *current; /* whom it is for; NULL: the round */
	uint64_t id;                 /* the bdev's */
	/* The helper thread's while the job is under way. */
	struct helper_job job;
	int (*measure)(int fd, uint64_t *size);
	int fd;
	uint64_t size;
	int result;
} watch;

static struct bdev *find(uint64_t id)
{
	struct bdev *b = bdev_next(NULL);

	while (b && b->id != id)
		b = bdev_next(b);
	return b;
}

static void go_on(void);

/* What was measured becomes the bdev's size, if it is more. */
static int apply(struct bdev *b, uint64_t measured, struct err *err)
{
	uint64_t size = measured - measured % b->limits.block_size;

	if (size < b->size)
		return err_set(err, -EINVAL,
			       "what is behind bdev \"%s\" has shrunk from %" PRIu64 " to %" PRIu64
			       " bytes: extend it again, until then what lies behind fails",
			       b->name, b->size, measured);
	if (size == b->size)
		return 0;
	log_info("bdev \"%s\" has grown from %" PRIu64 " to %" PRIu64 " bytes", b->name, b->size,
		 size);
	bdev_set_size(b, size);
	return 0;
}

/* Ends a question with what the helper has found out. */
static int conclude(struct bdev *b, struct err *err)
{
	if (!b)
		return err_set(err, -ENODEV, "the bdev was deleted meanwhile");
	if (watch.result)
		return err_set(err, watch.result, "cannot measure what is behind bdev \"%s\": %s",
			       b->name, strerror(-watch.result));
	return apply(b, watch.size, err);
}

static void job_run(struct helper_job *job)
{
	watch.result = watch.measure(watch.fd, &watch.size);
	close(watch.fd);
}

static void job_done(struct helper_job *job)
{
	struct bdev_rescan *r = watch.current;
	struct bdev *b = find(watch.id);
	struct err err;
	int rc = conclude(b, &err);

	watch.busy = false;
	watch.current = NULL;
	if (b) {
		int64_t seen = watch.result ? watch.result : (int64_t)watch.size;

		/* Nobody asked: so only news are told. */
		if (rc && !r && b->seen != seen)
			log_warning("%s", err.text);
		b->seen = seen;
	}
	if (r)
		r->done(r, rc, &err);
	go_on();
}

static int begin(const struct bdev *b, struct bdev_rescan *r, struct err *err)
{
	int fd = b->ops->probe_open(b);

	if (fd < 0)
		return err_set(err, fd, "cannot measure what is behind bdev \"%s\": %s", b->name,
			       strerror(-fd));
	watch.busy = true;
	watch.current = r;
	watch.id = b->id;
	watch.measure = b->ops->probe_measure;
	watch.fd = fd;
	watch.job.run = job_run;
	watch.job.done = job_done;
	helper_submit(reactor_helpers(watch.control), watch.control, &watch.job);
	return 0;
}

static bool is_watched(const struct bdev *b)
{
	return b->claims && b->ops->probe_open;
}

/* Asks the next question of the round; without one the round is over. */
static void go_on_round(void)
{
	bool any = false;
	struct err err;

	for (struct bdev *b = bdev_next(NULL); b; b = bdev_next(b)) {
		if (!is_watched(b))
			continue;
		any = true;
		if (strcmp(b->name, watch.reached) <= 0)
			continue;
		strcpy(watch.reached, b->name);
		/* Out of descriptors, say: the next round tries again. */
		if (!begin(b, NULL, &err))
			return;
	}
	watch.round = false;
	if (any)
		reactor_timer_start(watch.control, &watch.timer, PERIOD_NS);
}

static void go_on(void)
{
	struct list *node;

	while (!watch.busy && (node = list_pop(&watch.asked))) {
		struct bdev_rescan *r = list_entry(node, struct bdev_rescan, node);
		struct bdev *b = find(r->id);
		struct err err;
		int rc;

		rc = b ? begin(b, r, &err)
		       : err_set(&err, -ENODEV, "the bdev was deleted meanwhile");
		if (rc)
			r->done(r, rc, &err);
	}
	if (!watch.busy && watch.round)
		go_on_round();
}

static void begin_round(struct reactor_timer *t)
{
	watch.round = true;
	watch.reached[0] = '\0';
	go_on();
}

void watch_wake(void)
{
	if (watch.control && !watch.round && !watch.timer.running)
		reactor_timer_start(watch.control, &watch.timer, PERIOD_NS);
}

void bdev_rescan(struct bdev *b, struct bdev_rescan *r)
{
	struct err err;

	if (!b->ops->probe_open) {
		err_set(&err, -EOPNOTSUPP,
			"bdev \"%s\" is of kind %s, with nothing behind it to measure: give the "
			"size it is to have",
			b->name, b->ops->product);
		r->done(r, -EOPNOTSUPP, &err);
		return;
	}
	r->id = b->id;
	list_add_tail(&watch.asked, &r->node);
	go_on();
}

void bdev_watch_start(struct reactor *control)
{
	watch.control = control;
	watch.timer.fire = begin_round;
	list_init(&watch.asked);
	for (struct bdev *b = bdev_next(NULL); b; b = bdev_next(b))
		if (is_watched(b))
			watch_wake();
}

static void cancel(struct bdev_rescan *r)
{
	r->done(r, -ECANCELED, &(struct err){"sluiced is ending"});
}

void bdev_watch_stop(void)
{
	struct list *node;

	if (!watch.control)
		return;
	reactor_timer_stop(watch.control, &watch.timer);
	if (watch.current)
		cancel(watch.current);
	while ((node = list_pop(&watch.asked)))
		cancel(list_entry(node, struct bdev_rescan, node));
	memset(&watch, 0, sizeof(watch));
}

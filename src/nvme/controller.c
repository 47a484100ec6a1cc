/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How to read this: tick() is the clock, and looks at what the present phase waits for.  Trouble
 * ends in one of two functions, nvme_ctrl_reset() or nvme_ctrl_fail(), whoever finds it.  A reset
 * holds the queues, disables the controller and brings it up again; failing cuts it off and is
 * final.  Bringing up (base specification 3.5.1) is registers first, here, then bringup.c's chain.
 *
 * A stop is in good order (base specification 3.6.1): queues are deleted, which also ends what is
 * still in them, then the controller is told to shut down, then disabled and cut off.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "nvme/internal.h"

/* So many resets within RESETS_NS, and one more is one too many. */
enum { RESETS_MAX = 4 };

#define TICK_NS   (1 * NSEC_PER_MSEC)
#define WATCH_NS  (500 * NSEC_PER_MSEC)
#define RESETS_NS (600 * NSEC_PER_SEC)
/* Where the controller does not say how long its shutdown takes. */
#define SHUTDOWN_NS (10 * NSEC_PER_SEC)

#define FATAL "the controller reports a fatal error"

/* Registers */

static uint64_t read_reg64(const struct nvme_pci *pci, unsigned offset)
{
	return nvme_reg_read(pci, offset) | (uint64_t)nvme_reg_read(pci, offset + 4) << 32;
}

size_t nvme_ctrl_doorbell_offset(const struct nvme_ctrl *c, unsigned qid, bool cq)
{
	return (size_t)(2 * qid + cq) * (4u << NVME_CAP_DSTRD(c->cap));
}

void nvme_ctrl_set_doorbell(const struct nvme_ctrl *c, struct nvme_doorbell *db, unsigned qid,
			    bool cq)
{
	db->reg = nvme_reg(c->pci, NVME_REG_DOORBELLS + nvme_ctrl_doorbell_offset(c, qid, cq));
	db->shadow = NULL;
	db->event = NULL;
	db->silent = false;
}

/* How long RDY may take to follow EN, either way: CAP.TO, or CRTO where that says more. */
static uint64_t ready_ns(const struct nvme_pci *pci)
{
	uint64_t cap = read_reg64(pci, NVME_REG_CAP);
	uint32_t to = NVME_CAP_TO(cap);

	if (cap & NVME_CAP_CRWMS && to < (nvme_reg_read(pci, NVME_REG_CRTO) & 0xffff))
		to = nvme_reg_read(pci, NVME_REG_CRTO) & 0xffff;
	return (to ? to : 1) * 500 * NSEC_PER_MSEC;
}

static void enter(struct nvme_ctrl *c, enum nvme_phase phase, uint64_t within_ns)
{
	c->phase = phase;
	c->deadline_ns = clock_now_ns() + within_ns;
	reactor_timer_start(c->home, &c->timer, TICK_NS);
}

/* Orders to the queues */

static void send_orders(struct nvme_ctrl *c, enum nvme_order order)
{
	pthread_mutex_lock(&c->lock);
	c->holding = order != NVME_ORDER_RESUME;
	c->ended = order == NVME_ORDER_END;
	for (unsigned i = 0; i < c->queues_len; i++) {
		if (!c->queues[i].reactor)
			continue;
		c->acks++;
		nvme_queue_send(&c->queues[i], order);
	}
	pthread_mutex_unlock(&c->lock);
}

/* Takes back what the controller had, now that it can do nothing with it any more. */
static void take_back(struct nvme_ctrl *c)
{
	for (unsigned i = 0; i < c->queues_len; i++) {
		struct nvme_queue *q = &c->queues[i];

		for (unsigned j = 0; j < q->qps_len; j++)
			nvme_qpair_reset(&q->qps[j], &q->returned);
	}
	nvme_admin_take_back(c);
}

static void begin_end(struct nvme_ctrl *c)
{
	take_back(c);
	c->state = c->state == NVME_STOPPING ? NVME_STOPPED : NVME_DEAD;
	nvme_admin_fail_waiting(c);
	c->phase = NVME_PHASE_END;
	send_orders(c, NVME_ORDER_END);
}

/* Whether somebody has a queue still: with the queue he has our memory. */
static bool in_use(struct nvme_ctrl *c)
{
	bool used = false;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < c->queues_len; i++)
		used |= !!c->queues[i].reactor;
	pthread_mutex_unlock(&c->lock);
	return used;
}

static void tell_end(struct reactor_msg *msg)
{
	struct nvme_ctrl *c = container_of(msg, struct nvme_ctrl, end_msg);

	if (c->end_untold) {
		c->end_untold = false;
		if (c->was_live)
			c->ops->changed(c, NVME_CHANGED_DEAD, c->arg);
		else
			c->ops->started(c, c->rc, &c->err, c->arg);
	}
	c->telling = false;
	if (!c->stop_wanted)
		return;
	if (in_use(c)) {
		reactor_timer_start(c->home, &c->timer, TICK_NS);
		return;
	}
	c->stop_wanted = false;
	c->ops->stopped(c, c->arg);
}

static void send_end(struct nvme_ctrl *c)
{
	if (c->telling)
		return;
	c->telling = true;
	c->end_msg.fn = tell_end;
	reactor_send(c->home, &c->end_msg);
}

static void over(struct nvme_ctrl *c)
{
	c->phase = NVME_PHASE_OVER;
	c->end_untold = c->state == NVME_DEAD;
	send_end(c);
}

/* Trouble */

/* What may be found in the midst of anything is acted upon from the next tick, and from there only.
 */
static void hold(struct nvme_ctrl *c)
{
	enter(c, NVME_PHASE_HOLD, 0);
	if (c->acks)
		c->hold_wanted = true;
	else
		send_orders(c, NVME_ORDER_HOLD);
}

/*
 * Whether its registers say that it may be at work. The system may have removed a drive that is
 * still there, so that there is no configuration space of it, but its registers answer.
 */
static bool is_at_work(const struct nvme_pci *pci)
{
	uint32_t csts = nvme_reg_read(pci, NVME_REG_CSTS);

	return csts != NVME_GONE && csts & NVME_CSTS_RDY;
}

static void cut(struct nvme_ctrl *c)
{
	int rc = nvme_pci_set_bus_master(c->pci, false);

	/* A drive that is gone writes nothing either. */
	if (!rc || (rc == -ENODEV && !is_at_work(c->pci))) {
		begin_end(c);
		if (!c->acks)
			over(c);
		return;
	}
	if (!c->cut_failed)
		log_error("%s: bus mastering does not go off: %s: its memory and the requests it "
			  "has are kept until it does",
			  c->pci->name, strerror(-rc));
	c->cut_failed = true;
}

void nvme_ctrl_fail(struct nvme_ctrl *c, int rc, const char *fmt, ...)
{
	va_list args;
	char text[256];

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	c->rc = err_set(&c->err, rc, "%s: %s", c->pci->name, text);
	log_error("%s", c->err.text);
	if (c->state == NVME_LIVE) {
		/* The queues must rest before their rings are touched. */
		c->state = NVME_DEAD;
		hold(c);
		return;
	}
	if (c->state != NVME_STOPPING)
		c->state = NVME_DEAD;
	enter(c, NVME_PHASE_CUT, 0);
}

void nvme_ctrl_reset(struct nvme_ctrl *c, const char *why)
{
	uint64_t now = clock_now_ns();

	if (c->state != NVME_LIVE)
		return;
	if (now - c->resets_since_ns > RESETS_NS) {
		c->resets_since_ns = now;
		c->resets = 0;
	}
	if (c->resets++ >= RESETS_MAX) {
		nvme_ctrl_fail(c, -EIO, "%s, and %d resets have not helped: replace the drive", why,
			       RESETS_MAX);
		return;
	}
	log_warning("%s: %s: resetting the controller", c->pci->name, why);
	c->state = NVME_RESETTING;
	hold(c);
}

/* Registers: disabling, enabling, shutting down */

void nvme_ctrl_live(struct nvme_ctrl *c)
{
	bool first = !c->was_live;

	c->was_live = true;
	c->state = NVME_LIVE;
	c->phase = NVME_PHASE_LIVE;
	nvme_admin_ask_for_events(c);
	send_orders(c, NVME_ORDER_RESUME);
	if (first)
		c->ops->started(c, 0, NULL, c->arg);
	else
		c->ops->changed(c, NVME_CHANGED_NAMESPACES, c->arg);
	if (c->state == NVME_LIVE && c->stop_wanted)
		nvme_ctrl_stop(c);
	nvme_admin_start_waiting(c);
}

static void enable(struct nvme_ctrl *c)
{
	int rc = nvme_pci_set_bus_master(c->pci, true);

	if (rc) {
		nvme_ctrl_fail(c, rc, "bus mastering does not go on: %s", strerror(-rc));
		return;
	}
	nvme_reg_write(c->pci, NVME_REG_INTMS, UINT32_MAX);
	nvme_admin_enable(c);
	/* Pages of 4 KiB and the NVM command set are zeros. */
	nvme_reg_write(c->pci, NVME_REG_CC,
		       NVME_CC_EN | NVME_CC_IOSQES(NVME_SQE_SHIFT) |
			       NVME_CC_IOCQES(NVME_CQE_SHIFT));
	enter(c, NVME_PHASE_ENABLE, ready_ns(c->pci));
}

static void disabled(struct nvme_ctrl *c)
{
	if (c->state == NVME_STOPPING) {
		enter(c, NVME_PHASE_CUT, 0);
		return;
	}
	take_back(c);
	enable(c);
}

static void clear_enable(struct nvme_ctrl *c)
{
	nvme_reg_write(c->pci, NVME_REG_CC,
		       nvme_reg_read(c->pci, NVME_REG_CC) & ~(NVME_CC_EN | NVME_CC_SHN_MASK));
	enter(c, NVME_PHASE_DISABLE, ready_ns(c->pci));
}

static void disable(struct nvme_ctrl *c)
{
	uint32_t csts = nvme_reg_read(c->pci, NVME_REG_CSTS);

	if (nvme_reg_read(c->pci, NVME_REG_CC) & NVME_CC_EN) {
		if (!(csts & (NVME_CSTS_RDY | NVME_CSTS_CFS)))
			enter(c, NVME_PHASE_SETTLE, ready_ns(c->pci));
		else
			clear_enable(c);
	} else if (csts & NVME_CSTS_RDY) {
		enter(c, NVME_PHASE_DISABLE, ready_ns(c->pci));
	} else {
		disabled(c);
	}
}

static void shut_down(struct nvme_ctrl *c)
{
	uint32_t cc = nvme_reg_read(c->pci, NVME_REG_CC);
	uint64_t within = (uint64_t)c->id->rtd3e * NSEC_PER_USEC;

	nvme_reg_write(c->pci, NVME_REG_CC, (cc & ~NVME_CC_SHN_MASK) | NVME_CC_SHN_NORMAL);
	enter(c, NVME_PHASE_SHUTDOWN, within > SHUTDOWN_NS ? within : SHUTDOWN_NS);
}

static void delete_queues(struct nvme_ctrl *c)
{
	c->at = 0;
	enter(c, NVME_PHASE_DELETE, SHUTDOWN_NS);
}

/* The queues rest. */
static void held(struct nvme_ctrl *c)
{
	if (c->state == NVME_RESETTING)
		disable(c);
	else if (c->state == NVME_STOPPING)
		delete_queues(c);
	else
		enter(c, NVME_PHASE_CUT, 0);
}

void nvme_ctrl_order_acked(struct reactor_msg *msg)
{
	struct nvme_ctrl *c = container_of(msg, struct nvme_queue, ack)->owner;

	if (--c->acks)
		return;
	if (c->hold_wanted) {
		c->hold_wanted = false;
		send_orders(c, NVME_ORDER_HOLD);
	} else if (c->phase == NVME_PHASE_END) {
		over(c);
	}
}

void nvme_ctrl_help_asked(struct reactor_msg *msg)
{
	struct nvme_queue *q = container_of(msg, struct nvme_queue, help);
	uint16_t qid = q->help_qid, cid = q->help_cid;
	struct nvme_ctrl *c = q->owner;

	/* Pairs with the acquire in the queue, which may ask anew from here on. */
	__atomic_store_n(&q->asking, false, __ATOMIC_RELEASE);
	if (c->state != NVME_LIVE)
		return;
	if (!qid) {
		nvme_ctrl_reset(c, "an I/O queue does not answer, or makes no sense");
		return;
	}
	log_warning("%s: command %#x of queue %u is late: aborting it", c->pci->name, cid, qid);
	nvme_admin_abort(c, qid, cid);
}

/* The clock */

static void poll_admin(struct nvme_ctrl *c)
{
	if (nvme_admin_poll(c))
		return;
	if (c->phase == NVME_PHASE_LIVE)
		nvme_ctrl_reset(c, "the admin queue does not answer, or makes no sense");
	else if (c->phase == NVME_PHASE_COMMANDS)
		nvme_ctrl_fail(c, -ETIMEDOUT,
			       "%s is not answered: power-cycle or replace the drive",
			       nvme_bringup_step(c));
	/* Else a completion was the end of it. */
}

/*
 * Whether the system has removed a drive that still does what it is told, as by sysfs: whoever
 * finds it again takes it for its own, so it is not ours to use. A reset disables it, and gets no
 * further.
 */
static bool is_off_bus(struct nvme_ctrl *c)
{
	uint16_t command;

	return c->pci->ops->config_read(c->pci, NVME_PCI_COMMAND, &command, sizeof(command)) ==
	       -ENODEV;
}

static void tick(struct reactor_timer *t)
{
	struct nvme_ctrl *c = container_of(t, struct nvme_ctrl, timer);
	uint32_t csts = nvme_reg_read(c->pci, NVME_REG_CSTS);
	bool late = clock_now_ns() >= c->deadline_ns;

	if (csts == NVME_GONE && c->phase != NVME_PHASE_HOLD && c->phase != NVME_PHASE_CUT &&
	    c->phase != NVME_PHASE_OVER) {
		nvme_ctrl_fail(c, -ENODEV, "the drive has been removed");
		return;
	}
	switch (c->phase) {
	case NVME_PHASE_HOLD:
		if (!c->acks)
			held(c);
		break;
	case NVME_PHASE_SETTLE:
		if (csts & (NVME_CSTS_RDY | NVME_CSTS_CFS) || late)
			clear_enable(c);
		break;
	case NVME_PHASE_DISABLE:
		if (!(csts & NVME_CSTS_RDY))
			disabled(c);
		else if (late)
			nvme_ctrl_fail(
				c, -ETIMEDOUT,
				"the controller does not stop: power-cycle or replace the drive");
		break;
	case NVME_PHASE_ENABLE:
		if (csts & NVME_CSTS_CFS) {
			nvme_ctrl_fail(c, -EIO, FATAL ": power-cycle or replace the drive");
		} else if (csts & NVME_CSTS_RDY) {
			c->phase = NVME_PHASE_COMMANDS;
			nvme_bringup_start(c);
		} else if (late) {
			nvme_ctrl_fail(c, -ETIMEDOUT,
				       "the controller does not get ready: power-cycle or replace "
				       "the drive");
		}
		break;
	case NVME_PHASE_COMMANDS:
		if (csts & NVME_CSTS_CFS)
			nvme_ctrl_fail(c, -EIO, FATAL ": power-cycle or replace the drive");
		else
			poll_admin(c);
		break;
	case NVME_PHASE_LIVE:
		if (csts & NVME_CSTS_CFS)
			nvme_ctrl_reset(c, FATAL);
		else if (!(csts & NVME_CSTS_RDY))
			nvme_ctrl_reset(c, "the controller has stopped by itself");
		else if (is_off_bus(c))
			nvme_ctrl_reset(c, "the system has let go of the drive");
		else
			poll_admin(c);
		break;
	case NVME_PHASE_DELETE:
		if (csts & NVME_CSTS_CFS || late || !nvme_admin_poll(c))
			shut_down(c);
		else if (!c->admin_now && !nvme_bringup_undo(c))
			shut_down(c);
		break;
	case NVME_PHASE_SHUTDOWN:
		if ((csts & NVME_CSTS_SHST_MASK) == NVME_CSTS_SHST_COMPLETE ||
		    csts & NVME_CSTS_CFS) {
			clear_enable(c);
		} else if (late) {
			log_warning("%s: does not finish its shutdown", c->pci->name);
			clear_enable(c);
		}
		break;
	case NVME_PHASE_CUT:
		cut(c);
		break;
	case NVME_PHASE_OVER:
		send_end(c);
		break;
	default:
		break;
	}
	if (c->phase == NVME_PHASE_LIVE && !nvme_admin_busy(c))
		reactor_timer_start(c->home, &c->timer, WATCH_NS);
	else if (c->phase != NVME_PHASE_END && c->phase != NVME_PHASE_OVER)
		reactor_timer_start(c->home, &c->timer, TICK_NS);
}

/* Life */

void nvme_ctrl_default_options(struct nvme_ctrl_options *opts)
{
	*opts = (struct nvme_ctrl_options){
		.io_queues = 1,
		.depth = 256,
		.timeout_ns = 30 * NSEC_PER_SEC,
		.abort_timeout_ns = 5 * NSEC_PER_SEC,
		.admin_timeout_ns = 60 * NSEC_PER_SEC,
	};
}

static int check_device(struct nvme_ctrl *c, struct err *err)
{
	struct nvme_pci *pci = c->pci;
	uint32_t class;
	size_t qids;
	int rc = pci->ops->config_read(pci, NVME_PCI_CLASS, &class, sizeof(class));

	if (rc)
		return err_set(err, rc, "%s: no access to its configuration space: %s", pci->name,
			       strerror(-rc));
	if (class >> 8 != NVME_PCI_CLASS_CODE)
		return err_set(err, -ENODEV,
			       "%s: class %06x is no NVMe controller's: see lspci -d ::0108",
			       pci->name, class >> 8);
	if (pci->bar_len < NVME_REG_DOORBELLS + DMA_PAGE_SIZE ||
	    nvme_reg_read(pci, NVME_REG_CSTS) == NVME_GONE)
		return err_set(err, -ENODEV,
			       "%s: its registers do not answer: is the drive there, and powered?",
			       pci->name);
	c->cap = read_reg64(pci, NVME_REG_CAP);
	if (!(c->cap & NVME_CAP_CSS_NVM) || NVME_CAP_MPSMIN(c->cap))
		return err_set(err, -EOPNOTSUPP,
			       "%s: the controller has no NVM command set, or no pages of 4 KiB",
			       pci->name);
	/* The doorbells of all queue pairs must lie in the BAR; the first are the admin queue's. */
	qids = (pci->bar_len - NVME_REG_DOORBELLS) / nvme_ctrl_doorbell_offset(c, 1, false);
	c->qids_max = (uint16_t)(qids - 1 < NVME_QPAIRS_MAX ? qids - 1 : NVME_QPAIRS_MAX);
	if (qids < 2 || NVME_CAP_MQES(c->cap) < 1)
		return err_set(err, -EOPNOTSUPP, "%s: the controller has no room for I/O queues",
			       pci->name);
	return 0;
}

int nvme_ctrl_create(struct nvme_pci *pci, struct dma *dma, struct reactor *home,
		     const struct nvme_ctrl_options *opts, const struct nvme_ctrl_ops *ops,
		     void *arg, struct nvme_ctrl **out, struct err *err)
{
	struct nvme_ctrl *c = calloc(1, sizeof(*c));
	int rc = -ENOMEM;

	if (opts->io_queues < 1 || opts->io_queues > NVME_QUEUES_MAX ||
	    opts->depth < NVME_QPAIR_MIN_ENTRIES || opts->depth > NVME_DEPTH_MAX) {
		free(c);
		return err_set(err, -EINVAL,
			       "%u queues of %u commands are not served: use 1 to %d of %d to %d",
			       opts->io_queues, opts->depth, NVME_QUEUES_MAX,
			       NVME_QPAIR_MIN_ENTRIES, NVME_DEPTH_MAX);
	}
	if (!c)
		return err_set(err, rc, "no memory left for a drive");
	c->pci = pci;
	c->dma = dma;
	c->home = home;
	c->opts = *opts;
	c->ops = ops;
	c->arg = arg;
	c->timer.fire = tick;
	list_init(&c->admin_waiting);
	list_init(&c->chain.node);
	pthread_mutex_init(&c->lock, NULL);
	c->admin.dma = dma;
	c->id = calloc(1, sizeof(*c->id));
	c->buffer = calloc(1, DMA_PAGE_SIZE);
	c->queues = calloc(opts->io_queues + 1, sizeof(*c->queues));
	if (!c->id || !c->buffer || !c->queues)
		err_set(err, rc, "no memory left for a drive");
	else
		rc = check_device(c, err);
	if (!rc)
		rc = nvme_admin_init(c, err);
	if (rc) {
		nvme_ctrl_destroy(c);
		return rc;
	}
	*out = c;
	return 0;
}

void nvme_ctrl_destroy(struct nvme_ctrl *c)
{
	reactor_timer_stop(c->home, &c->timer);
	for (unsigned i = 0; i < c->queues_len; i++)
		nvme_queue_fini(&c->queues[i]);
	nvme_admin_fini(c);
	pthread_mutex_destroy(&c->lock);
	free(c->queues);
	free(c->buffer);
	free(c->id);
	free(c);
}

void nvme_ctrl_start(struct nvme_ctrl *c)
{
	c->state = NVME_STARTING;
	disable(c);
}

void nvme_ctrl_stop(struct nvme_ctrl *c)
{
	c->stop_wanted = true;
	if (c->phase == NVME_PHASE_OVER) {
		send_end(c);
	} else if (c->state == NVME_LIVE) {
		c->state = NVME_STOPPING;
		hold(c);
	}
	/* Else what is under way comes first; live() and tell_end() look for us. */
}

/* @r's queue, or one for it. With the lock held. */
static struct nvme_queue *find_queue(struct nvme_ctrl *c, const struct reactor *r)
{
	struct nvme_queue *found = NULL;

	if (r == c->home && c->home_queue)
		return c->home_queue;
	for (unsigned i = 0; i < c->queues_len; i++) {
		struct nvme_queue *q = &c->queues[i];

		if (q->reactor == r)
			return q;
		if (!found && !q->reactor && q != c->home_queue)
			found = q;
	}
	return found;
}

int nvme_ctrl_open_queue(struct nvme_ctrl *c, struct reactor *r, struct nvme_queue **out)
{
	struct nvme_queue *q;
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	q = find_queue(c, r);
	if (c->ended) {
		rc = -ENODEV;
	} else if (!q) {
		rc = -EBUSY;
	} else {
		/* During a reset it begins with waiting for its end, which it will be told. */
		if (!q->reactor)
			q->held = c->holding;
		nvme_queue_open(q, r);
	}
	pthread_mutex_unlock(&c->lock);
	*out = q;
	return rc;
}

enum nvme_state nvme_ctrl_state(const struct nvme_ctrl *c)
{
	return c->state;
}

const char *nvme_ctrl_name(const struct nvme_ctrl *c)
{
	return c->pci->name;
}

struct dma *nvme_ctrl_dma(const struct nvme_ctrl *c)
{
	return c->dma;
}

struct reactor *nvme_ctrl_home(const struct nvme_ctrl *c)
{
	return c->home;
}

const struct nvme_id_ctrl *nvme_ctrl_identity(const struct nvme_ctrl *c)
{
	return c->id;
}

const struct nvme_limits *nvme_ctrl_limits(const struct nvme_ctrl *c)
{
	return &c->limits;
}

unsigned nvme_ctrl_queues(const struct nvme_ctrl *c)
{
	return c->queues_len - (c->home_queue ? 1 : 0);
}

bool nvme_ctrl_has_write_cache(const struct nvme_ctrl *c)
{
	return __atomic_load_n(&c->write_cache, __ATOMIC_RELAXED);
}

unsigned nvme_ctrl_namespaces(const struct nvme_ctrl *c, const struct nvme_namespace **list)
{
	*list = c->namespaces;
	return c->namespaces_len;
}

const struct nvme_namespace *nvme_ctrl_namespace(const struct nvme_ctrl *c, uint32_t nsid)
{
	for (unsigned i = 0; i < c->namespaces_len; i++)
		if (c->namespaces[i].nsid == nsid)
			return &c->namespaces[i];
	return NULL;
}

/* A controller of nobody's */

/* Waits for RDY to fall, as long as that may take; returns whether it did. */
static bool wait_disabled(const struct nvme_pci *pci)
{
	uint64_t end = clock_now_ns() + ready_ns(pci);
	const struct timespec pause = {.tv_nsec = NSEC_PER_MSEC};

	for (;;) {
		if (!is_at_work(pci))
			return true;
		if (clock_now_ns() >= end)
			return false;
		nanosleep(&pause, NULL);
	}
}

int nvme_ctrl_quiesce(struct nvme_pci *pci, struct err *err)
{
	uint32_t cc;
	int rc;

	if (pci->bar_len >= NVME_REG_DOORBELLS) {
		cc = nvme_reg_read(pci, NVME_REG_CC);
		if (cc != NVME_GONE && cc & NVME_CC_EN)
			nvme_reg_write(pci, NVME_REG_CC, cc & ~(NVME_CC_EN | NVME_CC_SHN_MASK));
		if (wait_disabled(pci)) {
			/* Off the bus as well if it can be had: two locks are better than one. */
			nvme_pci_set_bus_master(pci, false);
			return 0;
		}
		log_warning("%s: the controller does not stop: cutting it off from the bus",
			    pci->name);
	}
	rc = nvme_pci_set_bus_master(pci, false);
	if (!rc || (rc == -ENODEV && pci->bar_len < NVME_REG_DOORBELLS))
		return 0;
	return err_set(
		err, rc == -ENODEV ? -EIO : rc,
		"%s neither stops nor leaves the bus: %s: power-cycle the host to be sure of "
		"what it writes to",
		pci->name, strerror(-rc));
}

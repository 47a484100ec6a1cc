/* SPDX-License-Identifier: BSD-2-Clause */
#include "sluiced/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "bdev/bdev.h"
#include "ctl/bdev_rpc.h"
#include "ctl/config.h"
#include "ctl/dirs.h"
#include "ctl/instance.h"
#include "ctl/nvme_rpc.h"
#include "ctl/rpc.h"
#include "reactor/helper.h"
#include "sivshm/door.h"
#include "sluiced/drives.h"
#include "sluiced/framework_rpc.h"
#include "sluiced/options.h"
#include "sluiced/sivshm_rpc.h"
#include "sluiced/vbd_rpc.h"
#include "xen/backend.h"
#include "xen/host.h"

enum {
	HELPER_THREADS = 2,
	REACTORS_MAX = 64,
};
/* A device that does not answer must not keep the daemon from ending. */
#define DRAIN_NS (30 * NSEC_PER_SEC)

struct daemon {
	struct options opts;
	const struct nvme_ways *ways; /* NULL: this host's */
	int lock_fd;
	struct helper_pool *helpers;
	struct reactor *control;
	struct reactor *reactors[REACTORS_MAX];
	unsigned nr_reactors;
	unsigned nr_running;
	struct config *config;
	struct rpc_server *rpc;
	struct framework_rpc framework_rpc;
	struct vbd_rpc vbd_rpc;
	bool on_xen; /* the host is a PV domain of Xen, whether its guests are served or not */
	struct drives_xen drives_xen;
	struct drives_vfio drives_vfio;
	struct nvme_drives *drives;
	struct nvme_rpc nvme_rpc;
	struct xen_backend *xen; /* NULL: no guests of Xen are served, for this reason: */
	struct err no_xen;
	struct sivshm_door *door;
	struct sivshm_rpc sivshm_rpc;
	struct reactor_fd signals;
	struct reactor_timer drain_timer;
	bool draining;
	/* Who has not drained yet, and what is to be called when all have. */
	unsigned undrained;
	void (*drained)(void *arg);
	void *drained_arg;
};

/* The end */

static void drives_stopped(void *arg)
{
	struct daemon *d = arg;

	reactor_timer_stop(d->control, &d->drain_timer);
	reactor_stop(d->control);
}

static void drained(void *arg)
{
	struct daemon *d = arg;

	nvme_drives_stop(d->drives, drives_stopped, d);
}

static void one_drained(void *arg)
{
	struct daemon *d = arg;

	if (!--d->undrained)
		d->drained(d->drained_arg);
}

/* Has nothing served any more, and calls @done(@arg) when nothing is in flight. */
static void drain(struct daemon *d, void (*done)(void *arg), void *arg)
{
	d->drained = done;
	d->drained_arg = arg;
	d->undrained = d->xen ? 2 : 1;
	if (d->xen)
		xen_backend_drain(d->xen, one_drained, d);
	sivshm_door_drain(d->door, one_drained, d);
}

static void drain_too_long(struct reactor_timer *t)
{
	/*
	 * What is in flight cannot be waited for and must not be forgotten: without the clean mark
	 * no successor will take those guests for idle. Nothing can be freed under a device at
	 * work.
	 */
	log_error(
		"requests are still in flight, or drives not shut down, after 30 s: ending without "
		"the clean mark");
	_exit(EXIT_FAILURE);
}

static void signal_ready(struct reactor_fd *f, uint32_t events)
{
	struct daemon *d = container_of(f, struct daemon, signals);
	struct signalfd_siginfo info;

	if (read(f->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (d->draining)
		return;
	d->draining = true;
	log_info("signal %u: draining", info.ssi_signo);
	d->drain_timer.fire = drain_too_long;
	reactor_timer_start(d->control, &d->drain_timer, DRAIN_NS);
	drain(d, drained, d);
}

/* The beginning, step by step; stop_all() undoes what was done */

/* Before there are threads: each inherits the mask, so that only the descriptor gets the signals.
 */
static int block_signals(struct daemon *d, struct err *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP); /* the terminal is gone */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d->signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	d->signals.ready = signal_ready;
	return d->signals.fd < 0
		       ? err_set(err, -errno, "cannot listen to signals: %s", strerror(errno))
		       : 0;
}

/* As many descriptors as may be had: a worker of the second door takes up to 132. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int create_reactors(struct daemon *d, struct err *err)
{
	int rc;

	rc = helper_pool_create(HELPER_THREADS, &d->helpers);
	if (!rc)
		rc = reactor_create("sluiced", -1, d->helpers, &d->control);
	for (int cpu = 0; !rc && cpu < REACTORS_MAX; cpu++) {
		char name[16];

		if (!(d->opts.cpumask >> cpu & 1))
			continue;
		snprintf(name, sizeof(name), "reactor%d", cpu);
		rc = reactor_create(name, cpu, d->helpers, &d->reactors[d->nr_reactors]);
		d->nr_reactors += !rc;
	}
	return rc ? err_set(err, rc, "cannot make threads: %s", strerror(-rc)) : 0;
}

static int start_reactors(struct daemon *d, struct err *err)
{
	for (; d->nr_running < d->nr_reactors; d->nr_running++) {
		struct reactor *r = d->reactors[d->nr_running];
		int rc = reactor_start(r);

		if (rc)
			return err_set(err, rc,
				       "cannot run a reactor on core %d: %s (see --cpumask)",
				       reactor_cpu(r), strerror(-rc));
	}
	return 0;
}

static int create_drives(struct daemon *d, struct err *err)
{
	const struct nvme_ways ways =
		d->on_xen ? drives_xen_ways(&d->drives_xen) : drives_vfio_ways(&d->drives_vfio);
	int rc;

	rc = nvme_drives_create(d->ways ? d->ways : &ways, d->control, d->nr_reactors, &d->drives);
	if (rc)
		return err_set(err, rc, "no memory left");
	d->nvme_rpc = (struct nvme_rpc){
		.drives = d->drives,
		.config = d->config,
		.control = d->control,
	};
	nvme_rpc_init(&d->nvme_rpc);
	return 0;
}

static int start_rpc(struct daemon *d, struct err *err)
{
	struct rpc_opts opts = {.socket = d->opts.socket};
	int rc;

	rc = rpc_server_create(d->control, &opts, &d->rpc, err);
	if (rc)
		return rc;
	d->framework_rpc = (struct framework_rpc){
		.reactors = d->reactors,
		.nr_reactors = d->nr_reactors,
	};
	d->vbd_rpc = (struct vbd_rpc){
		.be = d->xen,
		.why = d->no_xen.text,
		.control = d->control,
	};
	rc = framework_rpc_register(d->rpc, &d->framework_rpc);
	if (!rc)
		rc = sivshm_rpc_register(d->rpc, &d->sivshm_rpc);
	if (!rc)
		rc = bdev_rpc_register(d->rpc, d->config);
	if (!rc)
		rc = nvme_rpc_register(d->rpc, &d->nvme_rpc);
	if (!rc)
		rc = vbd_rpc_register(d->rpc, &d->vbd_rpc);
	return rc ? err_set(err, rc, "cannot register methods: %s", strerror(-rc)) : 0;
}

/* Whether guests of Xen are served: as it was asked, or else where that can be. */
static int choose_backend(struct daemon *d, const char *root, struct err *err)
{
	int rc = xen_host_check(root, err);

	d->on_xen = !rc;
	if (!d->opts.kinds[0]) {
		err_set(&d->no_xen, 0,
			"no disks of Xen guests are served: sluiced was started with --backend "
			"none");
		return 0;
	}
	/* Where only a device is missing it is better to be told than to do without. */
	if (!rc || d->opts.kinds_given || rc == -ENOENT)
		return rc;
	d->no_xen = *err;
	d->opts.kinds[0] = NULL;
	return 0;
}

static int create_backend(struct daemon *d, const char *root, struct err *err)
{
	const struct xen_backend_opts opts = {
		.instance = d->opts.name,
		.kinds = d->opts.kinds,
		.control = d->control,
		.reactors = d->reactors,
		.nr_reactors = d->nr_reactors,
		.max_queues = d->opts.max_queues,
		.bounce_pages = (size_t)d->opts.bounce_mib << 20 >> 12,
		.guest_bounce_pages = (size_t)d->opts.guest_bounce_mib << 20 >> 12,
		.guest_maps = d->opts.guest_maps,
		.spin_max_ns = d->opts.poll_us * (uint32_t)NSEC_PER_USEC,
		.ledger = d->drives_xen.ledger,
		.device_maps = d->opts.device_maps,
		.root = root,
	};

	if (!d->opts.kinds[0]) {
		log_info("%s", d->no_xen.text);
		return 0;
	}
	return xen_backend_create(&opts, &d->xen, err);
}

static int create_door(struct daemon *d, struct err *err)
{
	const struct sivshm_door_opts opts = {
		.control = d->control,
		.reactors = d->reactors,
		.nr_reactors = d->nr_reactors,
		.bounce_pages = (size_t)d->opts.bounce_mib << 20 >> 12,
		.guest_bounce_pages = (size_t)d->opts.guest_bounce_mib << 20 >> 12,
		.spin_max_ns = d->opts.poll_us * (uint32_t)NSEC_PER_USEC,
		.dir = d->opts.sivshm_dir,
	};
	char socket[PATH_MAX + 8];
	int rc;

	/* Others than root may be let in, each to his socket. */
	snprintf(socket, sizeof(socket), "%s/any", d->opts.sivshm_dir);
	rc = dirs_make_parent(socket, 0755, err);
	return rc ? rc : sivshm_door_create(&opts, &d->door, err);
}

/* Makes what was remembered. */
static int load_config(struct daemon *d, struct err *err)
{
	int rc = config_create(d->opts.state, d->control, d->helpers, &d->config, err);

	if (!rc)
		rc = create_drives(d, err);
	if (rc)
		return rc;
	d->sivshm_rpc = (struct sivshm_rpc){
		.door = d->door,
		.config = d->config,
		.control = d->control,
	};
	sivshm_rpc_init(&d->sivshm_rpc);
	return config_load(d->config, bdev_rpc_create, err);
}

static int start_all(struct daemon *d, const char *root, struct err *err)
{
	size_t device_pages = (size_t)d->opts.device_memory_mib << 20 >> 12;
	int rc;

	/* What the host lacks is said before anything is touched. */
	rc = choose_backend(d, root, err);
	if (rc)
		return rc;
	rc = instance_lock(d->opts.lock, d->opts.name, &d->lock_fd, err);
	if (rc)
		return rc;
	rc = block_signals(d, err);
	if (rc)
		return rc;
	raise_limit();
	rc = create_reactors(d, err);
	if (rc)
		return rc;
	d->drives_vfio.max_pages = device_pages;
	d->drives_xen.root = root;
	d->drives_xen.max_pages = device_pages;
	if (d->on_xen)
		drives_xen_open(&d->drives_xen, d->opts.ledger);
	rc = create_backend(d, root, err);
	if (!rc)
		rc = create_door(d, err);
	if (rc)
		return rc;
	d->drives_xen.xen = d->xen;
	rc = start_reactors(d, err);
	if (!rc)
		rc = load_config(d, err);
	if (rc)
		return rc;
	/* Not before, as the control reactor is stepped by hand while drives come up. */
	rc = reactor_fd_add(d->control, &d->signals, EPOLLIN);
	if (rc)
		return err_set(err, rc, "cannot listen to signals: %s", strerror(-rc));
	bdev_watch_start(d->control);
	/* Its bdevs are there: guests of a predecessor can be adopted, then clients be served. */
	if (d->xen)
		rc = xen_backend_start(d->xen, err);
	if (!rc)
		rc = sivshm_door_start(d->door, err);
	return rc ? rc : start_rpc(d, err);
}

static void note_stopped(void *arg)
{
	*(bool *)arg = true;
}

/* Drives end by the work of reactors: those of a daemon that could not start still have to. */
static void stop_drives(struct daemon *d)
{
	const struct timespec nap = {0, (long)NSEC_PER_MSEC};
	uint64_t end = clock_now_ns() + DRAIN_NS;
	bool idle = false, stopped = false;

	/* No guest was looked for yet. None must be found now, with its drive about to go. */
	d->draining = true;
	drain(d, note_stopped, &idle);
	nvme_drives_stop(d->drives, note_stopped, &stopped);
	while (!idle || !stopped) {
		if (!reactor_step(d->control))
			nanosleep(&nap, NULL);
		if (clock_now_ns() > end)
			drain_too_long(NULL);
	}
}

static void stop_all(struct daemon *d)
{
	if (d->drives && !d->draining)
		stop_drives(d);
	for (unsigned i = 0; i < d->nr_running; i++)
		reactor_stop(d->reactors[i]);
	for (unsigned i = 0; i < d->nr_running; i++)
		reactor_join(d->reactors[i]);
	/* Helpers send to reactors, and work for the config and for bdevs: all those outlive them.
	 */
	if (d->helpers)
		helper_pool_destroy(d->helpers);
	bdev_watch_stop();
	if (d->rpc)
		rpc_server_destroy(d->rpc);
	if (d->xen)
		xen_backend_destroy(d->xen);
	if (d->config)
		config_destroy(d->config);
	if (d->door)
		sivshm_door_destroy(d->door);
	bdev_delete_all();
	if (d->drives)
		nvme_drives_destroy(d->drives);
	drives_xen_close(&d->drives_xen);
	for (unsigned i = 0; i < d->nr_reactors; i++)
		reactor_destroy(d->reactors[i]);
	if (d->signals.fd >= 0)
		close(d->signals.fd);
	if (d->control)
		reactor_destroy(d->control);
	if (d->lock_fd >= 0)
		close(d->lock_fd);
}

int daemon_main(int argc, char **argv, const char *root, const struct nvme_ways *ways)
{
	struct daemon d = {.ways = ways, .lock_fd = -1, .signals.fd = -1};
	struct err err;

	if (options_parse(argc, argv, &d.opts, &err)) {
		fprintf(stderr, "sluiced: %s\n", err.text);
		return 2;
	}
	if (d.opts.help || d.opts.version) {
		if (d.opts.help)
			fputs(options_usage, stdout);
		else
			puts("sluiced " SLUICE_VERSION);
		return EXIT_SUCCESS;
	}
	log_set_level(d.opts.log_level);
	if (start_all(&d, root, &err)) {
		log_error("%s", err.text);
		stop_all(&d);
		return EXIT_FAILURE;
	}
	log_info("sluiced " SLUICE_VERSION " serves as instance %s with %u reactor%s", d.opts.name,
		 d.nr_reactors, d.nr_reactors == 1 ? "" : "s");
	reactor_run(d.control);
	stop_all(&d);
	log_info("ended");
	return EXIT_SUCCESS;
}

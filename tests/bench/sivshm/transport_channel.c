/* SPDX-License-Identifier: BSD-2-Clause */
/* By channels of libsivshm's, in the memory that ports.h gives. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "ports.h"
#include "source.h"
#include "transport.h"

static struct sivshm_channel *channels[TRANSPORT_WORKERS_MAX];

/* A worker gives back at the latest after so many messages, or bytes. */
enum { RELEASE_EVERY = 64, RELEASE_BYTES = 256 << 10 };

static void channel_open(unsigned workers)
{
	struct sivshm_channel_opts opts;

	for (unsigned i = 0; i < workers; i++) {
		struct sivshm_port *port = ports_manager(i, &opts);

		bench_need(sivshm_channel_create(port, &opts, &channels[i]),
			   "sivshm_channel_create");
	}
}

static void channel_join(unsigned worker)
{
	struct sivshm_channel_opts opts;
	struct sivshm_port *port = ports_worker(worker, &opts);
	int rc;

	while ((rc = sivshm_channel_attach(port, &opts, &channels[0])) == -EAGAIN)
		usleep(100);
	bench_need(rc, "sivshm_channel_attach");
}

static unsigned channel_send(unsigned worker, uint64_t number, unsigned nr, size_t bytes)
{
	struct sivshm_channel *c = channels[worker];
	unsigned sent = 0;
	int rc = 0;

	while (sent < nr && !(rc = sivshm_channel_send(c, source_message(number + sent), bytes)))
		sent++;
	if (rc && rc != -EAGAIN)
		bench_need(rc, "sivshm_channel_send");
	bench_need(sivshm_channel_push(c), "sivshm_channel_push");
	return sent;
}

static bool channel_finish(unsigned worker)
{
	return true;
}

static void channel_consume(unsigned worker, bool alone, struct transport_board *board)
{
	struct transport_report *report = &board->reports[worker];
	struct sivshm_channel *c = channels[0];
	const void *data;
	size_t bytes;

	for (;;) {
		uint64_t all = 0, sum = 0;
		unsigned n = 0;
		int rc = 0;

		while (n < RELEASE_EVERY && all < RELEASE_BYTES &&
		       (rc = sivshm_channel_receive(c, &data, &bytes)) == 1) {
			sum += source_touch(data, bytes);
			all += bytes;
			n++;
		}
		bench_need(rc, "sivshm_channel_receive");
		if (n) {
			sivshm_channel_release(c);
			transport_note(report, all, sum);
			continue;
		}
		if (atomic_load(&board->stop))
			return;
		for (n = alone ? TRANSPORT_LOOKS_ALONE : TRANSPORT_LOOKS_SHARED; n; n--) {
			rc = sivshm_channel_receive(c, &data, &bytes);
			if (rc)
				break;
			if (!alone)
				sched_yield();
			for (unsigned i = 0; i < TRANSPORT_PAUSES; i++)
				bench_pause();
		}
		bench_need(rc, "sivshm_channel_receive");
		if (n) {
			transport_note(report, bytes, source_touch(data, bytes));
			sivshm_channel_release(c);
		} else {
			bench_need(sivshm_channel_wait(c, 50), "sivshm_channel_wait");
		}
	}
}

static void channel_say(size_t bytes)
{
	void *to;

	while (sivshm_channel_reserve(channels[0], bytes, &to))
		bench_pause();
	memcpy(to, source_message(0), bytes);
	sivshm_channel_commit(channels[0], bytes);
	bench_need(sivshm_channel_push(channels[0]), "sivshm_channel_push");
}

static void channel_hear(size_t bytes, bool poll)
{
	const void *data;
	size_t got;
	int rc;

	while (!(rc = sivshm_channel_receive(channels[0], &data, &got)))
		if (!poll)
			bench_need(sivshm_channel_wait(channels[0], -1), "sivshm_channel_wait");
	bench_need(rc, "sivshm_channel_receive");
	sivshm_channel_release(channels[0]);
}

static const struct transport channel = {
	.prepare = ports_prepare,
	.open = channel_open,
	.join = channel_join,
	.send = channel_send,
	.finish = channel_finish,
	.consume = channel_consume,
	.say = channel_say,
	.hear = channel_hear,
};

const struct transport *transport_channel(const char *name)
{
	return strcmp(name, ports_name) ? NULL : &channel;
}

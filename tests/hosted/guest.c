/* SPDX-License-Identifier: BSD-2-Clause */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "double.h"

enum { DEVID = 51712, PAGE = 4096, DEFAULT_SEGMENTS = 32, SYNC_PAGES = 32 };

const struct guest_way guest_copied = {.options = ""};
const struct guest_way guest_mapped = {.options = ",sharing=map"};
const struct guest_way guest_persistent = {.options = ",sharing=map", .persistent = true};
const struct guest_way guest_dma = {.options = ",sharing=dma", .dma = true};
const struct guest_way guest_dma_persistent = {
	.options = ",sharing=dma", .persistent = true, .dma = true};
const struct guest_way guest_auto = {.options = "", .dma = true, .map_from = 3 * PAGE};
const struct guest_way guest_auto_persistent = {
	.options = "", .persistent = true, .dma = true, .map_from = 3 * PAGE};
const struct guest_way *guest_way = &guest_copied;

static void die(const char *what)
{
	fprintf(stderr, "guest: %s\n", what);
	abort();
}

/* front_ops over the double */

static void *pages_alloc(void *ctx, unsigned nr, bool readonly, uint32_t *refs)
{
	struct guest *g = ctx;
	char *pages = double_pages_alloc(g->disk.domid, nr);

	for (unsigned i = 0; i < nr; i++)
		refs[i] = double_grant(g->disk.domid, pages + (size_t)i * PAGE, 0, readonly);
	return pages;
}

static void pages_free(void *ctx, void *pages, unsigned nr, const uint32_t *refs)
{
	struct guest *g = ctx;

	if (g->gone)
		return;
	/* Linux gives up a disk whose pages the backend does not let go of; so do we. */
	for (unsigned i = 0; i < nr; i++) {
		struct guest_page page = {.data = (unsigned char *)pages + (size_t)i * PAGE,
					  .ref = refs[i]};

		guest_page_free(g, &page);
	}
}

static void notify(void *ctx)
{
	struct guest *g = ctx;

	double_evtchn_notify(g->disk.domid, g->port);
}

static bool wait(void *ctx, unsigned timeout_ms)
{
	struct guest *g = ctx;

	return double_evtchn_wait(g->disk.domid, g->port, timeout_ms);
}

/* A guest's life */

void guest_add_disk(struct guest *g, struct host *h, unsigned domid, unsigned devid,
		    const struct disk_opts *opts)
{
	struct disk_opts disk_opts = *opts;
	char target[128];

	if (!strstr(opts->target, "sharing=")) {
		snprintf(target, sizeof(target), "%s%s", opts->target, guest_way->options);
		disk_opts.target = target;
	}
	memset(g, 0, sizeof(*g));
	g->ops = (struct front_ops){
		.pages_alloc = pages_alloc,
		.pages_free = pages_free,
		.notify = notify,
		.wait = wait,
	};
	g->xs = double_xs_open(domid);
	toolstack_add(h, domid, devid, &disk_opts, &g->disk);
	if (!opts->instance && !toolstack_script(&g->disk))
		die("the script failed");
}

void guest_create(struct guest *g, struct host *h, unsigned domid, const struct disk_opts *opts)
{
	char name[32];

	snprintf(name, sizeof(name), "guest%u", domid);
	double_domain_create(domid, name);
	guest_add_disk(g, h, domid, DEVID, opts);
}

void guest_destroy(struct guest *g)
{
	if (g->front)
		front_destroy(g->front);
	g->front = NULL;
	xs_close(g->xs);
}

void guest_kill(struct guest *g)
{
	g->gone = true;
	double_domain_destroy(g->disk.domid);
}

void guest_write(struct guest *g, const char *key, const char *value)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", g->disk.front, key);
	if (!xs_write(g->xs, XBT_NULL, path, value, (unsigned)strlen(value)))
		die("cannot write a key of its own");
}

void guest_write_number(struct guest *g, const char *key, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%lu", (unsigned long)value);
	guest_write(g, key, text);
}

void guest_set_state(struct guest *g, unsigned state)
{
	guest_write_number(g, "state", state);
}

void guest_publish(struct guest *g, const struct guest_opts *opts)
{
	struct front_opts front_opts = {
		.layout = opts->layout ? opts->layout : &blkif_layout_x86_64,
		.ring_pages = 1,
		.max_segments = opts->max_segments ? opts->max_segments : DEFAULT_SEGMENTS,
		.first_index = opts->first_index,
		.sync_pages = SYNC_PAGES,
		.ops = &g->ops,
		.ctx = g,
	};

	if (opts->no_protocol)
		front_opts.layout = &blkif_layout_x86_32;
	if (front_create(&front_opts, &g->front))
		die("no frontend");
	if (!opts->keep_port)
		g->port = double_evtchn_alloc(g->disk.domid, 0);
	if (opts->keys == GUEST_RING_REF_0) {
		guest_write(g, "ring-page-order", "0");
		guest_write_number(g, "ring-ref0", front_ring_refs(g->front)[0]);
	} else {
		guest_write_number(g, "ring-ref", front_ring_refs(g->front)[0]);
	}
	if (opts->keys == GUEST_RING_REF_ONE_MORE)
		guest_write(g, "multi-queue-num-queues", "1");
	guest_write_number(g, "event-channel", g->port);
	if (!opts->no_protocol)
		guest_write(g, "protocol", front_opts.layout->protocol);
	guest_write_number(g, "feature-persistent", guest_way->persistent);
	guest_set_state(g, opts->jump_to ? opts->jump_to : 3);
}

static uint64_t read_number(struct guest *g, const char *key)
{
	char path[256];
	unsigned len;
	char *text;
	uint64_t value;

	/* As the guest: it has to be allowed to. */
	snprintf(path, sizeof(path), "%s/%s", g->disk.back, key);
	text = xs_read(g->xs, XBT_NULL, path, &len);
	if (!text)
		die("a key of the backend is missing");
	value = strtoull(text, NULL, 10);
	free(text);
	return value;
}

void guest_read_disk(struct guest *g)
{
	g->sectors = read_number(g, "sectors");
	g->info = (unsigned)read_number(g, "info");
	guest_set_state(g, 4);
}

bool guest_connect(struct guest *g, const struct guest_opts *opts)
{
	if (!disk_wait_state(&g->disk, 2))
		return false;
	guest_publish(g, opts);
	if (!disk_wait_state(&g->disk, 4))
		return false;
	guest_read_disk(g);
	return true;
}

bool guest_free_front(struct guest *g)
{
	if (!g->gone && double_grant_is_mapped(g->disk.domid, front_ring_refs(g->front)[0]))
		return false;
	front_destroy(g->front);
	g->front = NULL;
	if (!g->gone)
		double_evtchn_close(g->disk.domid, g->port);
	return true;
}

bool guest_close(struct guest *g)
{
	guest_set_state(g, 5);
	if (!disk_wait_state(&g->disk, 5))
		return false;
	guest_set_state(g, 6);
	return disk_wait_state(&g->disk, 6);
}

struct guest_page guest_page_new(struct guest *g, bool readonly)
{
	struct guest_page page = {.data = double_pages_alloc(g->disk.domid, 1)};

	page.ref = double_grant(g->disk.domid, page.data, 0, readonly);
	return page;
}

void guest_page_free(struct guest *g, const struct guest_page *page)
{
	/* A backend that was promised a page for all time need not have let go of it. */
	if (guest_way->persistent)
		double_revoke_by_force(g->disk.domid, page->ref);
	else if (double_revoke(g->disk.domid, page->ref))
		die("a page is still mapped by the backend");
	double_pages_free(g->disk.domid, page->data, 1);
}

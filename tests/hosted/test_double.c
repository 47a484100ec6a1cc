/* SPDX-License-Identifier: BSD-2-Clause */
/* The double itself: a test that leans on it is worth no more than its likeness to Xen. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#include "double.h"

enum { GUEST = 7, OTHER_GUEST = 8 };

static int setup(void **state)
{
	double_init();
	double_domain_create(GUEST, "guest");
	return 0;
}

static int teardown(void **state)
{
	unsigned leaks = double_leaks();

	double_fini();
	return leaks ? -1 : 0;
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

static void write_text(struct xs_handle *xs, xs_transaction_t t, const char *path, const char *text)
{
	assert_true(xs_write(xs, t, path, text, (unsigned)strlen(text)));
}

static void assert_text(struct xs_handle *xs, xs_transaction_t t, const char *path,
			const char *text)
{
	unsigned len;
	char *value = xs_read(xs, t, path, &len);

	assert_non_null(value);
	assert_string_equal(value, text);
	assert_int_equal(len, strlen(text));
	free(value);
}

static void assert_event(struct xs_handle *xs, const char *path, const char *token)
{
	char **event;

	assert_true(readable(xs_fileno(xs)));
	event = xs_check_watch(xs);
	assert_non_null(event);
	assert_string_equal(event[XS_WATCH_PATH], path);
	assert_string_equal(event[XS_WATCH_TOKEN], token);
	free(event);
}

static void assert_no_event(struct xs_handle *xs)
{
	assert_false(readable(xs_fileno(xs)));
	assert_null(xs_check_watch(xs));
	assert_int_equal(errno, EAGAIN);
}

/* xenstore */

static void store_keeps_values(void **state)
{
	struct xs_handle *xs = xs_open(0);
	static const char with_nul[] = {'a', 0, 'b'};
	unsigned len, num;
	char *value, **names;

	write_text(xs, XBT_NULL, "/x/y/z", "1");
	assert_text(xs, XBT_NULL, "/x/y/z", "1");
	assert_text(xs, XBT_NULL, "/x/y", "");
	assert_true(xs_write(xs, XBT_NULL, "/x/nul", with_nul, sizeof(with_nul)));
	value = xs_read(xs, XBT_NULL, "/x/nul", &len);
	assert_int_equal(len, sizeof(with_nul));
	assert_memory_equal(value, with_nul, sizeof(with_nul));
	assert_int_equal(value[len], 0);
	free(value);
	assert_true(xs_mkdir(xs, XBT_NULL, "/x/a"));

	/* Children come in the order of their making. */
	names = xs_directory(xs, XBT_NULL, "/x", &num);
	assert_int_equal(num, 3);
	assert_string_equal(names[0], "y");
	assert_string_equal(names[1], "nul");
	assert_string_equal(names[2], "a");
	free(names);
	names = xs_directory(xs, XBT_NULL, "/x/a", &num);
	assert_non_null(names);
	assert_int_equal(num, 0);
	free(names);

	assert_null(xs_read(xs, XBT_NULL, "/nothing", &len));
	assert_int_equal(errno, ENOENT);
	assert_null(xs_read(xs, XBT_NULL, "/bad path", &len));
	assert_int_equal(errno, EINVAL);
	assert_null(xs_read(xs, XBT_NULL, "/bad//path", &len));
	assert_int_equal(errno, EINVAL);
	assert_false(xs_rm(xs, XBT_NULL, "/no/thing"));
	assert_int_equal(errno, ENOENT);
	assert_true(xs_rm(xs, XBT_NULL, "/x/nothing"));
	assert_true(xs_rm(xs, XBT_NULL, "/x"));
	assert_null(xs_read(xs, XBT_NULL, "/x/y/z", &len));
	xs_close(xs);
}

static void watches_fire(void **state)
{
	struct xs_handle *xs = xs_open(0);
	struct xs_handle *by = xs_open(0);

	assert_no_event(xs);
	assert_true(xs_watch(xs, "/x", "t"));
	assert_false(xs_watch(xs, "/x", "t"));
	assert_int_equal(errno, EEXIST);
	assert_event(xs, "/x", "t");
	assert_no_event(xs);

	write_text(by, XBT_NULL, "/x/y", "1");
	write_text(by, XBT_NULL, "/x/y", "1"); /* the same value is news, too */
	write_text(by, XBT_NULL, "/xy", "1");  /* a sibling is not */
	assert_event(xs, "/x/y", "t");
	assert_event(xs, "/x/y", "t");
	assert_no_event(xs);

	/* A removal is told once to who watches above, and to who watches what went with it. */
	assert_true(xs_watch(xs, "/x/y/deep", "deep"));
	assert_event(xs, "/x/y/deep", "deep");
	write_text(by, XBT_NULL, "/x/y/deep", "1");
	assert_event(xs, "/x/y/deep", "t");
	assert_event(xs, "/x/y/deep", "deep");
	assert_true(xs_rm(by, XBT_NULL, "/x"));
	assert_event(xs, "/x", "t");
	assert_event(xs, "/x/y/deep", "deep");
	assert_no_event(xs);

	/* Relative paths are reported as they were given. */
	assert_true(xs_watch(xs, "backend/vbd", "r"));
	assert_event(xs, "backend/vbd", "r");
	write_text(by, XBT_NULL, "/local/domain/0/backend/vbd/7", "");
	assert_event(xs, "backend/vbd/7", "r");

	assert_true(xs_unwatch(xs, "/x", "t"));
	assert_false(xs_unwatch(xs, "/x", "t"));
	assert_int_equal(errno, ENOENT);
	write_text(by, XBT_NULL, "/x", "1");
	assert_no_event(xs);

	assert_true(xs_watch(xs, "@releaseDomain", "rel"));
	assert_event(xs, "@releaseDomain", "rel");
	double_domain_destroy(GUEST);
	assert_event(xs, "@releaseDomain", "rel");
	assert_false(xs_is_domain_introduced(xs, GUEST));
	xs_close(by);
	xs_close(xs);
}

static void transactions_are_all_or_nothing(void **state)
{
	struct xs_handle *xs = xs_open(0);
	struct xs_handle *by = xs_open(0);
	xs_transaction_t t;
	unsigned num;

	assert_true(xs_watch(by, "/x", "t"));
	assert_event(by, "/x", "t");

	t = xs_transaction_start(xs);
	write_text(xs, t, "/x/a", "1");
	write_text(xs, t, "/x/b", "2");
	assert_text(xs, t, "/x/a", "1");
	assert_null(xs_read(by, XBT_NULL, "/x/a", &num));
	assert_no_event(by);
	assert_true(xs_transaction_end(xs, t, false));
	assert_event(by, "/x/a", "t");
	assert_event(by, "/x/b", "t");
	assert_text(by, XBT_NULL, "/x/a", "1");

	t = xs_transaction_start(xs);
	write_text(xs, t, "/x/a", "gone");
	assert_true(xs_transaction_end(xs, t, true));
	assert_text(xs, XBT_NULL, "/x/a", "1");

	/* Somebody changes what it has read. */
	t = xs_transaction_start(xs);
	assert_text(xs, t, "/x/a", "1");
	write_text(xs, t, "/x/c", "1");
	write_text(by, XBT_NULL, "/x/a", "5");
	assert_false(xs_transaction_end(xs, t, false));
	assert_int_equal(errno, EAGAIN);
	assert_null(xs_read(xs, XBT_NULL, "/x/c", &num));

	/* What it has not looked at may change, and what it made itself does not count. */
	t = xs_transaction_start(xs);
	assert_true(xs_rm(xs, t, "/x"));
	write_text(xs, t, "/x/a", "7");
	assert_text(xs, t, "/x/a", "7");
	write_text(by, XBT_NULL, "/y", "5");
	assert_true(xs_transaction_end(xs, t, false));
	assert_text(xs, XBT_NULL, "/x/a", "7");

	/* Of what it removes, all of it counts; and so does what it has found not to be there. */
	t = xs_transaction_start(xs);
	assert_true(xs_rm(xs, t, "/x"));
	write_text(by, XBT_NULL, "/x/a", "9");
	assert_false(xs_transaction_end(xs, t, false));
	assert_text(xs, XBT_NULL, "/x/a", "9");
	t = xs_transaction_start(xs);
	assert_null(xs_read(xs, t, "/x/new", &num));
	write_text(xs, t, "/y", "6");
	write_text(by, XBT_NULL, "/x/new", "1");
	assert_false(xs_transaction_end(xs, t, false));
	assert_int_equal(errno, EAGAIN);

	assert_false(xs_transaction_end(xs, t, false));
	assert_int_equal(errno, ENOENT);
	double_fail(DOUBLE_XS_TRANSACTION_END, EAGAIN, 1, 2, NULL);
	for (int i = 0; i < 4; i++) {
		t = xs_transaction_start(xs);
		write_text(xs, t, "/x/a", "8");
		assert_int_equal(xs_transaction_end(xs, t, false), i == 0 || i == 3);
	}
	xs_close(by);
	xs_close(xs);
}

static void permissions_hold_for_guests(void **state)
{
	struct xs_handle *xs = xs_open(0);
	struct xs_handle *guest = double_xs_open(GUEST);
	struct xs_permissions perms[2] = {{.id = 0, .perms = XS_PERM_NONE},
					  {.id = GUEST, .perms = XS_PERM_READ}};
	struct xs_permissions *got;
	unsigned num;

	write_text(xs, XBT_NULL, "/secret", "1");
	assert_null(xs_read(guest, XBT_NULL, "/secret", &num));
	assert_int_equal(errno, EACCES);
	assert_false(xs_write(guest, XBT_NULL, "/secret", "2", 1));
	assert_int_equal(errno, EACCES);
	assert_false(xs_write(guest, XBT_NULL, "/new", "2", 1));
	assert_true(xs_set_permissions(xs, XBT_NULL, "/secret", perms, 2));
	assert_text(guest, XBT_NULL, "/secret", "1");
	assert_false(xs_write(guest, XBT_NULL, "/secret", "2", 1));
	got = xs_get_permissions(xs, XBT_NULL, "/secret", &num);
	assert_int_equal(num, 2);
	assert_memory_equal(got, perms, sizeof(perms));
	free(got);

	/* Its own directory; and what it makes there is its own. */
	write_text(guest, XBT_NULL, "data/mine", "1");
	assert_text(xs, XBT_NULL, "/local/domain/7/data/mine", "1");
	got = xs_get_permissions(xs, XBT_NULL, "/local/domain/7/data/mine", &num);
	assert_int_equal(got[0].id, GUEST);
	free(got);

	/* A guest is told only of what it may read. */
	write_text(xs, XBT_NULL, "/hidden", "1");
	assert_true(xs_watch(guest, "/hidden", "t"));
	assert_event(guest, "/hidden", "t");
	write_text(xs, XBT_NULL, "/hidden", "2");
	assert_no_event(guest);
	xs_close(guest);
	xs_close(xs);
}

static void history_is_kept(void **state)
{
	struct xs_handle *xs = xs_open(0);
	char *history;

	write_text(xs, XBT_NULL, "/x/state", "1");
	write_text(xs, XBT_NULL, "/x/state", "2");
	assert_true(xs_rm(xs, XBT_NULL, "/x"));
	history = double_xs_history("/x/state");
	assert_string_equal(history, "1 2 -");
	free(history);
	xs_close(xs);
}

/* Event channels */

static void events_are_masked_until_unmasked(void **state)
{
	xenevtchn_handle *xce = xenevtchn_open(NULL, 0);
	uint32_t remote = double_evtchn_alloc(GUEST, 0);
	int port;

	assert_int_equal(fcntl(xenevtchn_fd(xce), F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(xenevtchn_bind_interdomain(xce, GUEST, remote + 1), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(xenevtchn_bind_interdomain(xce, 99, remote), -1);
	assert_int_equal(errno, ESRCH);
	port = xenevtchn_bind_interdomain(xce, GUEST, remote);
	assert_true(port > 0);
	/* Only once. */
	assert_int_equal(xenevtchn_bind_interdomain(xce, GUEST, remote), -1);

	/* The event that binding brings. */
	assert_true(readable(xenevtchn_fd(xce)));
	assert_int_equal(xenevtchn_pending(xce), port);
	assert_false(readable(xenevtchn_fd(xce)));
	assert_int_equal(xenevtchn_pending(xce), -1);
	assert_int_equal(errno, EAGAIN);

	/* Masked by its delivery: any number of events come as one, at the unmask. */
	double_evtchn_notify(GUEST, remote);
	double_evtchn_notify(GUEST, remote);
	assert_false(readable(xenevtchn_fd(xce)));
	assert_int_equal(xenevtchn_unmask(xce, (evtchn_port_t)port), 0);
	assert_int_equal(xenevtchn_pending(xce), port);
	assert_int_equal(xenevtchn_unmask(xce, (evtchn_port_t)port), 0);
	assert_false(readable(xenevtchn_fd(xce)));
	double_evtchn_notify(GUEST, remote);
	assert_int_equal(xenevtchn_pending(xce), port);

	assert_false(double_evtchn_wait(GUEST, remote, 1));
	assert_int_equal(xenevtchn_notify(xce, (evtchn_port_t)port), 0);
	assert_true(double_evtchn_wait(GUEST, remote, 0));
	assert_false(double_evtchn_wait(GUEST, remote, 1));
	assert_int_equal(double_evtchn_received(GUEST, remote), 1);
	assert_int_equal(xenevtchn_notify(xce, (evtchn_port_t)port + 1), -1);
	xenevtchn_close(xce);
}

static void closed_ends_can_be_bound_again(void **state)
{
	xenevtchn_handle *xce = xenevtchn_open(NULL, 0);
	xenevtchn_handle *next = xenevtchn_open(NULL, 0);
	uint32_t remote = double_evtchn_alloc(GUEST, 0);
	struct double_stats stats;
	int port = xenevtchn_bind_interdomain(xce, GUEST, remote);

	assert_true(double_evtchn_is_bound(GUEST, remote));
	xenevtchn_close(xce);
	assert_false(double_evtchn_is_bound(GUEST, remote));
	double_evtchn_notify(GUEST, remote); /* lost */
	port = xenevtchn_bind_interdomain(next, GUEST, remote);
	assert_true(port > 0);
	assert_int_equal(xenevtchn_pending(next), port);
	assert_int_equal(xenevtchn_unmask(next, (evtchn_port_t)port), 0);
	assert_false(readable(xenevtchn_fd(next)));

	/* The guest's end closes: ours stays, and sends into the void. */
	double_evtchn_close(GUEST, remote);
	assert_int_equal(xenevtchn_notify(next, (evtchn_port_t)port), 0);
	double_get_stats(&stats);
	assert_int_equal(stats.notifies_dropped, 1);
	assert_int_equal(xenevtchn_unbind(next, (evtchn_port_t)port), 0);
	assert_int_equal(xenevtchn_unbind(next, (evtchn_port_t)port), -1);
	xenevtchn_close(next);
}

/* Grants */

static void mappings_alias_the_guests_pages(void **state)
{
	xengnttab_handle *xgt = xengnttab_open(NULL, 0);
	char *a = double_pages_alloc(GUEST, 1), *b = double_pages_alloc(GUEST, 1);
	uint32_t ref_a = double_grant(GUEST, a, 0, false);
	uint32_t ref_b = double_grant(GUEST, b, 0, false);
	uint32_t backwards[2] = {ref_b, ref_a};
	uint32_t bad[2] = {ref_a, ref_b + 100};
	struct double_stats stats;
	char *map;

	assert_null(xengnttab_map_domain_grant_refs(xgt, 2, GUEST, bad, PROT_READ));
	assert_null(xengnttab_map_grant_ref(xgt, OTHER_GUEST, ref_a, PROT_READ));
	map = xengnttab_map_domain_grant_refs(xgt, 2, GUEST, backwards, PROT_READ | PROT_WRITE);
	assert_non_null(map);
	strcpy(b, "b");
	strcpy(a, "a");
	assert_string_equal(map, "b");
	assert_string_equal(map + 4096, "a");
	strcpy(map, "c");
	assert_string_equal(b, "c");

	/* Mapped, it cannot be taken back, and outlives the guest. */
	assert_int_equal(double_revoke(GUEST, ref_a), -EBUSY);
	assert_true(double_grant_is_mapped(GUEST, ref_a));
	double_domain_destroy(GUEST);
	strcpy(map, "d");
	assert_null(xengnttab_map_grant_ref(xgt, GUEST, ref_a, PROT_READ));
	assert_int_equal(xengnttab_unmap(xgt, map, 1), -1);
	assert_int_equal(xengnttab_unmap(xgt, map, 2), 0);
	assert_int_equal(xengnttab_unmap(xgt, map, 2), -1);
	double_get_stats(&stats);
	assert_int_equal(stats.maps, 2);
	assert_int_equal(stats.unmaps, 2);
	assert_int_equal(stats.mapped, 0);
	xengnttab_close(xgt);
}

static void mappings_are_limited(void **state)
{
	xengnttab_handle *xgt = xengnttab_open(NULL, 0);
	uint32_t ref = double_grant(GUEST, double_pages_alloc(GUEST, 1), 0, true);
	void *map;

	assert_null(xengnttab_map_grant_ref(xgt, GUEST, ref, PROT_READ | PROT_WRITE));
	assert_int_equal(errno, EINVAL);
	double_limit_maps(1);
	map = xengnttab_map_grant_ref(xgt, GUEST, ref, PROT_READ);
	assert_non_null(map);
	assert_null(xengnttab_map_grant_ref(xgt, GUEST, ref, PROT_READ));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(xengnttab_unmap(xgt, map, 1), 0);
	xengnttab_close(xgt);
}

struct map_log {
	unsigned maps, unmaps, writable;
	uint32_t ref;
};

static void log_map(void *arg, bool map, unsigned domid, uint32_t ref, bool writable)
{
	struct map_log *log = arg;

	assert_int_equal(domid, GUEST);
	/* It is mapped in both cases: just now, or for the last time. */
	assert_true(double_grant_is_mapped(GUEST, ref));
	log->maps += map;
	log->unmaps += !map;
	log->writable += writable;
	log->ref = ref;
}

static void mappings_are_counted_and_told(void **state)
{
	xengnttab_handle *xgt = xengnttab_open(NULL, 0);
	uint32_t ref = double_grant(GUEST, double_pages_alloc(GUEST, 1), 0, false);
	uint32_t twice[2] = {ref, ref};
	struct double_grant_use use;
	struct map_log log = {0};
	void *reading, *writing;

	double_on_map(log_map, &log);
	reading = xengnttab_map_domain_grant_refs(xgt, 2, GUEST, twice, PROT_READ);
	writing = xengnttab_map_grant_ref(xgt, GUEST, ref, PROT_READ | PROT_WRITE);
	assert_non_null(reading);
	assert_non_null(writing);
	double_grant_get_use(GUEST, ref, &use);
	assert_int_equal(use.mapped, 3);
	assert_int_equal(use.mapped_writable, 1);
	assert_int_equal(use.maps, 3);
	assert_int_equal(log.maps, 3);
	assert_int_equal(log.writable, 1);
	assert_int_equal(log.ref, ref);

	assert_int_equal(xengnttab_unmap(xgt, writing, 1), 0);
	double_grant_get_use(GUEST, ref, &use);
	assert_int_equal(use.mapped, 2);
	assert_int_equal(use.mapped_writable, 0);
	assert_int_equal(use.maps, 3);
	assert_int_equal(log.unmaps, 1);
	double_on_map(NULL, NULL);
	assert_int_equal(xengnttab_unmap(xgt, reading, 2), 0);
	assert_int_equal(log.unmaps, 1);
	assert_false(double_grant_is_mapped(GUEST, ref));
	xengnttab_close(xgt);
}

static void a_page_is_pinned_255_times_at_most(void **state)
{
	xengnttab_handle *xgt = xengnttab_open(NULL, 0);
	uint32_t ref = double_grant(GUEST, double_pages_alloc(GUEST, 1), 0, false);
	void *maps[255];

	for (unsigned i = 0; i < 255; i++) {
		maps[i] = xengnttab_map_grant_ref(xgt, GUEST, ref, PROT_READ);
		assert_non_null(maps[i]);
	}
	assert_null(xengnttab_map_grant_ref(xgt, GUEST, ref, PROT_READ));
	assert_int_equal(errno, EINVAL);
	for (unsigned i = 0; i < 255; i++)
		assert_int_equal(xengnttab_unmap(xgt, maps[i], 1), 0);
	xengnttab_close(xgt);
}

static xengnttab_grant_copy_segment_t copy_from(uint32_t domid, uint32_t ref, uint16_t offset,
						uint16_t len, void *to)
{
	return (xengnttab_grant_copy_segment_t){
		.source.foreign = {.ref = ref, .offset = offset, .domid = (uint16_t)domid},
		.dest.virt = to,
		.len = len,
		.flags = GNTCOPY_source_gref,
	};
}

static xengnttab_grant_copy_segment_t copy_to(uint32_t domid, uint32_t ref, uint16_t offset,
					      uint16_t len, void *from)
{
	return (xengnttab_grant_copy_segment_t){
		.source.virt = from,
		.dest.foreign = {.ref = ref, .offset = offset, .domid = (uint16_t)domid},
		.len = len,
		.flags = GNTCOPY_dest_gref,
	};
}

static void copies_have_a_status_each(void **state)
{
	xengnttab_handle *xgt = xengnttab_open(NULL, 0);
	char *page = double_pages_alloc(GUEST, 1), *read_only = double_pages_alloc(GUEST, 1);
	uint32_t ref = double_grant(GUEST, page, 0, false);
	uint32_t ro_ref = double_grant(GUEST, read_only, 0, true);
	uint32_t others_ref = double_grant(GUEST, page, OTHER_GUEST, false);
	uint32_t revoked_ref = double_grant(GUEST, page, 0, false);
	char buffer[4096] = "from dom0";
	xengnttab_grant_copy_segment_t segs[] = {
		copy_to(GUEST, ref, 100, 10, buffer),
		copy_to(GUEST, ro_ref, 0, 10, buffer),
		copy_from(GUEST, others_ref, 0, 10, buffer),
		copy_from(GUEST, revoked_ref, 0, 10, buffer),
		copy_from(GUEST, 1u << 20, 0, 10, buffer),
		copy_from(OTHER_GUEST, ref, 0, 10, buffer),
		copy_from(GUEST, ro_ref, 4086, 10, buffer),
		copy_from(GUEST, ref, 0, 4, buffer),
	};
	static const int16_t expected[] = {
		GNTST_okay,       GNTST_general_error, GNTST_general_error, GNTST_general_error,
		GNTST_bad_gntref, GNTST_bad_domain,    GNTST_okay,          GNTST_bad_page,
	};
	struct double_stats stats;

	assert_int_equal(double_revoke(GUEST, revoked_ref), 0);
	memcpy(read_only + 4086, "from guest", 10);
	/* The 8th segment is the second that touches that page. */
	double_fail_copy(GUEST, ref + 100, GNTST_bad_page, 1);
	assert_int_equal(xengnttab_grant_copy(xgt, 7, segs), 0);
	double_fail_copy(GUEST, ref, GNTST_bad_page, 1);
	assert_int_equal(xengnttab_grant_copy(xgt, 1, &segs[7]), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(segs[i].status, expected[i]);
	assert_string_equal(page + 100, "from dom0");
	assert_memory_equal(buffer, "from guest", 10);
	double_get_stats(&stats);
	assert_int_equal(stats.copy_calls, 2);
	assert_int_equal(stats.copy_segments, 8);
	assert_int_equal(stats.copy_failed, 6);
	assert_int_equal(stats.copy_bad_args, 0);
	xengnttab_close(xgt);
}

/* A call that fails has copied some, and calls the rest okay, too. */
static void failing_copies_look_done(void **state)
{
	xengnttab_handle *xgt = xengnttab_open(NULL, 0);
	char *page = double_pages_alloc(GUEST, 1);
	uint32_t ref = double_grant(GUEST, page, 0, false);
	xengnttab_grant_copy_segment_t segs[40];
	char buffer[40] = {0};

	memset(page, 'g', 4096);
	for (unsigned i = 0; i < 40; i++) {
		segs[i] = copy_from(GUEST, ref, (uint16_t)i, 1, &buffer[i]);
		segs[i].status = GNTST_general_error;
	}
	double_fail(DOUBLE_GNTTAB_COPY, ENOMEM, 0, 1, NULL);
	assert_int_equal(xengnttab_grant_copy(xgt, 40, segs), -1);
	assert_int_equal(errno, ENOMEM);
	for (unsigned i = 0; i < 40; i++) {
		assert_int_equal(segs[i].status, GNTST_okay);
		/* Two batches of 16. */
		assert_int_equal(buffer[i], i < 32 ? 'g' : 0);
	}
	assert_int_equal(xengnttab_grant_copy(xgt, 40, segs), 0);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(buffer[i], 'g');
	xengnttab_close(xgt);
}

static void leaks_are_told(void **state)
{
	struct xs_handle *xs = xs_open(0);
	xenevtchn_handle *xce = xenevtchn_open(NULL, 0);
	xengnttab_handle *xgt = xengnttab_open(NULL, 0);
	uint32_t ref = double_grant(GUEST, double_pages_alloc(GUEST, 1), 0, false);
	char buffer[16];
	xengnttab_grant_copy_segment_t seg = copy_from(GUEST, ref, 4090, 10, buffer);
	xs_transaction_t t;
	void *map;

	/* Three handles; then one thing more each. */
	assert_int_equal(double_leaks(), 3);
	assert_true(xs_watch(xs, "/x", "t"));
	assert_int_equal(double_leaks(), 4);
	t = xs_transaction_start(xs);
	assert_int_equal(double_leaks(), 5);
	assert_true(xenevtchn_bind_interdomain(xce, GUEST, double_evtchn_alloc(GUEST, 0)) > 0);
	assert_int_equal(double_leaks(), 6);
	map = xengnttab_map_grant_ref(xgt, GUEST, ref, PROT_READ);
	assert_int_equal(double_leaks(), 7);

	assert_true(xs_transaction_end(xs, t, true));
	assert_true(xs_unwatch(xs, "/x", "t"));
	xs_close(xs);
	xenevtchn_close(xce);
	assert_int_equal(xengnttab_unmap(xgt, map, 1), 0);
	assert_int_equal(double_leaks(), 1);
	assert_int_equal(xengnttab_grant_copy(xgt, 1, &seg), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(double_leaks(), 2);
	xengnttab_close(xgt);
	assert_int_equal(double_leaks(), 1);
	double_fini();
	double_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(store_keeps_values, setup, teardown),
		cmocka_unit_test_setup_teardown(watches_fire, setup, teardown),
		cmocka_unit_test_setup_teardown(transactions_are_all_or_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(permissions_hold_for_guests, setup, teardown),
		cmocka_unit_test_setup_teardown(history_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(events_are_masked_until_unmasked, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_ends_can_be_bound_again, setup, teardown),
		cmocka_unit_test_setup_teardown(mappings_alias_the_guests_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(mappings_are_limited, setup, teardown),
		cmocka_unit_test_setup_teardown(mappings_are_counted_and_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_page_is_pinned_255_times_at_most, setup,
						teardown),
		cmocka_unit_test_setup_teardown(copies_have_a_status_each, setup, teardown),
		cmocka_unit_test_setup_teardown(failing_copies_look_done, setup, teardown),
		cmocka_unit_test_setup_teardown(leaks_are_told, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

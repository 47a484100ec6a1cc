/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The file is one page of header and then the array, of which the system keeps only what was
 * written to.  It is written by way of a mapping: an entry costs a store, and is safe from the
 * process's death at once.  A store into a hole of a full tmpfs would kill the process, so before a
 * page's first store it is asked for.  A look by way of the mapping would fill holes as well:
 * whoever searches asks the system where data are.
 *
 * The hypervisor gives a handle to the next who asks as soon as its mapping has ended, which is
 * before the thread that has ended it can say so here.  So a thread signs an entry before it ends
 * the mapping, and clears afterwards what still bears its signature.
 *
 * Mappings end with the domain, and the domain with its kernel: a file that another boot of the
 * kernel has left tells nothing any more.
 */
#include "grant/ledger.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "grant/device.h"
#include "grant/tunable.h"

enum {
	LEDGER_PAGE = 4096,
	LEDGER_VERSION = 1,
	HANDLES = 4 << 20, /* more than Xen keeps for a domain, unless told to */
	HANDLES_PER_PAGE = LEDGER_PAGE / sizeof(uint64_t),
	PAGES = HANDLES / HANDLES_PER_PAGE,
	DRIVES = 32,
	ADDRESS_SIZE = 16,
	BOOT_SIZE = 40,
	BUS_BITS = 52, /* of an address, at most */
	RECLAIM_PER_SECOND = 1000,
};
static_assert((int)GRANT_LEDGER_ENDERS < (int)LEDGER_PAGE, "they have an address's lower bits");

static const char magic[8] = "SLUICEGL";

struct header {
	char magic[8]; /* written last */
	uint32_t version;
	uint32_t handles;
	char boot[BOOT_SIZE]; /* which one of the kernel's it was */
	char drives[DRIVES][ADDRESS_SIZE];
};
static_assert(sizeof(struct header) <= LEDGER_PAGE, "the header is a page");

struct file {
	union {
		struct header header;
		char page[LEDGER_PAGE];
	};
	uint64_t bus[HANDLES]; /* 0: no mapping; below the page's bits, who is ending it */
};

struct grant_ledger {
	char *path;
	int fd;
	struct file *file;
	atomic_bool backed[PAGES]; /* known to be no holes */
	/* Entries that are not 0. Last, as it changes with each, and what is above hardly ever. */
	atomic_uint noted;
};

static void read_boot(char boot[BOOT_SIZE])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	memset(boot, 0, BOOT_SIZE);
	if (fd < 0)
		return;
	if (read(fd, boot, BOOT_SIZE - 1) < 0)
		memset(boot, 0, BOOT_SIZE);
	close(fd);
}

static bool is_sane(const struct header *h)
{
	if (memcmp(h->magic, magic, sizeof(magic)) || h->version != LEDGER_VERSION ||
	    h->handles != HANDLES)
		return false;
	for (unsigned i = 0; i < DRIVES; i++)
		if (h->drives[i][ADDRESS_SIZE - 1])
			return false;
	return true;
}

static int refuse(const struct grant_ledger *l, struct err *err)
{
	return err_set(err, -EINVAL,
		       "%s is no ledger that this version of sluiced can read: stop what made it, "
		       "and remove it if no other sluiced has served a drive since this host was "
		       "started (else start the host anew)",
		       l->path);
}

/* Empties the file and gives it its size. */
static int clear(struct grant_ledger *l, struct err *err)
{
	int rc = 0;

	if (ftruncate(l->fd, 0) || ftruncate(l->fd, sizeof(*l->file)))
		rc = -errno;
	if (!rc)
		rc = -posix_fallocate(l->fd, 0, LEDGER_PAGE);
	if (rc)
		return err_set(err, rc, "cannot make the ledger %s: %s", l->path, strerror(-rc));
	return 0;
}

static int prepare(struct grant_ledger *l, struct err *err)
{
	struct header *h = &l->file->header;
	char boot[BOOT_SIZE];
	int rc;

	read_boot(boot);
	/* Without the magic nothing was noted yet when whoever made the file died. */
	if (h->magic[0]) {
		if (!is_sane(h))
			return refuse(l, err);
		if (!memcmp(h->boot, boot, BOOT_SIZE))
			return 0;
		log_info("%s is from before the host was started: forgotten", l->path);
		rc = clear(l, err);
		if (rc)
			return rc;
	}
	h->version = LEDGER_VERSION;
	h->handles = HANDLES;
	memcpy(h->boot, boot, BOOT_SIZE);
	atomic_signal_fence(memory_order_release);
	memcpy(h->magic, magic, sizeof(magic));
	return 0;
}

/* The first page of mappings from @page on that is no hole; PAGES if there is none. */
static size_t find_page(const struct grant_ledger *l, size_t page)
{
	off_t at = lseek(l->fd, (off_t)((page + 1) * LEDGER_PAGE), SEEK_DATA);

	return at < 0 ? PAGES : (size_t)at / LEDGER_PAGE - 1;
}

static int open_file(struct grant_ledger *l, struct err *err)
{
	struct stat st;
	int rc;

	l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (l->fd < 0 || fstat(l->fd, &st))
		return err_set(err, -errno, "cannot open the ledger %s: %s (run as root)", l->path,
			       strerror(errno));
	if (!S_ISREG(st.st_mode) || (st.st_size && st.st_size != sizeof(*l->file)))
		return refuse(l, err);
	if (!st.st_size) {
		rc = clear(l, err);
		if (rc)
			return rc;
	}
	l->file = mmap(NULL, sizeof(*l->file), PROT_READ | PROT_WRITE, MAP_SHARED, l->fd, 0);
	if (l->file == MAP_FAILED) {
		l->file = NULL;
		return err_set(err, -errno, "cannot map the ledger %s: %s", l->path,
			       strerror(errno));
	}
	madvise(l->file, sizeof(*l->file), MADV_DONTDUMP);
	rc = prepare(l, err);
	if (rc)
		return rc;
	for (size_t page = find_page(l, 0); page < PAGES; page = find_page(l, page + 1))
		atomic_init(&l->backed[page], true);
	return 0;
}

static void release(struct grant_ledger *l)
{
	if (l->file)
		munmap(l->file, sizeof(*l->file));
	if (l->fd >= 0)
		close(l->fd);
	free(l->path);
	free(l);
}

int grant_ledger_open(const char *path, struct grant_ledger **out, struct err *err)
{
	struct grant_ledger *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return err_set(err, -ENOMEM, "no memory for a ledger");
	l->fd = -1;
	l->path = strdup(path);
	rc = l->path ? open_file(l, err) : err_set(err, -ENOMEM, "no memory for a ledger");
	if (rc) {
		release(l);
		return rc;
	}
	*out = l;
	return 0;
}

/* The first mapping from @handle on that is noted; HANDLES if none is. */
static uint32_t find(const struct grant_ledger *l, uint32_t handle)
{
	while (handle < HANDLES) {
		size_t page = find_page(l, handle / HANDLES_PER_PAGE);

		if (page > handle / HANDLES_PER_PAGE)
			handle = (uint32_t)(page * HANDLES_PER_PAGE);
		for (; handle < HANDLES && handle / HANDLES_PER_PAGE == page; handle++)
			if (l->file->bus[handle])
				return handle;
	}
	return HANDLES;
}

static bool is_empty(const struct grant_ledger *l)
{
	for (unsigned i = 0; i < DRIVES; i++)
		if (l->file->header.drives[i][0])
			return false;
	return find(l, 0) == HANDLES;
}

void grant_ledger_close(struct grant_ledger *l)
{
	if (is_empty(l))
		unlink(l->path);
	release(l);
}

int grant_ledger_note(struct grant_ledger *l, uint32_t handle, uint64_t bus)
{
	size_t page = handle / HANDLES_PER_PAGE;

	if (handle >= HANDLES)
		return -ENOSPC;
	if (!atomic_load_explicit(&l->backed[page], memory_order_relaxed)) {
		if (posix_fallocate(l->fd, (off_t)((page + 1) * LEDGER_PAGE), LEDGER_PAGE))
			return -ENOSPC;
		atomic_store_explicit(&l->backed[page], true, memory_order_relaxed);
	}
	/* Whoever has ended the mapping that had this handle may not have struck it out yet. */
	if (!__atomic_exchange_n(&l->file->bus[handle], bus, __ATOMIC_RELEASE))
		atomic_fetch_add_explicit(&l->noted, 1, memory_order_relaxed);
	return 0;
}

uint32_t grant_ledger_count(const struct grant_ledger *l)
{
	return atomic_load_explicit(&l->noted, memory_order_relaxed);
}

/* A handle that could not be noted is not in the ledger when its mapping ends. */
static bool is_backed(const struct grant_ledger *l, uint32_t handle)
{
	return handle < HANDLES &&
	       atomic_load_explicit(&l->backed[handle / HANDLES_PER_PAGE], memory_order_relaxed);
}

/* Of the entry, if it is @from; else it is another mapping's. Returns whether it was. */
static bool change(struct grant_ledger *l, uint32_t handle, uint64_t from, uint64_t to)
{
	return is_backed(l, handle) &&
	       __atomic_compare_exchange_n(&l->file->bus[handle], &from, to, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void grant_ledger_end(struct grant_ledger *l, uint32_t handle, uint64_t bus, unsigned who)
{
	change(l, handle, bus, bus | who);
}

void grant_ledger_forget(struct grant_ledger *l, uint32_t handle, uint64_t bus, unsigned who)
{
	if (change(l, handle, bus | who, 0))
		atomic_fetch_sub_explicit(&l->noted, 1, memory_order_relaxed);
}

static char *find_drive(struct grant_ledger *l, const char *address)
{
	for (unsigned i = 0; i < DRIVES; i++)
		if (!strcmp(l->file->header.drives[i], address))
			return l->file->header.drives[i];
	return NULL;
}

int grant_ledger_note_drive(struct grant_ledger *l, const char *address)
{
	size_t len = strlen(address);
	char *slot;

	if (!len || len >= ADDRESS_SIZE)
		return -ENOSPC;
	if (find_drive(l, address))
		return 0;
	slot = find_drive(l, "");
	if (!slot)
		return -ENOSPC;
	/* Its first character makes it count: last. */
	memcpy(slot + 1, address + 1, len);
	atomic_signal_fence(memory_order_release);
	slot[0] = address[0];
	return 0;
}

void grant_ledger_forget_drive(struct grant_ledger *l, const char *address)
{
	char *slot = find_drive(l, address);

	if (slot)
		slot[0] = '\0';
}

static int stop_drives(struct grant_ledger *l,
		       int (*stop)(const char *address, void *arg, struct err *err), void *arg,
		       struct err *err)
{
	for (unsigned i = 0; i < DRIVES; i++) {
		const char *address = l->file->header.drives[i];
		int rc;

		if (!address[0])
			continue;
		rc = stop(address, arg, err);
		if (rc && rc != -ENODEV)
			return rc;
	}
	return 0;
}

/* How many mappings are noted, all with addresses that can be; else -EINVAL. */
static int count(const struct grant_ledger *l, struct err *err)
{
	int n = 0;

	for (uint32_t h = find(l, 0); h < HANDLES; h = find(l, h + 1)) {
		if (l->file->bus[h] >> BUS_BITS || l->file->bus[h] < LEDGER_PAGE)
			return refuse(l, err);
		n++;
	}
	return n;
}

/*
 * A dead process's own pages, which it had granted to itself, go back to the kernel as their
 * mappings have ended: by 10 a second, unless told, so that one that dies again and again would
 * soon have used up the domain's grants. Older kernels cannot be told.
 */
static void hasten_reclaim(void)
{
	uint32_t now;

	if (!grant_tunable_read(GRANT_TUNABLE_RECLAIM, &now) && now < RECLAIM_PER_SECOND &&
	    !grant_tunable_write(GRANT_TUNABLE_RECLAIM, RECLAIM_PER_SECOND))
		log_info("set %s to %u, to have the pages back soon", GRANT_TUNABLE_RECLAIM,
			 (unsigned)RECLAIM_PER_SECOND);
}

static int end_mappings(struct grant_ledger *l, int nr, struct err *err)
{
	struct grant_device *d;
	int left, rc;

	rc = grant_device_create(l, &d, err);
	if (rc)
		return rc;
	for (uint32_t h = find(l, 0); h < HANDLES; h = find(l, h + 1)) {
		/* Whoever has signed it is dead. */
		l->file->bus[h] &= -(uint64_t)LEDGER_PAGE;
		grant_device_unmap(d, l->file->bus[h], h);
	}
	grant_device_flush(d);
	grant_device_destroy(d);
	hasten_reclaim();
	left = count(l, err);
	log_info("ended %d device mappings that a predecessor has left", nr - left);
	/* They hold pages, and do no other harm. */
	if (left)
		log_warning("%d device mappings of a predecessor cannot be ended: their domains "
			    "may never end",
			    left);
	return 0;
}

int grant_ledger_recover(struct grant_ledger *l,
			 int (*stop)(const char *address, void *arg, struct err *err), void *arg,
			 struct err *err)
{
	int nr = count(l, err);
	int rc;

	if (nr < 0)
		return nr;
	atomic_store_explicit(&l->noted, (unsigned)nr, memory_order_relaxed);
	rc = stop_drives(l, stop, arg, err);
	if (!rc && nr)
		rc = end_mappings(l, nr, err);
	if (rc)
		return rc;
	for (unsigned i = 0; i < DRIVES; i++)
		l->file->header.drives[i][0] = '\0';
	return 0;
}

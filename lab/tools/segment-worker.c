/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The side in the guest. It is the adversary: it looks for others' marks wherever a guest can look
 * on the PCI bus, and writes to its doorbell whatever fits in there. For that it goes below the
 * library, to the device's registers.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pci.h"
#include "segment-probe.h"

#define DEVICES "/sys/bus/pci/devices"

enum {
	BARS = 6,
	PATIENCE_MS = 10000,
	NOISE_PEERS = 65536, /* all that the doorbell has bits for */
	NOISE_NEAR = 64,     /* the IDs among which all others of a run are */
	NOISE_VECTORS = 256,
};

struct worker {
	struct sivshm_port *port;
	struct probe_page *page;
	char dir[PATH_MAX]; /* of the own device */
	uint64_t rung;      /* without a command */
};

static volatile uint32_t *registers(struct sivshm_port *port)
{
	return SIVSHM_CONTAINER_OF(port, struct sivshm_pci, port)->registers;
}

static bool has_interrupts(struct sivshm_port *port)
{
	return sivshm_port_fd(port, 0) >= 0;
}

/* Looking */

/* Reads a BAR of another device, if it is memory. */
static void search_bar(const char *dir, unsigned bar, uint64_t owner, uint64_t *results)
{
	char path[PATH_MAX];
	struct stat st;
	void *at;
	int fd;

	snprintf(path, sizeof(path), "%.*s/resource%u", PATH_MAX - 16, dir, bar);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	if (!fstat(fd, &st) && st.st_size > 0) {
		at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (at != MAP_FAILED) {
			probe_search(at, (size_t)st.st_size, owner, &results[PROBE_OWN],
				     &results[PROBE_FOREIGN]);
			munmap(at, (size_t)st.st_size);
			results[PROBE_BARS]++;
			results[PROBE_BYTES] += (uint64_t)st.st_size;
		}
	}
	close(fd);
}

/* Its memory has to be on to be read; a device with a driver has seen to that. */
static void enable(const char *dir)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%.*s/enable", PATH_MAX - 16, dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "1", 1) < 0)
		fprintf(stderr, "segment-probe: %s: %s\n", path, strerror(errno));
	close(fd);
}

static int search(struct worker *w, uint64_t owner)
{
	uint64_t *results = w->page->results, vendor, device;
	char dir[PATH_MAX];
	struct dirent *entry;
	DIR *d = opendir(DEVICES);

	if (!d)
		return -errno;
	memset(results, 0, sizeof(w->page->results));
	probe_search(sivshm_port_memory(w->port), sivshm_port_size(w->port), owner,
		     &results[PROBE_OWN], &results[PROBE_FOREIGN]);
	results[PROBE_BYTES] = sivshm_port_size(w->port);
	while ((entry = readdir(d))) {
		snprintf(dir, sizeof(dir), DEVICES "/%s", entry->d_name);
		if (entry->d_name[0] == '.' || sivshm_pci_sysfs_number(dir, "vendor", &vendor) ||
		    sivshm_pci_sysfs_number(dir, "device", &device))
			continue;
		if (vendor == 0x1af4 && device == 0x1110) {
			results[PROBE_DEVICES]++;
			continue; /* ours has been read */
		}
		enable(dir);
		for (unsigned bar = 0; bar < BARS; bar++)
			search_bar(dir, bar, owner, results);
	}
	closedir(d);
	return 0;
}

/* Ringing */

/* Everybody's doorbells: all peers there can be, and all vectors of those there are. */
static int noise(struct worker *w)
{
	volatile uint32_t *r = registers(w->port);
	unsigned last = sivshm_port_vectors(w->port) - 1;
	uint64_t writes = 0;

	for (uint32_t peer = 0; peer < NOISE_PEERS; peer++) {
		r[SIVSHM_PCI_DOORBELL] = peer << 16;
		r[SIVSHM_PCI_DOORBELL] = peer << 16 | last;
		writes += 2;
	}
	for (uint32_t peer = 0; peer < NOISE_NEAR; peer++) {
		for (uint32_t vector = 0; vector < NOISE_VECTORS; vector++)
			r[SIVSHM_PCI_DOORBELL] = peer << 16 | vector;
		r[SIVSHM_PCI_DOORBELL] = peer << 16 | 0xffff;
		writes += NOISE_VECTORS + 1;
	}
	/* The registers that are not for writing, or not there at all. */
	for (unsigned i = 0; i < SIVSHM_PCI_REGISTERS / sizeof(*r); i++)
		if (i != SIVSHM_PCI_DOORBELL)
			r[i] = UINT32_MAX;
	w->page->results[0] = writes;
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Where rings arrive, only they count; else the memory is looked at. */
static int await_ping(struct worker *w, unsigned vector, uint32_t round)
{
	int64_t end = now_ms() + PATIENCE_MS;

	do {
		int rc = sivshm_port_wait(w->port, vector, PATIENCE_MS);

		if (rc < 0)
			return rc;
		if (rc == 1 && atomic_load(&w->page->ping) == round)
			return 0;
		if (has_interrupts(w->port))
			return rc ? -EBADMSG : -ETIMEDOUT;
	} while (now_ms() < end);
	return -ETIMEDOUT;
}

static int ping(struct worker *w, unsigned vector, uint32_t rounds)
{
	atomic_store(&w->page->pong, PROBE_READY);
	for (uint32_t round = 1; round <= rounds; round++) {
		int rc = await_ping(w, vector, round);

		if (rc)
			return rc;
		atomic_store(&w->page->pong, round);
		rc = sivshm_port_ring(w->port, vector);
		if (rc)
			return rc;
	}
	return 0;
}

static int fence(struct worker *w)
{
	struct probe_fence *f = (void *)((char *)w->page + PROBE_PAGE);
	int64_t end = now_ms() + 3 * PATIENCE_MS;

	for (uint32_t round = 1; round < PROBE_FENCE_ROUNDS; round++) {
		atomic_store(&f->ready[0], round);
		for (unsigned i = 1; atomic_load(&f->ready[1]) != round; i++)
			if (i % 1024 == 0 && now_ms() > end)
				return -ETIMEDOUT;
		probe_fence_round(&f->worker, &f->lead, round, &f->worker_saw[round]);
	}
	return 0;
}

static int count(struct worker *w)
{
	for (unsigned v = 1; v < sivshm_port_vectors(w->port); v++)
		if (sivshm_port_take(w->port, v) == 1)
			w->rung++;
	/* One that is waiting at vector 0 behind the command. */
	if (sivshm_port_take(w->port, 0) == 1)
		w->rung++;
	w->page->results[0] = w->rung;
	w->rung = 0;
	return 0;
}

/* Commands */

static int obey(struct worker *w)
{
	uint64_t *arguments = w->page->arguments;

	switch (w->page->command) {
	case PROBE_MARK:
		probe_mark_pages(sivshm_port_memory(w->port), sivshm_port_size(w->port), 1,
				 arguments[0]);
		return 0;
	case PROBE_SEARCH:
		return search(w, arguments[0]);
	case PROBE_PING:
		return ping(w, (unsigned)arguments[0], (uint32_t)arguments[1]);
	case PROBE_NOISE:
		return noise(w);
	case PROBE_FENCE:
		return fence(w);
	case PROBE_COUNT:
		return count(w);
	case PROBE_BYE:
		return 0;
	}
	return -ENOSYS;
}

static int serve(struct worker *w)
{
	uint32_t known = 0;

	for (;;) {
		int rc = sivshm_port_wait(w->port, 0, -1);
		uint32_t asked = atomic_load(&w->page->asked);

		if (rc < 0)
			return rc;
		if (asked == known) {
			w->rung += has_interrupts(w->port);
			continue;
		}
		known = asked;
		w->page->status = obey(w);
		atomic_store(&w->page->done, asked);
		sivshm_port_ring(w->port, 0);
		if (w->page->command == PROBE_BYE)
			return 0;
	}
}

int probe_worker(const char *where)
{
	struct worker w = {0};
	int rc = sivshm_open(where, PATIENCE_MS, &w.port);

	if (rc) {
		fprintf(stderr, "segment-probe: cannot open a port: %s\n", strerror(-rc));
		return 1;
	}
	w.page = sivshm_port_memory(w.port);
	/* Vectors begin as rung. */
	for (unsigned v = 0; v < sivshm_port_vectors(w.port); v++)
		sivshm_port_take(w.port, v);
	w.page->interrupts = has_interrupts(w.port);
	w.page->results[0] = sivshm_port_id(w.port);
	w.page->results[1] = sivshm_port_peer(w.port);
	w.page->results[2] = sivshm_port_vectors(w.port);
	w.page->results[3] = sivshm_port_size(w.port);
	atomic_store(&w.page->hello, 1);
	rc = sivshm_port_ring(w.port, 0);
	if (!rc)
		rc = serve(&w);
	sivshm_port_close(w.port);
	if (rc)
		fprintf(stderr, "segment-probe: %s\n", strerror(-rc));
	return rc ? 1 : 0;
}

/* The device of a classic server has IDs that sivshm_open() does not take. */
int probe_first_ring(const char *peer)
{
	struct sivshm_pci pci = {.lock_fd = -1, .group = -1, .container = -1, .fd = -1};
	uint64_t vendor, device;
	struct dirent *entry;
	uint32_t id;
	DIR *d = opendir(DEVICES);
	int rc = -ENODEV;

	while (rc == -ENODEV && d && (entry = readdir(d))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(pci.dir, sizeof(pci.dir), DEVICES "/%.32s", entry->d_name);
		if (!sivshm_pci_sysfs_number(pci.dir, "vendor", &vendor) && vendor == 0x1af4 &&
		    !sivshm_pci_sysfs_number(pci.dir, "device", &device) && device == 0x1110)
			rc = sivshm_pci_sysfs_open(&pci);
	}
	if (rc) {
		fprintf(stderr, "segment-probe: cannot open the device: %s\n", strerror(-rc));
		return 1;
	}
	id = pci.registers[SIVSHM_PCI_POSITION];
	id = strcmp(peer, "pair") ? (uint32_t)strtoul(peer, NULL, 10) : id ^ 1;
	pci.registers[SIVSHM_PCI_DOORBELL] = id << 16;
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The handler runs in the thread that faulted, at any place in the driver, perhaps in several
 * threads for the same BAR.  So it reads a table without a lock, and makes one system call that may
 * as well be made twice: it maps the ones over the whole BAR.  They are in a memory file made
 * beforehand, because filling memory after it was put in place would let another thread see it
 * half done.
 */
#include "nvme/bar.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BARS_MAX = 256 };

/* A BAR is in the table while it is mapped, and before anybody may use it. */
static struct range {
	uintptr_t start; /* 0: free */
	size_t len;
} ranges[BARS_MAX];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int ones_fd = -1;
static struct sigaction before;

static bool put_ones(uintptr_t at)
{
	for (unsigned i = 0; i < BARS_MAX; i++) {
		/* Pairs with the release in add(): the length is that of this range. */
		uintptr_t start = __atomic_load_n(&ranges[i].start, __ATOMIC_ACQUIRE);
		size_t len = __atomic_load_n(&ranges[i].len, __ATOMIC_RELAXED);

		if (start && at - start < len)
			return mmap((void *)start, len, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_FIXED, ones_fd, 0) != MAP_FAILED;
	}
	return false;
}

static void on_bus_error(int sig, siginfo_t *info, void *context)
{
	int error = errno;

	/* Positive codes are the kernel's, for an access; others were sent by somebody. */
	if (info->si_code <= 0 || !put_ones((uintptr_t)info->si_addr)) {
		sigaction(SIGBUS, &before, NULL);
		/* An access will be tried again and fault again; what was sent has to be sent. */
		if (info->si_code <= 0)
			raise(SIGBUS);
	}
	errno = error;
}

static int make_ones(void)
{
	unsigned char page[4096];
	int fd = memfd_create("ones", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	memset(page, 0xff, sizeof(page));
	for (size_t done = 0; done < NVME_BAR_MAX; done += sizeof(page)) {
		if (pwrite(fd, page, sizeof(page), (off_t)done) != (ssize_t)sizeof(page)) {
			close(fd);
			return -ENOMEM;
		}
	}
	ones_fd = fd;
	return 0;
}

/*
 * For good: a handler that goes away might be missed. But others install handlers too, and then
 * ours goes in front of theirs with the next BAR.
 */
static int install(void)
{
	struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO}, now;
	int rc = ones_fd < 0 ? make_ones() : 0;

	if (rc)
		return rc;
	if (sigaction(SIGBUS, NULL, &now))
		return -errno;
	if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_bus_error)
		return 0;
	before = now;
	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, NULL) ? -errno : 0;
}

static int add(uintptr_t start, size_t len)
{
	for (unsigned i = 0; i < BARS_MAX; i++) {
		if (ranges[i].start)
			continue;
		__atomic_store_n(&ranges[i].len, len, __ATOMIC_RELAXED);
		/* Pairs with the acquire in put_ones(). */
		__atomic_store_n(&ranges[i].start, start, __ATOMIC_RELEASE);
		return 0;
	}
	return -ENOSPC;
}

int nvme_bar_map(int fd, off_t offset, size_t len, volatile void **bar)
{
	void *at;
	int rc;

	if (!len || len > NVME_BAR_MAX)
		return -EINVAL;
	pthread_mutex_lock(&lock);
	rc = install();
	if (!rc) {
		at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
		if (at == MAP_FAILED)
			rc = -errno;
	}
	if (!rc) {
		rc = add((uintptr_t)at, len);
		if (rc)
			munmap(at, len);
		else
			*bar = at;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

void nvme_bar_unmap(volatile void *bar)
{
	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < BARS_MAX; i++) {
		if (ranges[i].start != (uintptr_t)bar)
			continue;
		/* Out of the table first: whoever is put there next is not to be overwritten. */
		__atomic_store_n(&ranges[i].start, 0, __ATOMIC_RELEASE);
		munmap((void *)(uintptr_t)bar, ranges[i].len);
	}
	pthread_mutex_unlock(&lock);
}

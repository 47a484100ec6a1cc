/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files and block devices: opening, locking, measuring, discarding.
 *
 * Locks.  Two writers of one image destroy it, and neither notices until its guest does.  So a
 * block device is opened exclusively, as mount does, and every file is locked with open file
 * description locks, which belong to the descriptor: they hold between two bdevs of one daemon,
 * between daemons, and are gone when the process is.
 *
 * A plain read or write lock over the whole file cannot tell all cases apart: a lone reader must
 * get along with readers and with no writer, while writers that share must get along with each
 * other.  QEMU has the same need and has settled on bytes of the file that stand for what a user
 * does (100 + n) and for what it forbids others (200 + n), read-locked by as many as like; whoever
 *comes asks whether somebody forbids what it does, or does what it forbids.  We speak that
 * language, so that an image QEMU runs from conflicts, or is shared, exactly as among ourselves:
 *
 *	                    holds                     asks that nobody holds
 *	sole writer         all bytes, write-locked   (the lock says it)
 *	sharing writer      reads, writes             forbids-reading, forbids-writing
 *	sole reader         reads, forbids-writing    forbids-reading, writes
 *	sharing reader      reads                     forbids-reading
 *
 * Each takes its locks before it asks, so that of two who come at once at least one sees the other.
 */
#include "bdev/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/log.h"

/*
 * Bytes of one READ or WRITE: the lengths that the kernel's interfaces carry are 32 bits wide,
 * and no transfer of a guest comes near.
 */
#define IO_MAX (1u << 30)
/* Pieces of one READ or WRITE: as many as readv(2) takes. */
#define IOV_PIECES_MAX 1024
/*
 * Bytes of one DISCARD. A helper thread is busy with it as long as the kernel is, and there are
 * few: pieces let others in between.
 */
#define DISCARD_MAX (1u << 30)

enum {
	BYTE_READS = 100,
	BYTE_WRITES = 101,
	BYTE_FORBIDS_READING = 200,
	BYTE_FORBIDS_WRITING = 201,
};

static int set_lock(int fd, short type, off_t start, off_t len)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(fd, F_OFD_SETLK, &lock) ? -errno : 0;
}

/* -EAGAIN: somebody else has a lock on the byte. */
static int check_free(int fd, off_t byte)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	if (fcntl(fd, F_OFD_GETLK, &lock))
		return -errno;
	return lock.l_type == F_UNLCK ? 0 : -EAGAIN;
}

static int take_locks(int fd, bool write, bool shared)
{
	int rc;

	if (write && !shared)
		return set_lock(fd, F_WRLCK, 0, 0);
	rc = set_lock(fd, F_RDLCK, BYTE_READS, 1);
	if (!rc && write)
		rc = set_lock(fd, F_RDLCK, BYTE_WRITES, 1);
	if (!rc && !shared)
		rc = set_lock(fd, F_RDLCK, BYTE_FORBIDS_WRITING, 1);
	if (!rc)
		rc = check_free(fd, BYTE_FORBIDS_READING);
	if (!rc && write)
		rc = check_free(fd, BYTE_FORBIDS_WRITING);
	if (!rc && !shared)
		rc = check_free(fd, BYTE_WRITES);
	return rc;
}

static int lock_file(struct bdev_file *f, struct err *err)
{
	int rc = take_locks(f->fd, !f->bdev.readonly, f->bdev.shared);

	if (!rc)
		return 0;
	if (rc == -EAGAIN || rc == -EACCES)
		return err_set(err, -EBUSY,
			       "%.200s is locked by another bdev, daemon or virtual machine: close "
			       "it there, or have both ask to share it (--shared)",
			       f->filename);
	if (!f->bdev.shared)
		return err_set(
			err, rc,
			"%.200s cannot be locked (%s): use a file system with locks, or give "
			"--shared to go without",
			f->filename, strerror(-rc));
	log_warning("%s cannot be locked (%s): nothing keeps others from writing to it",
		    f->filename, strerror(-rc));
	return 0;
}

static int open_error(const struct bdev_file *f, int error, struct err *err)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
		return err_set(err, -ENOENT,
			       "%.120s does not exist: check the path, or create it first, e.g. "
			       "\"truncate -s 10G %.120s\"",
			       f->filename, f->filename);
	case EBUSY:
		return err_set(
			err, -EBUSY,
			"%.200s is mounted or in use: unmount it, or stop what uses it (lsblk "
			"and fuser show it)",
			f->filename);
	case EROFS:
		return err_set(err, -EROFS, "%.200s cannot be written to: use it with --readonly",
			       f->filename);
	case EACCES:
	case EPERM:
		return err_set(err, -error,
			       "no permission to open %.200s%s: run sluiced as a user that may%s",
			       f->filename, f->bdev.readonly ? "" : " for writing",
			       f->bdev.readonly ? "" : ", or use it with --readonly");
	default:
		return err_set(err, -error,
			       "cannot open %.200s: %s: check that it is ready for use",
			       f->filename, strerror(error));
	}
}

static int type_error(const struct bdev_file *f, mode_t mode, struct err *err)
{
	if (S_ISDIR(mode))
		return err_set(err, -EISDIR,
			       "%.200s is a directory: name a file in it, or a block device",
			       f->filename);
	return err_set(err, -EINVAL,
		       "%.200s is neither a file nor a block device: name one of these",
		       f->filename);
}

/* Whether somebody holds the device exclusively, for longer than another who only asks this. */
static bool is_held(const struct bdev_file *f)
{
	for (int tries = 0; tries < 5; tries++) {
		int fd = open(f->filename, O_RDONLY | O_EXCL | O_CLOEXEC);

		if (fd >= 0)
			close(fd);
		if (fd >= 0 || errno != EBUSY)
			return false;
		usleep(2000);
	}
	return true;
}

static int open_file(struct bdev_file *f, struct err *err)
{
	int flags = O_CLOEXEC | (f->bdev.readonly ? O_RDONLY : O_RDWR);
	struct stat st, opened;

	/* Before it is opened: opening a FIFO could wait for ever, and some devices act on it. */
	if (stat(f->filename, &st))
		return open_error(f, errno, err);
	f->device = S_ISBLK(st.st_mode);
	f->rdev = st.st_rdev;
	if (!f->device && !S_ISREG(st.st_mode))
		return type_error(f, st.st_mode, err);
	if (f->device && !f->bdev.shared)
		flags |= O_EXCL;
	/* Sharing is among those who asked for it: a mount, or anyone else, did not. */
	if (f->device && f->bdev.shared && is_held(f))
		return open_error(f, EBUSY, err);
	f->direct = true;
	f->fd = open(f->filename, flags | O_DIRECT);
	if (f->fd < 0 && errno == EINVAL) {
		f->direct = false;
		f->fd = open(f->filename, flags);
	}
	if (f->fd < 0)
		return open_error(f, errno, err);
	/* The name may have come to mean something else in between. */
	if (fstat(f->fd, &opened) || opened.st_dev != st.st_dev || opened.st_ino != st.st_ino)
		return open_error(f, ESTALE, err);
	return 0;
}

/*
 * Reads a value of the device's directory in sysfs, e.g. "queue/write_cache"; a partition has no
 * queue, its disk above has.
 */
static bool read_sysfs(const struct bdev_file *f, const char *name, char *value, int size)
{
	static const char *const parents[] = {"", "../"};
	bool found = false;

	for (int i = 0; i < 2 && !found; i++) {
		char path[128];
		FILE *file;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s%s", major(f->rdev),
			 minor(f->rdev), parents[i], name);
		file = fopen(path, "re");
		if (!file)
			continue;
		found = fgets(value, size, file);
		fclose(file);
	}
	return found;
}

static uint64_t read_sysfs_u64(const struct bdev_file *f, const char *name)
{
	char value[32];

	return read_sysfs(f, name, value, sizeof(value)) ? strtoull(value, NULL, 10) : 0;
}

/* What O_DIRECT wants of memory and of offsets; zeros: it is refused. */
struct alignment {
	uint32_t mem;
	uint32_t offset;
};

/* For kernels that do not tell: what a read of the beginning gets away with. */
static int probe_alignment(const struct bdev_file *f, struct alignment *align)
{
	static const struct alignment guesses[] = {{512, 512}, {4096, 4096}, {0, 0}};
	char *page;
	int rc = 0;

	if (posix_memalign((void **)&page, 4096, 8192))
		return -ENOMEM;
	for (size_t i = 0; i < sizeof(guesses) / sizeof(guesses[0]); i++) {
		*align = guesses[i];
		if (!align->mem)
			break;
		/* Aligned as guessed and no better. */
		if (pread(f->fd, page + align->mem % 4096, align->offset, 0) >= 0)
			break;
		if (errno != EINVAL) {
			rc = -errno;
			break;
		}
	}
	free(page);
	return rc;
}

static int get_alignment(const struct bdev_file *f, struct alignment *align)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) &&
	    stx.stx_mask & STATX_DIOALIGN) {
		align->mem = stx.stx_dio_mem_align;
		align->offset = stx.stx_dio_offset_align;
		return 0;
	}
#endif
	return probe_alignment(f, align);
}

/* Turns to the page cache, which takes any offset and any memory. */
static int use_page_cache(struct bdev_file *f)
{
	int flags = fcntl(f->fd, F_GETFL);

	f->direct = false;
	return flags < 0 || fcntl(f->fd, F_SETFL, flags & ~O_DIRECT) ? -errno : 0;
}

static int measure_alignment(struct bdev_file *f, struct err *err)
{
	struct bdev_limits *limits = &f->bdev.limits;
	struct alignment align = {0, 0};
	int rc = 0;

	limits->block_size = 512;
	limits->mem_align = 1;
	if (f->direct) {
		rc = get_alignment(f, &align);
		if (!rc && (!align.mem || align.offset > 4096))
			rc = use_page_cache(f);
	}
	if (rc)
		return err_set(err, rc, "cannot read %.200s: %s: check the disk it is on",
			       f->filename, strerror(-rc));
	if (!f->direct) {
		log_warning(
			"%s: its file system has no direct I/O: data goes through the page cache",
			f->filename);
		return 0;
	}
	if (align.offset > 512)
		limits->block_size = 4096;
	limits->mem_align = align.mem;
	return 0;
}

/*
 * Whether the device erases on demand.  Since 5.19 the kernel looks for that before it looks at the
 * range, so a range that cannot be read tells and changes nothing; before, it said so of every
 * device, and some only passed an ordinary discard on: those are not believed.
 */
static bool can_erase(const struct bdev_file *f)
{
	unsigned major_version, minor_version;
	struct utsname host;

	if (uname(&host) || sscanf(host.release, "%u.%u", &major_version, &minor_version) != 2 ||
	    major_version < 5 || (major_version == 5 && minor_version < 19))
		return false;
	return ioctl(f->fd, BLKSECDISCARD, NULL) && errno == EFAULT;
}

static int measure_device(struct bdev_file *f, struct err *err)
{
	struct bdev_limits *limits = &f->bdev.limits;
	int logical = 0, protected = 0;
	unsigned physical = 0;
	char cache[32];
	uint64_t max;

	if (ioctl(f->fd, BLKGETSIZE64, &f->bdev.size) || ioctl(f->fd, BLKSSZGET, &logical) ||
	    ioctl(f->fd, BLKPBSZGET, &physical) || ioctl(f->fd, BLKROGET, &protected))
		return err_set(err, -errno, "cannot ask %.200s for its size: %s: check the device",
			       f->filename, strerror(errno));
	/* Not every driver minds when such a device is opened for writing. */
	if (protected && !f->bdev.readonly)
		return open_error(f, EROFS, err);
	if (logical != 512 && logical != 4096)
		return err_set(err, -EINVAL,
			       "%.200s has blocks of %d bytes: use a device with 512 or 4096",
			       f->filename, logical);
	limits->block_size = (uint32_t)logical;
	limits->physical_block_size = physical;
	limits->write_cache = !f->direct ||
			      !read_sysfs(f, "queue/write_cache", cache, sizeof(cache)) ||
			      strncmp(cache, "write through", 13);
	/* What is left over at the end is no whole block: the kernel does not reach it either. */
	f->bdev.size -= f->bdev.size % (unsigned)logical;
	max = read_sysfs_u64(f, "queue/discard_max_bytes");
	limits->discard = max && !f->bdev.readonly;
	limits->discard_granularity = (uint32_t)read_sysfs_u64(f, "queue/discard_granularity");
	limits->discard_alignment = (uint32_t)read_sysfs_u64(f, "discard_alignment");
	limits->secure_discard = limits->discard && can_erase(f);
	return 0;
}

/*
 * Whether holes can be punched, tried where it changes nothing: behind the end of the file. What
 * is unclear counts as yes: a discard that is refused later is harmless (see discard_run()).
 */
static bool can_punch(const struct bdev_file *f)
{
	const off_t step = 1 << 20;
	off_t behind = ((off_t)f->bdev.size / step + 1) * step;

	return !fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, behind, step) ||
	       (errno != EOPNOTSUPP && errno != ENOSYS);
}

static int measure_regular(struct bdev_file *f, struct err *err)
{
	struct bdev_limits *limits = &f->bdev.limits;
	struct stat st;

	if (fstat(f->fd, &st))
		return open_error(f, errno, err);
	f->bdev.size = (uint64_t)st.st_size;
	limits->physical_block_size = 4096;
	/* Even past the page cache, what says where the data is waits in memory for a flush. */
	limits->write_cache = true;
	limits->discard = !f->bdev.readonly && can_punch(f);
	limits->discard_granularity = st.st_blksize > 512 ? (uint32_t)st.st_blksize : 512;
	return 0;
}

static int check_size(const struct bdev_file *f, struct err *err)
{
	uint64_t size = f->bdev.size;
	uint32_t block = f->bdev.limits.block_size;

	if (!size && f->device)
		return err_set(err, -EINVAL, "%.200s has no size: is there a medium in it?",
			       f->filename);
	if (!size)
		return err_set(err, -EINVAL,
			       "%.120s is empty: give it a size, e.g. \"truncate -s 10G %.120s\"",
			       f->filename, f->filename);
	if (size % block)
		return err_set(err, -EINVAL,
			       "%.120s has %" PRIu64
			       " bytes, which is no multiple of %u: extend it, "
			       "e.g. \"truncate -s %%%u %.120s\"",
			       f->filename, size, block, block, f->filename);
	return 0;
}

static int measure(struct bdev_file *f, struct err *err)
{
	struct bdev_limits *limits = &f->bdev.limits;
	int rc = measure_alignment(f, err);

	if (!rc)
		rc = f->device ? measure_device(f, err) : measure_regular(f, err);
	if (!rc)
		rc = check_size(f, err);
	if (rc)
		return rc;
	limits->max_iov = IOV_PIECES_MAX;
	limits->max_io = IO_MAX;
	limits->discard_max = limits->discard ? DISCARD_MAX : 0;
	return 0;
}

static void free_file(struct bdev_file *f)
{
	if (f->fd >= 0)
		close(f->fd); /* and with it the locks */
	free(f->filename);
	free(f);
}

int bdev_file_create(const struct bdev_ops *ops, const char *name,
		     const struct bdev_file_opts *opts, struct bdev **out, struct err *err)
{
	struct bdev_file *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return err_set(err, -ENOMEM, "no memory left for a bdev");
	f->fd = -1;
	f->bdev.ops = ops;
	f->bdev.readonly = opts->readonly;
	f->bdev.shared = opts->shared;
	rc = bdev_set_name(&f->bdev, name, err);
	if (rc)
		goto fail;
	if (opts->filename[0] != '/') {
		/* The daemon's directory is not the user's, nor its successor's. */
		rc = err_set(err, -EINVAL, "\"%.200s\" is no absolute path: begin it with /",
			     opts->filename);
		goto fail;
	}
	f->filename = strdup(opts->filename);
	if (!f->filename) {
		rc = err_set(err, -ENOMEM, "no memory left for a bdev");
		goto fail;
	}
	rc = open_file(f, err);
	if (!rc)
		rc = lock_file(f, err);
	if (!rc)
		rc = measure(f, err);
	if (!rc)
		rc = bdev_register(&f->bdev, err);
	if (rc)
		goto fail;
	if (out)
		*out = &f->bdev;
	return 0;
fail:
	free_file(f);
	return rc;
}

void bdev_file_destroy(struct bdev *b)
{
	free_file(bdev_file_of(b));
}

int bdev_file_probe_open(const struct bdev *b)
{
	const struct bdev_file *f = container_of(b, const struct bdev_file, bdev);
	char path[32];
	int fd;

	/* By the descriptor: the name may have come to mean another file. O_PATH does not open it.
	 */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	fd = open(path, O_PATH | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int bdev_file_probe_measure(int fd, uint64_t *size)
{
	unsigned long long sectors;
	char path[64];
	struct stat st;
	FILE *file;
	int n;

	if (fstat(fd, &st))
		return -errno;
	*size = (uint64_t)st.st_size;
	if (!S_ISBLK(st.st_mode))
		return 0;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/size", major(st.st_rdev),
		 minor(st.st_rdev));
	file = fopen(path, "re");
	if (!file)
		return -errno;
	n = fscanf(file, "%llu", &sectors);
	fclose(file);
	/* In units of 512 bytes whatever the device's blocks are. */
	if (n != 1 || __builtin_mul_overflow(sectors, 512, size))
		return -EIO;
	return 0;
}

json_t *bdev_file_config(const struct bdev *b)
{
	const struct bdev_file *f = container_of(b, const struct bdev_file, bdev);

	return json_pack("{s:s, s:s, s:b, s:b}", "name", b->name, "filename", f->filename,
			 "readonly", b->readonly, "shared", b->shared);
}

/* Discards and flushes */

static void discard_run(struct helper_job *job)
{
	struct bdev_io *io = container_of(job, struct bdev_io, job);
	struct bdev_file *f = bdev_file_of(io->ch->bdev);
	uint64_t range[2] = {io->offset, io->len};
	int rc;

	io->result = 0;
	if (!io->secure && atomic_load_explicit(&f->discard_refused, memory_order_relaxed))
		return;
	do {
		if (f->device)
			rc = ioctl(f->fd, io->secure ? BLKSECDISCARD : BLKDISCARD, range);
		else
			rc = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       (off_t)io->offset, (off_t)io->len);
	} while (rc && errno == EINTR);
	if (!rc)
		return;
	if (!io->secure && (errno == EOPNOTSUPP || errno == ENOSYS)) {
		/* It is only a hint, so ignoring it is right; an error would alarm the guest. */
		atomic_store_explicit(&f->discard_refused, true, memory_order_relaxed);
		log_warning("bdev \"%s\": %s takes no discards after all: ignoring them",
			    f->bdev.name, f->filename);
		return;
	}
	io->result = -errno;
}

static void flush_run(struct helper_job *job)
{
	struct bdev_io *io = container_of(job, struct bdev_io, job);
	int rc;

	do
		rc = fdatasync(bdev_file_of(io->ch->bdev)->fd);
	while (rc && errno == EINTR);
	io->result = rc ? -errno : 0;
}

static void log_failure(const struct bdev_io *io)
{
	static const char *const names[] = {"read", "write", "flush", "discard"};
	struct log_limit *limit = &bdev_file_channel_of(io->ch)->errors;
	struct bdev *b = io->ch->bdev;
	const char *filename = bdev_file_of(b)->filename;

	if (io->op == BDEV_FLUSH)
		log_limited(limit, LOG_LEVEL_ERROR, "bdev \"%s\": flush of %s failed: %s", b->name,
			    filename, strerror(-io->result));
	else
		log_limited(limit, LOG_LEVEL_ERROR,
			    "bdev \"%s\": %s of %" PRIu64 " bytes at %" PRIu64 " of %s failed: %s",
			    b->name, names[io->op], io->len, io->offset, filename,
			    strerror(-io->result));
}

void bdev_file_complete(struct bdev_io *io, int result)
{
	io->result = result;
	if (result)
		log_failure(io);
	io->done(io);
}

static void job_done(struct helper_job *job)
{
	struct bdev_io *io = container_of(job, struct bdev_io, job);

	bdev_file_complete(io, io->result);
}

static void run_job(struct bdev_io *io, void (*run)(struct helper_job *job))
{
	struct helper_pool *helpers = reactor_helpers(io->ch->reactor);

	io->job.run = run;
	io->job.done = job_done;
	if (!helpers) {
		run(&io->job);
		job_done(&io->job);
	} else if (io->op == BDEV_DISCARD) {
		/* However many a guest sends, another's flush finds a thread. */
		helper_submit_bulk(helpers, io->ch->reactor, &io->job);
	} else {
		helper_submit(helpers, io->ch->reactor, &io->job);
	}
}

void bdev_file_discard(struct bdev_io *io)
{
	run_job(io, discard_run);
}

void bdev_file_flush(struct bdev_io *io)
{
	run_job(io, flush_run);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opening and locking: what is refused and how it is put, who gets along with whom, and what is
 * measured of files and block devices.  The source is compiled in, for what only older kernels
 * need.
 */
#include "bdev/file.c"

#include <linux/blkpg.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../fds.h"
#include "test_bdev_util.h"

#define MIB (1ULL << 20)

static struct err err; /* of the last create() */

/* Both engines open files the same way; aio runs on every kernel. */
static int create(const char *name, const char *path, bool readonly, bool shared)
{
	struct bdev_file_opts opts = {.filename = path, .readonly = readonly, .shared = shared};

	memset(&err, 0, sizeof(err));
	return bdev_aio_create(name, &opts, NULL, &err);
}

static bool err_has(const char *part)
{
	if (strstr(err.text, part) && !strchr(err.text, '\n'))
		return true;
	print_error("not in the error: \"%s\"\nthe error: \"%s\"\n", part, err.text);
	return false;
}

static int teardown(void **state)
{
	bdev_delete_all();
	test_files_remove();
	return 0;
}

/* Runs @fn in a child, for what cannot be taken back; its exit code: 0 is good. */
enum { CHILD_CANNOT = 77 };
static int run_child(int (*fn)(const char *path), const char *path)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(fn(path));
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#define SKIP_UNLESS(condition, reason)                              \
	do {                                                        \
		if (!(condition)) {                                 \
			print_message("[  SKIPPED ] %s\n", reason); \
			teardown(NULL);                             \
			skip();                                     \
		}                                                   \
	} while (0)

/* Refusals */

static void test_refused_paths(void **state)
{
	char path[128];
	unsigned fds = fds_count();

	assert_int_equal(create("x", "disk.img", false, false), -EINVAL);
	assert_true(err_has("\"disk.img\" is no absolute path: begin it with /"));
	assert_int_equal(create("x", "", false, false), -EINVAL);
	assert_int_equal(create("x", "/nonexistent/disk.img", false, false), -ENOENT);
	assert_true(err_has("/nonexistent/disk.img does not exist"));
	assert_true(err_has("truncate -s 10G /nonexistent/disk.img"));
	assert_int_equal(create("x", "/var", false, false), -EISDIR);
	assert_true(err_has("/var is a directory: name a file in it"));
	assert_int_equal(create("x", "/dev/null", false, false), -EINVAL);
	assert_true(err_has("/dev/null is neither a file nor a block device"));
	/* Must not wait for a writer that never comes. */
	snprintf(path, sizeof(path), "%s", test_file(TEST_DISK, 0));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(create("x", path, true, false), -EINVAL);
	assert_true(err_has("is neither a file nor a block device"));
	/* The name is checked before the file is looked at. */
	assert_int_equal(create("a b", "/nonexistent/disk.img", false, false), -EINVAL);
	assert_true(err_has("no name for a bdev"));

	assert_null(bdev_next(NULL));
	assert_int_equal(fds_count(), fds);
}

static void test_refused_sizes(void **state)
{
	const char *path = test_file(TEST_DISK, 0);
	unsigned fds = fds_count();

	assert_int_equal(create("x", path, false, false), -EINVAL);
	assert_true(err_has("is empty: give it a size"));
	assert_int_equal(truncate(path, 1000), 0);
	assert_int_equal(create("x", path, false, false), -EINVAL);
	assert_true(err_has("has 1000 bytes, which is no multiple of"));
	assert_true(err_has("truncate -s %"));
	assert_true(err_has(path));
	assert_int_equal(fds_count(), fds);
	/* The remedy helps. */
	assert_int_equal(truncate(path, 4096), 0);
	assert_int_equal(create("x", path, false, false), 0);
	assert_int_equal(bdev_find("x")->size, 4096);
}

static void test_long_path(void **state)
{
	char path[3000];

	memset(path, 'x', sizeof(path) - 1);
	for (size_t i = 0; i < sizeof(path); i += 200)
		path[i] = '/';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(create("x", path, false, false), -ENOENT);
	assert_true(err_has("truncate -s 10G"));
	memset(path + 1, 'x', sizeof(path) - 2);
	assert_int_equal(create("x", path, false, false), -ENAMETOOLONG);
	assert_true(err_has("too long"));
}

static int as_nobody(const char *path)
{
	if (setresuid(65534, 65534, 65534))
		return CHILD_CANNOT;
	if (create("x", path, false, false) != -EACCES)
		return 1;
	if (!err_has("no permission to open") || !err_has("for writing") ||
	    !err_has("or use it with --readonly"))
		return 2;
	if (create("x", path, true, false))
		return 3;
	bdev_delete_all();
	return 0;
}

static int as_nobody_unreadable(const char *path)
{
	if (setresuid(65534, 65534, 65534))
		return CHILD_CANNOT;
	return create("x", path, true, false) == -EACCES && !strstr(err.text, "--readonly") ? 0 : 1;
}

static void test_permission(void **state)
{
	const char *path = test_file(TEST_DISK, MIB);

	SKIP_UNLESS(!geteuid(), "needs root, to become somebody else");
	assert_int_equal(chmod(path, 0444), 0);
	assert_int_equal(run_child(as_nobody, path), 0);
	assert_int_equal(chmod(path, 0), 0);
	assert_int_equal(run_child(as_nobody_unreadable, path), 0);
}

static int on_readonly_mount(const char *path)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount(path, path, NULL, MS_BIND, NULL) ||
	    mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL))
		return CHILD_CANNOT;
	if (create("x", path, false, false) != -EROFS)
		return 1;
	if (!err_has("cannot be written to: use it with --readonly"))
		return 2;
	if (create("x", path, true, false))
		return 3;
	bdev_delete_all();
	return 0;
}

static void test_readonly_mount(void **state)
{
	int rc = run_child(on_readonly_mount, test_file(TEST_DISK, MIB));

	SKIP_UNLESS(rc != CHILD_CANNOT, "needs root, to mount");
	assert_int_equal(rc, 0);
}

static void test_same_name(void **state)
{
	const char *path = test_file(TEST_DISK, MIB);

	assert_int_equal(create("x", path, false, false), 0);
	/* That the name is taken says more than that the file is locked. */
	assert_int_equal(create("x", path, false, false), -EEXIST);
	assert_true(err_has("there is a bdev \"x\" already"));
}

/* Makes system call @nr fail with @error, as a container's filter does. */
static bool forbid(unsigned nr, unsigned error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 4, .filter = code};

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int uring_forbidden(const char *path)
{
	struct bdev_file_opts opts = {.filename = path};

	if (!forbid(SYS_io_uring_setup, EPERM))
		return CHILD_CANNOT;
	if (bdev_uring_create("x", &opts, NULL, &err) != -ENOSYS)
		return 1;
	return err_has("forbids io_uring") && err_has("use \"aio\"") ? 0 : 2;
}

static int uring_missing(const char *path)
{
	struct bdev_file_opts opts = {.filename = path};

	if (!forbid(SYS_io_uring_setup, ENOSYS))
		return CHILD_CANNOT;
	if (bdev_uring_create("x", &opts, NULL, &err) != -ENOSYS)
		return 1;
	if (!err_has("has no io_uring: use \"aio\""))
		return 2;
	/* And that remedy helps. */
	if (bdev_aio_create("x", &opts, NULL, &err))
		return 3;
	bdev_delete_all();
	return 0;
}

static int aio_missing(const char *path)
{
	if (!forbid(SYS_io_setup, ENOSYS))
		return CHILD_CANNOT;
	if (create("x", path, false, false) != -ENOSYS)
		return 1;
	return err_has("has no Linux aio: use \"uring\"") ? 0 : 2;
}

static int aio_exhausted(const char *path)
{
	if (!forbid(SYS_io_setup, EAGAIN))
		return CHILD_CANNOT;
	if (create("x", path, false, false) != -EAGAIN)
		return 1;
	return err_has("raise the sysctl fs.aio-max-nr") ? 0 : 2;
}

static void test_engine_missing(void **state)
{
	static int (*const cases[])(const char *path) = {uring_forbidden, uring_missing,
							 aio_missing, aio_exhausted};
	const char *path = test_file(TEST_DISK, MIB);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int rc = run_child(cases[i], path);

		SKIP_UNLESS(rc != CHILD_CANNOT, "this kernel has no seccomp filters");
		assert_int_equal(rc, 0);
	}
}

/* Locks */

static const struct mode {
	const char *name;
	bool readonly, shared;
} modes[] = {
	{"sole writer", false, false},
	{"sharing writer", false, true},
	{"sole reader", true, false},
	{"sharing reader", true, true},
};
enum { SOLE_WRITER, SHARING_WRITER, SOLE_READER, SHARING_READER, MODES };

/* Whether the second is let in where the first is. */
static const bool friends[MODES][MODES] = {
	[SHARING_WRITER][SHARING_WRITER] = true, [SHARING_WRITER][SHARING_READER] = true,
	[SHARING_READER][SHARING_WRITER] = true, [SHARING_READER][SHARING_READER] = true,
	[SOLE_READER][SOLE_READER] = true,       [SOLE_READER][SHARING_READER] = true,
	[SHARING_READER][SOLE_READER] = true,
};

static const struct mode *child_mode;

static int open_in_child(const char *path)
{
	/* A process of its own: what it inherited is not its. */
	return create("y", path, child_mode->readonly, child_mode->shared) ? 1 : 0;
}

static void check_locks(enum test_place place)
{
	const char *path = test_file(place, MIB);

	for (int first = 0; first < MODES; first++) {
		assert_int_equal(create("x", path, modes[first].readonly, modes[first].shared), 0);
		for (int second = 0; second < MODES; second++) {
			int rc = create("y", path, modes[second].readonly, modes[second].shared);

			if (rc != (friends[first][second] ? 0 : -EBUSY))
				print_error("%s, then %s: %d\n", modes[first].name,
					    modes[second].name, rc);
			assert_int_equal(rc, friends[first][second] ? 0 : -EBUSY);
			if (!rc)
				assert_int_equal(bdev_delete("y", &err), 0);
			else
				assert_true(err_has("is locked by another"));
			child_mode = &modes[second];
			assert_int_equal(run_child(open_in_child, path), !friends[first][second]);
		}
		/* With the bdev goes its lock. */
		assert_int_equal(bdev_delete("x", &err), 0);
		assert_int_equal(create("x", path, false, false), 0);
		assert_int_equal(bdev_delete("x", &err), 0);
	}
}

static void test_locks_on_disk(void **state)
{
	check_locks(TEST_DISK);
}

static void test_locks_on_shm(void **state)
{
	check_locks(TEST_SHM);
}

/* As on a file system without locks. */
static bool forbid_locks(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_OFD_SETLK, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOLCK),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = 6, .filter = code};

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int without_locks(const char *path)
{
	if (!forbid_locks())
		return CHILD_CANNOT;
	if (create("x", path, false, false) != -ENOLCK)
		return 1;
	if (!err_has("cannot be locked") || !err_has("give --shared to go without"))
		return 2;
	if (create("x", path, false, true))
		return 3;
	bdev_delete_all();
	return 0;
}

static void test_no_locks(void **state)
{
	int rc = run_child(without_locks, test_file(TEST_DISK, MIB));

	SKIP_UNLESS(rc != CHILD_CANNOT, "this kernel has no seccomp filters");
	assert_int_equal(rc, 0);
}

/* QEMU's part, as its image locking documents it: n is read 0, write 1, resize 3. */

static bool qemu_lock(int fd, short type, off_t byte)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return !fcntl(fd, F_OFD_SETLK, &lock);
}

static bool qemu_free(int fd, off_t byte)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type == F_UNLCK;
}

/* A descriptor that holds the locks of a drive, or -1. */
static int qemu_open(const char *path, bool write, bool share_write)
{
	int fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	bool ok = qemu_lock(fd, F_RDLCK, 100);

	if (write)
		ok = ok && qemu_lock(fd, F_RDLCK, 101) && qemu_lock(fd, F_RDLCK, 103);
	if (!share_write)
		ok = ok && qemu_lock(fd, F_RDLCK, 201);
	ok = ok && qemu_lock(fd, F_RDLCK, 203);
	ok = ok && qemu_free(fd, 200);
	if (write)
		ok = ok && qemu_free(fd, 201) && qemu_free(fd, 203);
	if (!share_write)
		ok = ok && qemu_free(fd, 101);
	if (ok)
		return fd;
	close(fd);
	return -1;
}

static void test_locks_with_qemu(void **state)
{
	const char *path = test_file(TEST_DISK, MIB);
	/* A drive; one with share-rw=on; a read-only one: who of ours gets along with it? */
	static const struct {
		bool write, share_write;
		bool friends[MODES];
	} drives[] = {
		{true, false, {[SHARING_READER] = true}},
		{true, true, {[SHARING_WRITER] = true, [SHARING_READER] = true}},
		{false, false, {[SOLE_READER] = true, [SHARING_READER] = true}},
	};

	for (size_t i = 0; i < sizeof(drives) / sizeof(drives[0]); i++) {
		for (int mode = 0; mode < MODES; mode++) {
			int fd = qemu_open(path, drives[i].write, drives[i].share_write);

			assert_true(fd >= 0);
			assert_int_equal(create("x", path, modes[mode].readonly,
						modes[mode].shared),
					 drives[i].friends[mode] ? 0 : -EBUSY);
			close(fd);
			bdev_delete_all();
			/* The other way round. */
			assert_int_equal(
				create("x", path, modes[mode].readonly, modes[mode].shared), 0);
			fd = qemu_open(path, drives[i].write, drives[i].share_write);
			assert_int_equal(fd >= 0, drives[i].friends[mode]);
			if (fd >= 0)
				close(fd);
			bdev_delete_all();
		}
	}
}

/* What kernels before 6.1 are asked by trying, and this one says. */
static void test_probe(void **state)
{
	const char *path = test_file(TEST_DISK, MIB);
	struct alignment probed, told;
	struct bdev_file *f;

	assert_int_equal(create("x", path, false, false), 0);
	f = bdev_file_of(bdev_find("x"));
	SKIP_UNLESS(f->direct, "this file system has no direct I/O");
	assert_int_equal(probe_alignment(f, &probed), 0);
	assert_int_equal(get_alignment(f, &told), 0);
	assert_true(probed.mem >= told.mem && probed.offset >= told.offset);
	assert_int_equal(probed.offset, f->bdev.limits.block_size);
	/* What cannot be read at all is an error, and no kind of alignment. */
	close(f->fd);
	f->fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
	assert_int_equal(probe_alignment(f, &probed), -EBADF);
}

/* The page cache, where there is no direct I/O */

static void test_use_page_cache(void **state)
{
	struct bdev_file *f;
	char byte;

	assert_int_equal(create("x", test_file(TEST_DISK, MIB), false, false), 0);
	f = bdev_file_of(bdev_find("x"));
	SKIP_UNLESS(f->direct, "this file system has no direct I/O");
	assert_true(fcntl(f->fd, F_GETFL) & O_DIRECT);
	assert_int_equal(use_page_cache(f), 0);
	assert_false(f->direct);
	assert_false(fcntl(f->fd, F_GETFL) & O_DIRECT);
	assert_int_equal(pread(f->fd, &byte, 1, 1), 1);
	/* The lock is still there. */
	assert_int_equal(create("y", f->filename, false, false), -EBUSY);
}

static int on_ramfs(const char *path)
{
	char file[160];
	struct bdev_channel *ch;
	struct rig *rig;
	struct bdev *b;
	char data[1024], back[1024];
	int fd;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    unlink(path) || mkdir(path, 0700) || mount("none", path, "ramfs", 0, NULL))
		return CHILD_CANNOT;
	snprintf(file, sizeof(file), "%s/file", path);
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)MIB))
		return 1;
	close(fd);
	fd = open(file, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd >= 0)
		return CHILD_CANNOT;
	if (create("x", file, false, false))
		return 2;
	b = bdev_find("x");
	if (bdev_file_of(b)->direct || b->limits.block_size != 512 || b->limits.mem_align != 1 ||
	    !b->limits.write_cache || b->limits.discard)
		return 3;
	rig = rig_start();
	ch = rig_open(rig, b);
	test_fill(data, 0, 512, 1);
	if (rig_io(rig, ch, BDEV_WRITE, 512, data, 512) ||
	    rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0) ||
	    rig_io(rig, ch, BDEV_READ, 512, back + 1, 512) || memcmp(data, back + 1, 512))
		return 4;
	/* A discard that was promised and cannot be kept does no harm, and is not tried again. */
	b->limits.discard = true;
	for (int i = 0; i < 2; i++)
		if (rig_io(rig, ch, BDEV_DISCARD, 512, NULL, 512) ||
		    !bdev_file_of(b)->discard_refused)
			return 5;
	if (rig_io(rig, ch, BDEV_READ, 512, back, 512) || memcmp(data, back, 512))
		return 6;
	rig_close(rig, ch);
	rig_stop(rig);
	bdev_delete_all();
	return 0;
}

static void test_page_cache(void **state)
{
	char path[128];
	int rc;

	snprintf(path, sizeof(path), "%s", test_file(TEST_DISK, MIB));
	rc = run_child(on_ramfs, path);
	rmdir(path);
	SKIP_UNLESS(rc != CHILD_CANNOT, "needs root, and a ramfs that refuses O_DIRECT");
	assert_int_equal(rc, 0);
}

/* Block devices */

struct loop {
	char path[32];
	int fd;
};

/* Makes a loop device of @backing; skips the test where that cannot be done. */
static struct loop loop_start(const char *backing, uint32_t block_size, unsigned flags)
{
	/* It goes with its last descriptor, also when a test fails. */
	struct loop_config config = {.block_size = block_size,
				     .info.lo_flags = flags | LO_FLAGS_AUTOCLEAR};
	struct loop loop = {.fd = -1};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n = -1;
	int file = open(backing, O_RDWR | O_CLOEXEC);

	config.fd = (uint32_t)file;
	/* Somebody else may take the free one first. */
	for (int tries = 0; control >= 0 && tries < 10 && loop.fd < 0; tries++) {
		n = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(loop.path, sizeof(loop.path), "/dev/loop%d", n);
		loop.fd = n < 0 ? -1 : open(loop.path, O_RDWR | O_CLOEXEC);
		if (loop.fd >= 0 && ioctl(loop.fd, LOOP_CONFIGURE, &config)) {
			close(loop.fd);
			loop.fd = -1;
		}
	}
	close(file);
	if (control >= 0)
		close(control);
	SKIP_UNLESS(loop.fd >= 0, "no loop device to be had here (needs root)");
	return loop;
}

static void check_device(uint32_t block_size)
{
	/* With half a block too much for blocks of 4096. */
	const char *backing = test_file(TEST_DISK, 8 * MIB + (block_size == 4096 ? 2048 : 0));
	struct loop loop = loop_start(backing, block_size, 0);
	struct rig *rig = rig_start();
	char *data = test_alloc(MIB), *back = test_alloc(MIB);
	struct bdev_channel *ch;
	struct alignment probed;
	struct stat before, after;
	struct bdev *b;

	assert_int_equal(create("x", loop.path, false, false), 0);
	b = bdev_find("x");
	assert_true(bdev_file_of(b)->device);
	assert_true(bdev_file_of(b)->direct);
	assert_int_equal(b->size, 8 * MIB);
	assert_int_equal(probe_alignment(bdev_file_of(b), &probed), 0);
	assert_int_equal(probed.offset, block_size);
	assert_int_equal(b->limits.block_size, block_size);
	assert_true(b->limits.physical_block_size >= block_size);
	assert_true(b->limits.discard);
	assert_true(b->limits.discard_granularity >= block_size);

	ch = rig_open(rig, b);
	for (uint64_t at = 0; at < 8 * MIB; at += MIB) {
		test_fill(data, at, MIB, 1);
		assert_int_equal(rig_io(rig, ch, BDEV_WRITE, at, data, MIB), 0);
	}
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(stat(backing, &before), 0);
	assert_int_equal(rig_io(rig, ch, BDEV_DISCARD, 4 * MIB, NULL, 2 * MIB), 0);
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(stat(backing, &after), 0);
	assert_in_range((uint64_t)(before.st_blocks - after.st_blocks) * 512, 2 * MIB - 65536,
			2 * MIB);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 8 * MIB - block_size, back, block_size), 0);
	test_fill(data, 8 * MIB - block_size, block_size, 1);
	assert_memory_equal(back, data, block_size);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 8 * MIB, back, block_size), -EINVAL);
	rig_close(rig, ch);
	rig_stop(rig);
	bdev_delete_all();
	close(loop.fd);
	free(data);
	free(back);
}

static void test_device_512(void **state)
{
	check_device(512);
}

static void test_device_4096(void **state)
{
	check_device(4096);
}

/* A loop device does not erase; one that promised to, and then does not, must say so. */
static void test_device_does_not_erase(void **state)
{
	struct loop loop = loop_start(test_file(TEST_DISK, MIB), 512, 0);
	struct bdev_io io = {.op = BDEV_DISCARD, .len = MIB, .secure = true};
	struct rig *rig = rig_start();
	struct bdev_channel *ch;
	struct bdev *b;

	assert_int_equal(create("x", loop.path, false, false), 0);
	b = bdev_find("x");
	assert_true(b->limits.discard);
	assert_false(b->limits.secure_discard);
	ch = rig_open(rig, b);
	rig_submit(rig, ch, &io, 1);
	assert_int_equal(io.result, -EOPNOTSUPP);
	b->limits.secure_discard = true;
	rig_submit(rig, ch, &io, 1);
	assert_int_equal(io.result, -EOPNOTSUPP);
	/* Ordinary ones go on, and even where they have been given up nothing is ignored. */
	assert_false(bdev_file_of(b)->discard_refused);
	bdev_file_of(b)->discard_refused = true;
	rig_submit(rig, ch, &io, 1);
	assert_int_equal(io.result, -EOPNOTSUPP);
	rig_close(rig, ch);
	rig_stop(rig);
	bdev_delete_all();
	close(loop.fd);
}

/* What has to be aligned for direct I/O on the device is, whatever a guest's sectors are. */
static void test_device_in_sectors(void **state)
{
	struct loop loop = loop_start(test_file(TEST_DISK, MIB), 4096, 0);
	struct rig *rig = rig_start();
	char *model = test_alloc(MIB), *data = test_alloc(MIB), *back = test_alloc(MIB);
	struct bdev_channel *ch;
	unsigned seed = 5;
	struct bdev *b;

	memset(model, 0, MIB);
	assert_int_equal(create("x", loop.path, false, false), 0);
	b = bdev_find("x");
	assert_int_equal(b->limits.block_size, 4096);
	ch = rig_open(rig, bdev_sectors(b));
	for (uint32_t round = 1; round <= 200; round++) {
		uint64_t offset = (unsigned)rand_r(&seed) % 2048 * 512ULL;
		uint64_t left = (MIB - offset) / 512;
		uint64_t len = (1 + (unsigned)rand_r(&seed) % left) * 512;
		/* Wherever in memory a sector may lie. */
		char *at = data + (unsigned)rand_r(&seed) % ((MIB - len) / 512 + 1) * 512;

		if (round % 2 && len > 8192)
			len = 512 + len % 8192;
		test_fill(at, offset, len, round);
		memcpy(model + offset, at, len);
		assert_int_equal(rig_io(rig, ch, BDEV_WRITE, offset, at, len), 0);
		assert_int_equal(rig_io(rig, ch, BDEV_READ, offset, back + (at - data), len), 0);
		assert_memory_equal(back + (at - data), model + offset, len);
	}
	assert_int_equal(rig_io(rig, ch, BDEV_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(rig_io(rig, ch, BDEV_READ, 0, back, MIB), 0);
	assert_memory_equal(back, model, MIB);
	rig_close(rig, ch);
	rig_stop(rig);
	bdev_delete_all();
	close(loop.fd);
	free(model);
	free(data);
	free(back);
}

static uint64_t probe(struct bdev *b)
{
	int fd = b->ops->probe_open(b);
	uint64_t size = 0;

	assert_true(fd >= 0);
	assert_int_equal(b->ops->probe_measure(fd, &size), 0);
	close(fd);
	return size;
}

static void test_device_grows(void **state)
{
	const char *backing = test_file(TEST_DISK, MIB);
	struct loop loop = loop_start(backing, 4096, 0);

	assert_int_equal(create("x", loop.path, false, false), 0);
	assert_int_equal(probe(bdev_find("x")), MIB);
	assert_int_equal(truncate(backing, 3 * MIB), 0);
	assert_int_equal(ioctl(loop.fd, LOOP_SET_CAPACITY), 0);
	assert_int_equal(probe(bdev_find("x")), 3 * MIB);
	bdev_delete_all();
	close(loop.fd);
}

/* While a probe is open, the bdev can go and others can have what was behind it to themselves. */
static void test_probe_holds_nothing(void **state)
{
	struct loop loop = loop_start(test_file(TEST_DISK, MIB), 512, 0);
	const char *const paths[] = {loop.path, test_file(TEST_DISK, MIB)};

	for (int i = 0; i < 2; i++) {
		struct bdev *b;
		uint64_t size;
		int fd;

		assert_int_equal(create("x", paths[i], false, false), 0);
		b = bdev_find("x");
		fd = b->ops->probe_open(b);
		assert_true(fd >= 0);
		assert_int_equal(create("y", paths[i], false, false), -EBUSY);
		assert_int_equal(bdev_delete("x", &err), 0);
		assert_int_equal(create("y", paths[i], false, false), 0);
		assert_int_equal(bdev_file_probe_measure(fd, &size), 0);
		assert_int_equal(size, MIB);
		close(fd);
		bdev_delete_all();
	}
	close(loop.fd);
}

static void test_device_in_use(void **state)
{
	struct loop loop = loop_start(test_file(TEST_DISK, MIB), 512, 0);
	int fd = open(loop.path, O_RDONLY | O_EXCL | O_CLOEXEC);

	/* As mount has it. */
	assert_true(fd >= 0);
	assert_int_equal(create("x", loop.path, false, false), -EBUSY);
	assert_true(err_has("is mounted or in use: unmount it"));
	assert_int_equal(create("x", loop.path, true, false), -EBUSY);
	close(fd);
	assert_int_equal(create("x", loop.path, false, false), 0);
	assert_int_equal(create("y", loop.path, false, false), -EBUSY);
	assert_int_equal(create("y", loop.path, false, true), -EBUSY);
	assert_true(open(loop.path, O_RDONLY | O_EXCL | O_CLOEXEC) < 0);
	bdev_delete_all();
	assert_int_equal(create("x", loop.path, false, true), 0);
	assert_int_equal(create("y", loop.path, false, true), 0);
	assert_int_equal(create("z", loop.path, false, false), -EBUSY);
	bdev_delete_all();
	close(loop.fd);
}

static void test_device_readonly(void **state)
{
	struct loop loop = loop_start(test_file(TEST_DISK, MIB), 512, LO_FLAGS_READ_ONLY);

	assert_int_equal(create("x", loop.path, false, false), -EROFS);
	assert_true(err_has("--readonly"));
	assert_int_equal(create("x", loop.path, true, false), 0);
	bdev_delete_all();
	close(loop.fd);
}

static void test_device_without_size(void **state)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int n = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	char path[32];
	int rc;

	if (control >= 0)
		close(control);
	SKIP_UNLESS(n >= 0, "no loop device to be had here (needs root)");
	snprintf(path, sizeof(path), "/dev/loop%d", n);
	rc = create("x", path, true, false);
	assert_int_equal(rc, -EINVAL);
	assert_true(err_has("has no size"));
}

/* What a partition can do is said by its disk. */
static void test_partition(void **state)
{
	struct loop loop = loop_start(test_file(TEST_DISK, 8 * MIB), 512, LO_FLAGS_PARTSCAN);
	struct blkpg_partition part = {.start = (long long)MIB, .length = 4 << 20, .pno = 1};
	struct blkpg_ioctl_arg arg = {
		.op = BLKPG_ADD_PARTITION, .datalen = sizeof(part), .data = &part};
	char path[64], node[64];
	struct bdev *whole, *b;
	unsigned major_nr, minor_nr;
	FILE *f;

	assert_int_equal(ioctl(loop.fd, BLKPG, &arg), 0);
	snprintf(path, sizeof(path), "/sys/class/block/%sp1/dev", loop.path + 5);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%u:%u", &major_nr, &minor_nr), 2);
	fclose(f);
	snprintf(node, sizeof(node), "%s", test_file(TEST_DISK, 0));
	assert_int_equal(unlink(node), 0);
	assert_int_equal(mknod(node, S_IFBLK | 0600, makedev(major_nr, minor_nr)), 0);

	assert_int_equal(create("whole", loop.path, false, true), 0);
	assert_int_equal(create("part", node, false, true), 0);
	whole = bdev_find("whole");
	b = bdev_find("part");
	assert_int_equal(b->size, 4 * MIB);
	assert_true(b->limits.discard);
	assert_int_equal(b->limits.write_cache, whole->limits.write_cache);
	assert_int_equal(b->limits.discard_granularity, whole->limits.discard_granularity);
	bdev_delete_all();
	/* Its disk is in use by it. */
	assert_int_equal(create("part", node, false, false), 0);
	assert_int_equal(create("whole", loop.path, false, false), -EBUSY);
	bdev_delete_all();
	arg.op = BLKPG_DEL_PARTITION;
	ioctl(loop.fd, BLKPG, &arg);
	close(loop.fd);
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_refused_paths),
		TEST(test_refused_sizes),
		TEST(test_long_path),
		TEST(test_permission),
		TEST(test_readonly_mount),
		TEST(test_same_name),
		TEST(test_engine_missing),
		TEST(test_locks_on_disk),
		TEST(test_locks_on_shm),
		TEST(test_no_locks),
		TEST(test_locks_with_qemu),
		TEST(test_probe),
		TEST(test_use_page_cache),
		TEST(test_page_cache),
		TEST(test_device_512),
		TEST(test_device_4096),
		TEST(test_device_does_not_erase),
		TEST(test_device_in_sectors),
		TEST(test_device_grows),
		TEST(test_probe_holds_nothing),
		TEST(test_device_in_use),
		TEST(test_device_readonly),
		TEST(test_device_without_size),
		TEST(test_partition),
	};

	return cmocka_run_group_tests_name("bdev_file", tests, NULL, NULL);
}

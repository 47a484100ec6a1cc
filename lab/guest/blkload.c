/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * blkload: a load generator for block devices that takes nothing on trust.
 *
 * A disk may fail in ways that no error status shows: a write is acknowledged and lost, or lands
 * somewhere else, or is torn in the middle, or a read returns what was there before.  A generator
 * that only counts completions sees none of it.  So each 512-byte sector that blkload writes names
 * itself: it carries the seed of the run, its own number, the number of the write that put it there
 * (its generation) and a checksum over all 512 bytes.  blkload keeps the generation that each
 * sector must have in memory, compares it at every read, and reads the whole region once more at
 * the end.  From what a wrong sector carries follows what went wrong:
 *
 *	checksum or magic wrong		torn or overwritten by something else
 *	another sector's number		misplaced
 *	another seed			another region's or run's data
 *	a smaller generation		a lost write, or a stale read
 *	a greater generation		a write that blkload was told had failed, or not yet made
 *
 * Requests in flight never overlap: what a read returns beside an unfinished write is nobody's
 * promise.  The table of generations can be saved and loaded, so that the next life of a guest can
 * hold the disk to what the last one was told.
 *
 * Without verification it measures, also with several jobs at a time.  A job is a process: it has
 * its own ring and its own part of the region, and counts into a record that is shared with the
 * first, which adds them up.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <liburing.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

#define SECTOR          512u
#define WORDS           (SECTOR / 8)
#define MAX_BLOCK       (4u << 20)
#define MAX_DEPTH       1024u
#define MAX_JOBS        64u
#define MAX_SECTORS     (1u << 28)
#define STAMP_MAGIC     0x6c62706d61747331u
#define TABLE_MAGIC     0x6c62656c62617431u
#define SWEEP           256u /* sectors a request, at least, where the whole region is gone through */
#define MAX_COMPLAINTS  10u
#define BUCKETS_PER_LOG 32u
#define BUCKETS         (64 * BUCKETS_PER_LOG)

/* What a sector written by blkload holds. */
struct stamp {
	uint64_t magic;
	uint64_t checksum; /* over all other words of the sector */
	uint64_t seed;
	uint64_t sector;
	uint64_t generation;
	uint64_t filler[WORDS - 5];
};

/* What precedes the table of generations in a file. */
struct table_header {
	uint64_t magic;
	uint64_t checksum; /* over the table */
	uint64_t seed;
	uint64_t first;
	uint64_t sectors;
	uint64_t generation;
	uint64_t padding[WORDS - 6];
};

_Static_assert(sizeof(struct stamp) == SECTOR, "a stamp fills its sector");
_Static_assert(sizeof(struct table_header) == SECTOR, "a table's header fills a sector");

enum op { OP_READ, OP_WRITE, OP_FLUSH, OP_KINDS };

enum phase {
	PHASE_FILL,  /* write every sector of the region once, in order */
	PHASE_LOAD,  /* what was asked for */
	PHASE_CHECK, /* read every sector of the region once, in order */
	PHASES
};

struct slot {
	unsigned char *buffer;
	enum op op;
	uint64_t sector; /* within the region */
	uint32_t sectors;
	uint32_t generation;
	uint64_t started; /* ns */
};

struct counts {
	uint64_t requests[OP_KINDS];
	uint64_t sectors[OP_KINDS];
};

/* What came of a run, or of a job's part in it. */
struct outcome {
	struct counts counts[PHASES];
	uint64_t checked, bad, failed;
	uint64_t latencies, latency_sum, latency_max;
	double load_seconds;
	uint64_t histogram[BUCKETS];
};

struct load {
	/* what was asked for */
	const char *device;
	uint64_t first;                /* first sector of the region */
	uint64_t sectors;              /* in the region */
	uint32_t block_min, block_max; /* sectors */
	unsigned read_percent;
	bool sequential;
	unsigned depth, batch, submit;
	unsigned jobs;
	unsigned seconds;
	uint64_t max_requests;
	uint64_t flush_every;
	unsigned progress;
	uint64_t seed;
	bool verify;
	const char *load_file, *save_file;

	/* the state of the run */
	int fd;
	uint32_t grain; /* sectors in a block of the device: all requests are multiples of it */
	struct io_uring ring;
	struct slot *slots;
	unsigned *idle, idles; /* a stack of the slots that are free */
	uint32_t *expected;    /* the generation of each sector; 0: not known */
	unsigned char *busy;   /* sectors of requests in flight */
	uint32_t generation;   /* of the last write */
	uint64_t random;
	uint64_t cursor; /* the next sector, where the order is sequential */
	uint64_t writes_since_flush;
	uint64_t issued;

	struct outcome *out;
};

static volatile sig_atomic_t stopped;
/* The processes that a signal to the first one is passed on to. */
static pid_t jobs[MAX_JOBS];
static volatile sig_atomic_t jobs_started;

static void on_signal(int number)
{
	stopped = 1;
	for (int i = 0; i < jobs_started; i++)
		kill(jobs[i], number);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* SplitMix64: small, seedable, and good enough to choose sectors. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint64_t checksum(const uint64_t *words, size_t count, uint64_t sum)
{
	for (size_t i = 0; i < count; i++) {
		sum = (sum ^ words[i]) * 0x100000001b3u;
		sum ^= sum >> 29;
	}
	return sum;
}

static uint64_t stamp_checksum(const struct stamp *stamp)
{
	return checksum(&stamp->seed, WORDS - 2, STAMP_MAGIC);
}

static void stamp_sector(struct load *l, struct stamp *stamp, uint64_t sector, uint32_t generation)
{
	uint64_t word = l->seed ^ (sector << 20) ^ generation;

	stamp->magic = STAMP_MAGIC;
	stamp->seed = l->seed;
	stamp->sector = l->first + sector;
	stamp->generation = generation;
	for (unsigned i = 0; i < WORDS - 5; i++)
		stamp->filler[i] = word += 0x9e3779b97f4a7c15u;
	stamp->checksum = stamp_checksum(stamp);
}

static bool is_zero(const struct stamp *stamp)
{
	const unsigned char *bytes = (const unsigned char *)stamp;

	return !bytes[0] && !memcmp(bytes, bytes + 1, SECTOR - 1);
}

/* Says on standard error what is wrong with a sector, for the first few of them. */
static void complain(struct load *l, const struct stamp *found, uint64_t sector, uint32_t expected)
{
	if (l->out->bad > MAX_COMPLAINTS)
		return;
	fprintf(stderr, "blkload: %s sector %" PRIu64 " should hold write %" PRIu32 ": ", l->device,
		l->first + sector, expected);
	if (is_zero(found))
		fprintf(stderr, "lost, it holds zeroes\n");
	else if (found->magic != STAMP_MAGIC)
		fprintf(stderr, "overwritten, it holds foreign data (%016" PRIx64 ")\n",
			found->magic);
	else if (found->checksum != stamp_checksum(found))
		fprintf(stderr, "torn, its checksum is wrong\n");
	else if (found->seed != l->seed)
		fprintf(stderr, "foreign, it holds data of seed %" PRIu64 "\n", found->seed);
	else if (found->sector != l->first + sector)
		fprintf(stderr, "misplaced, it holds sector %" PRIu64 "\n", found->sector);
	else
		fprintf(stderr, "%s, it holds write %" PRIu64 "\n",
			found->generation < expected ? "lost or stale" : "too new",
			found->generation);
}

static void check_sector(struct load *l, const struct stamp *found, uint64_t sector)
{
	uint32_t expected = l->expected[sector];

	if (!expected)
		return;
	l->out->checked++;
	if (found->magic == STAMP_MAGIC && found->seed == l->seed &&
	    found->sector == l->first + sector && found->generation == expected &&
	    found->checksum == stamp_checksum(found))
		return;
	l->out->bad++;
	complain(l, found, sector, expected);
}

/* A histogram whose buckets grow with the value: 32 to each power of two, 3% wide. */
static unsigned bucket_of(uint64_t ns)
{
	unsigned log;

	if (ns < BUCKETS_PER_LOG)
		return (unsigned)ns;
	log = 63 - (unsigned)__builtin_clzll(ns);
	return (log - 4) * BUCKETS_PER_LOG + (unsigned)(ns >> (log - 5)) % BUCKETS_PER_LOG;
}

static uint64_t bucket_end(unsigned bucket)
{
	unsigned log = bucket / BUCKETS_PER_LOG + 4;

	if (bucket < BUCKETS_PER_LOG)
		return bucket;
	return ((uint64_t)(BUCKETS_PER_LOG + bucket % BUCKETS_PER_LOG + 1) << (log - 5)) - 1;
}

static double percentile_us(const struct load *l, double percent)
{
	uint64_t wanted = (uint64_t)((double)l->out->latencies * percent / 100.0), seen = 0;

	for (unsigned i = 0; i < BUCKETS; i++) {
		seen += l->out->histogram[i];
		if (seen > wanted || (seen && seen == l->out->latencies))
			return (double)bucket_end(i) / 1000.0;
	}
	return 0;
}

static bool is_busy(const struct load *l, uint64_t sector, uint32_t sectors)
{
	return memchr(l->busy + sector, 1, sectors);
}

/* The size of requests that fill and check the region. */
static uint32_t sweep_sectors(const struct load *l)
{
	return l->block_max > SWEEP ? l->block_max : SWEEP / l->grain * l->grain;
}

/*
 * Chooses the next request of a phase into a slot.  Returns false where there is none now: the
 * phase is over, or every sector tried is busy.
 */
static bool choose(struct load *l, enum phase phase, struct slot *slot)
{
	uint32_t blocks = (l->block_max - l->block_min) / l->grain + 1;

	if (phase != PHASE_LOAD) {
		if (l->cursor == l->sectors)
			return false;
		slot->op = phase == PHASE_FILL ? OP_WRITE : OP_READ;
		slot->sector = l->cursor;
		slot->sectors = sweep_sectors(l);
		if (slot->sectors > l->sectors - l->cursor)
			slot->sectors = (uint32_t)(l->sectors - l->cursor);
		if (is_busy(l, slot->sector, slot->sectors))
			return false;
		l->cursor += slot->sectors;
		return true;
	}
	if (l->flush_every && l->writes_since_flush >= l->flush_every) {
		l->writes_since_flush = 0;
		slot->op = OP_FLUSH;
		slot->sector = slot->sectors = 0;
		return true;
	}
	slot->op = next_random(&l->random) % 100 < l->read_percent ? OP_READ : OP_WRITE;
	slot->sectors = l->block_min + (uint32_t)(next_random(&l->random) % blocks) * l->grain;
	for (unsigned tries = 0; tries < 16; tries++) {
		/* Blocks of one size lie side by side, others wherever the device allows. */
		uint32_t step = blocks == 1 ? slot->sectors : l->grain;

		if (l->sequential) {
			if (l->cursor + slot->sectors > l->sectors)
				l->cursor = 0;
			slot->sector = l->cursor;
		} else {
			slot->sector = next_random(&l->random) %
				       ((l->sectors - slot->sectors) / step + 1) * step;
		}
		if (!is_busy(l, slot->sector, slot->sectors)) {
			l->cursor = slot->sector + slot->sectors;
			return true;
		}
		if (l->sequential)
			return false;
	}
	return false;
}

/* Hands over what is ready. Returns 0 or a negative errno. */
static int submit(struct load *l, unsigned wait)
{
	int rc = wait ? io_uring_submit_and_wait(&l->ring, wait) : io_uring_submit(&l->ring);

	return rc < 0 && rc != -EINTR ? rc : 0;
}

static bool issue(struct load *l, enum phase phase)
{
	struct io_uring_sqe *sqe;
	struct slot *slot;
	uint64_t offset;

	if (!l->idles)
		return false;
	slot = &l->slots[l->idle[l->idles - 1]];
	if (!choose(l, phase, slot))
		return false;
	sqe = io_uring_get_sqe(&l->ring);
	if (!sqe)
		return false;
	l->idles--;
	offset = (l->first + slot->sector) * SECTOR;
	memset(l->busy + slot->sector, 1, slot->sectors);
	switch (slot->op) {
	case OP_WRITE:
		l->writes_since_flush++;
		slot->generation = ++l->generation;
		for (uint32_t i = 0; l->verify && i < slot->sectors; i++)
			stamp_sector(l, (struct stamp *)(slot->buffer + i * SECTOR),
				     slot->sector + i, slot->generation);
		io_uring_prep_write(sqe, l->fd, slot->buffer, slot->sectors * SECTOR, offset);
		break;
	case OP_READ:
		io_uring_prep_read(sqe, l->fd, slot->buffer, slot->sectors * SECTOR, offset);
		break;
	default:
		io_uring_prep_fsync(sqe, l->fd, IORING_FSYNC_DATASYNC);
	}
	io_uring_sqe_set_data(sqe, slot);
	l->issued++;
	slot->started = now_ns();
	return true;
}

static void finish(struct load *l, enum phase phase, struct slot *slot, int result)
{
	bool good = result == (int)(slot->sectors * SECTOR);
	uint64_t took = now_ns() - slot->started;

	l->out->counts[phase].requests[slot->op]++;
	l->out->counts[phase].sectors[slot->op] += slot->sectors;
	if (phase == PHASE_LOAD) {
		l->out->histogram[bucket_of(took)]++;
		l->out->latencies++;
		l->out->latency_sum += took;
		if (took > l->out->latency_max)
			l->out->latency_max = took;
	}
	if (!good && l->out->failed++ < MAX_COMPLAINTS)
		fprintf(stderr, "blkload: %s %s of %" PRIu32 " sectors at %" PRIu64 ": %s\n",
			l->device, (const char *[]){"read", "write", "flush"}[slot->op],
			slot->sectors, l->first + slot->sector,
			result < 0 ? strerror(-result) : "too short");
	for (uint32_t i = 0; i < slot->sectors; i++) {
		uint64_t sector = slot->sector + i;

		if (slot->op == OP_WRITE) /* a failed write may have reached the disk or not */
			l->expected[sector] = good && l->verify ? slot->generation : 0;
		else if (good && l->verify)
			check_sector(l, (struct stamp *)(slot->buffer + i * SECTOR), sector);
	}
	memset(l->busy + slot->sector, 0, slot->sectors);
	l->idle[l->idles++] = (unsigned)(slot - l->slots);
}

static bool is_over(const struct load *l, enum phase phase, uint64_t deadline)
{
	if (phase == PHASE_CHECK)
		return false;
	if (stopped)
		return true;
	return phase == PHASE_LOAD && ((l->max_requests && l->issued >= l->max_requests) ||
				       (deadline && now_ns() >= deadline));
}

/* Runs a phase to its end, with nothing left in flight.  Returns 0 or a negative errno. */
static int run_phase(struct load *l, enum phase phase)
{
	uint64_t start = now_ns(), next_progress = start + l->progress * 1000000000ull;
	uint64_t deadline = l->seconds ? start + l->seconds * 1000000000ull : 0;

	l->cursor = l->issued = 0;
	for (;;) {
		struct io_uring_cqe *cqe;
		unsigned flying, head, reaped = 0;
		int rc = 0;

		while (!rc && !is_over(l, phase, deadline) && issue(l, phase)) {
			if (l->submit && io_uring_sq_ready(&l->ring) >= l->submit)
				rc = submit(l, 0);
		}
		flying = l->depth - l->idles;
		if (!flying)
			break;
		if (!rc)
			rc = submit(l, flying < l->batch ? flying : l->batch);
		if (rc < 0)
			return rc;
		io_uring_for_each_cqe(&l->ring, head, cqe)
		{
			finish(l, phase, io_uring_cqe_get_data(cqe), cqe->res);
			reaped++;
		}
		io_uring_cq_advance(&l->ring, reaped);
		if (l->progress && now_ns() >= next_progress) {
			next_progress = now_ns() + l->progress * 1000000000ull;
			printf("blkload: %" PRIu64 " requests, %" PRIu64 " errors\n", l->issued,
			       l->out->bad + l->out->failed);
			fflush(stdout);
		}
	}
	if (phase == PHASE_LOAD)
		l->out->load_seconds = (double)(now_ns() - start) / 1e9;
	return 0;
}

static uint64_t table_checksum(const struct load *l)
{
	uint64_t sum = TABLE_MAGIC;

	for (uint64_t i = 0; i < l->sectors; i++)
		sum = checksum(&(uint64_t){l->expected[i]}, 1, sum);
	return sum;
}

static int transfer(int fd, void *data, size_t bytes, bool out)
{
	char *next = data;

	while (bytes) {
		ssize_t n = out ? write(fd, next, bytes) : read(fd, next, bytes);

		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		next += n;
		bytes -= (size_t)n;
	}
	return 0;
}

/* Writes the table of generations to a file or a partition.  Returns 0 or a negative errno. */
static int save_table(struct load *l)
{
	struct table_header header = {.magic = TABLE_MAGIC,
				      .checksum = table_checksum(l),
				      .seed = l->seed,
				      .first = l->first,
				      .sectors = l->sectors,
				      .generation = l->generation};
	int fd = open(l->save_file, O_WRONLY | O_CREAT, 0600), rc;

	if (fd < 0)
		return -errno;
	rc = transfer(fd, &header, sizeof(header), true);
	if (!rc)
		rc = transfer(fd, l->expected, l->sectors * sizeof(*l->expected), true);
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

/* Reads the table back.  Returns 0 or a negative errno; -EBADMSG if it is not this region's. */
static int load_table(struct load *l)
{
	struct table_header header;
	int fd = open(l->load_file, O_RDONLY), rc;

	if (fd < 0)
		return -errno;
	rc = transfer(fd, &header, sizeof(header), false);
	if (!rc && (header.magic != TABLE_MAGIC || header.first != l->first ||
		    header.sectors != l->sectors || header.generation > UINT32_MAX))
		rc = -EBADMSG;
	if (!rc)
		rc = transfer(fd, l->expected, l->sectors * sizeof(*l->expected), false);
	if (!rc && header.checksum != table_checksum(l))
		rc = -EBADMSG;
	if (!rc) {
		l->seed = header.seed;
		l->generation = (uint32_t)header.generation;
	}
	close(fd);
	return rc;
}

static void print_result(const struct load *l)
{
	const struct counts *load = &l->out->counts[PHASE_LOAD];
	uint64_t requests = 0, sectors = 0, total_requests = 0, total_sectors = 0;

	for (unsigned op = 0; op < OP_KINDS; op++) {
		requests += load->requests[op];
		sectors += load->sectors[op];
		for (unsigned phase = 0; phase < PHASES; phase++) {
			total_requests += l->out->counts[phase].requests[op];
			total_sectors += l->out->counts[phase].sectors[op];
		}
	}
	printf("{\"requests\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.3f,\"iops\":%.0f,"
	       "\"avg_us\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f,\"max_us\":%.0f,",
	       requests, sectors * SECTOR, l->out->load_seconds,
	       l->out->load_seconds > 0 ? (double)requests / l->out->load_seconds : 0,
	       l->out->latencies ? (double)l->out->latency_sum / (double)l->out->latencies / 1000.0
				 : 0,
	       percentile_us(l, 50), percentile_us(l, 99), (double)l->out->latency_max / 1000.0);
	printf("\"reads\":%" PRIu64 ",\"writes\":%" PRIu64 ",\"flushes\":%" PRIu64
	       ",\"total_requests\":%" PRIu64 ",\"total_bytes\":%" PRIu64
	       ",\"checked_sectors\":%" PRIu64 ",\"bad_sectors\":%" PRIu64
	       ",\"failed_requests\":%" PRIu64 ",\"errors\":%" PRIu64 "}\n",
	       load->requests[OP_READ], load->requests[OP_WRITE], load->requests[OP_FLUSH],
	       total_requests, total_sectors * SECTOR, l->out->checked, l->out->bad, l->out->failed,
	       l->out->bad + l->out->failed);
}

static const char usage[] =
	"usage: blkload [OPTION]... DEVICE\n"
	"  --offset BYTES       where the region begins (default 0)\n"
	"  --length BYTES       how long it is (default: to the device's end)\n"
	"  --block MIN[-MAX]    request size, or sizes chosen at random (default 4k)\n"
	"  --read PERCENT       share of reads (default 50)\n"
	"  --sequential         in order, not at random\n"
	"  --depth N            requests in flight (default 16)\n"
	"  --batch N            completions to wait for at a time (default 1)\n"
	"  --submit N           requests to hand over at a time, at most (default: what is ready)\n"
	"  --jobs N             processes, each with a part of the region and this depth (default "
	"1)\n"
	"  --seconds N          how long (default: until --requests, or SIGTERM)\n"
	"  --requests N         how many\n"
	"  --flush N            a flush after every N writes (default: none)\n"
	"  --seed N             what tells this run's data and order from others' (default 1)\n"
	"  --verify             fill the region first, verify each read, and all of it in the end\n"
	"  --load FILE          with --verify: do not fill, expect what the saved table says\n"
	"  --save FILE          with --verify: save the table of what the region holds\n"
	"  --progress SECONDS   say now and then how far it is\n"
	"Sizes take the suffixes k, M and G.  Prints one line of JSON; exits 1 after any error.\n";

static void __attribute__((noreturn, format(printf, 1, 2))) refuse(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fprintf(stderr, "blkload: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, "\n");
	va_end(arguments);
	exit(2);
}

/* A number with an optional suffix; *end is left after it. */
static uint64_t parse_number(const char *option, const char *text, char **end)
{
	static const char suffixes[] = "kMG";
	uint64_t value;
	const char *suffix;

	errno = 0;
	value = strtoull(text, end, 10);
	if (errno || *end == text || *text == '-')
		refuse("--%s %s: not a number", option, text);
	suffix = **end ? strchr(suffixes, **end) : NULL;
	if (suffix) {
		unsigned shift = 10u * (unsigned)(suffix - suffixes + 1);

		if (value > UINT64_MAX >> shift)
			refuse("--%s %s: too large", option, text);
		value <<= shift;
		(*end)++;
	}
	return value;
}

static uint64_t parse_whole(const char *option, const char *text, uint64_t max)
{
	char *end;
	uint64_t value = parse_number(option, text, &end);

	if (*end)
		refuse("--%s %s: not a number", option, text);
	if (value > max)
		refuse("--%s %s: at most %" PRIu64, option, text, max);
	return value;
}

static uint64_t parse_sectors(const char *option, const char *text, char stop, char **end)
{
	uint64_t bytes = parse_number(option, text, end);

	if (**end && **end != stop)
		refuse("--%s %s: not a size", option, text);
	if (bytes % SECTOR)
		refuse("--%s %s: not a multiple of %u", option, text, SECTOR);
	return bytes / SECTOR;
}

static void parse_block(struct load *l, const char *text)
{
	char *end;
	uint64_t min = parse_sectors("block", text, '-', &end), max = min;

	if (*end == '-')
		max = parse_sectors("block", end + 1, 0, &end);
	if (!min || min > max || max > MAX_BLOCK / SECTOR)
		refuse("--block %s: from 512 bytes to 4M", text);
	l->block_min = (uint32_t)min;
	l->block_max = (uint32_t)max;
}

static void parse_options(struct load *l, int argc, char **argv)
{
	static const struct option options[] = {
		{"offset", 1, NULL, 'o'},  {"length", 1, NULL, 'l'},     {"block", 1, NULL, 'b'},
		{"read", 1, NULL, 'r'},    {"sequential", 0, NULL, 's'}, {"depth", 1, NULL, 'd'},
		{"batch", 1, NULL, 'B'},   {"submit", 1, NULL, 'u'},     {"jobs", 1, NULL, 'j'},
		{"seconds", 1, NULL, 't'}, {"requests", 1, NULL, 'n'},   {"flush", 1, NULL, 'f'},
		{"seed", 1, NULL, 'S'},    {"verify", 0, NULL, 'v'},     {"load", 1, NULL, 'L'},
		{"save", 1, NULL, 'W'},    {"progress", 1, NULL, 'p'},   {"help", 0, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	int option, index;
	char *end;

	while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
		const char *name = option == '?' ? "" : options[index].name;

		switch (option) {
		case 'o':
			l->first = parse_sectors(name, optarg, 0, &end);
			break;
		case 'l':
			l->sectors = parse_sectors(name, optarg, 0, &end);
			break;
		case 'b':
			parse_block(l, optarg);
			break;
		case 'r':
			l->read_percent = (unsigned)parse_whole(name, optarg, 100);
			break;
		case 's':
			l->sequential = true;
			break;
		case 'd':
			l->depth = (unsigned)parse_whole(name, optarg, MAX_DEPTH);
			break;
		case 'B':
			l->batch = (unsigned)parse_whole(name, optarg, MAX_DEPTH);
			break;
		case 'u':
			l->submit = (unsigned)parse_whole(name, optarg, MAX_DEPTH);
			break;
		case 'j':
			l->jobs = (unsigned)parse_whole(name, optarg, MAX_JOBS);
			break;
		case 't':
			l->seconds = (unsigned)parse_whole(name, optarg, 1000000);
			break;
		case 'n':
			l->max_requests = parse_whole(name, optarg, UINT64_MAX);
			break;
		case 'f':
			l->flush_every = parse_whole(name, optarg, UINT64_MAX);
			break;
		case 'S':
			l->seed = parse_whole(name, optarg, UINT64_MAX);
			break;
		case 'v':
			l->verify = true;
			break;
		case 'L':
			l->load_file = optarg;
			break;
		case 'W':
			l->save_file = optarg;
			break;
		case 'p':
			l->progress = (unsigned)parse_whole(name, optarg, 1000000);
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (optind != argc - 1) {
		fputs(usage, stderr);
		exit(2);
	}
	l->device = argv[optind];
	if (!l->depth || !l->batch || !l->jobs)
		refuse("--depth, --batch and --jobs must be at least 1");
	if (l->jobs > 1 && (l->verify || l->progress))
		refuse("--verify and --progress are for one job");
	if ((l->load_file || l->save_file) && !l->verify)
		refuse("--load and --save need --verify");
}

/* Opens the device and fits the region to it. */
static void open_device(struct load *l)
{
	struct stat status;
	uint64_t bytes = 0;
	int block = SECTOR;

	l->fd = open(l->device, O_RDWR | O_DIRECT);
	if (l->fd < 0)
		refuse("%s: %s", l->device, strerror(errno));
	if (fstat(l->fd, &status) < 0)
		refuse("%s: %s", l->device, strerror(errno));
	if (!S_ISBLK(status.st_mode))
		bytes = (uint64_t)status.st_size;
	else if (ioctl(l->fd, BLKGETSIZE64, &bytes) < 0 || ioctl(l->fd, BLKSSZGET, &block) < 0)
		refuse("%s: %s", l->device, strerror(errno));
	l->grain = (uint32_t)block / SECTOR;
	if (l->first > bytes / SECTOR || l->sectors > bytes / SECTOR - l->first)
		refuse("%s has only %" PRIu64 " bytes", l->device, bytes);
	if (!l->sectors)
		l->sectors = bytes / SECTOR - l->first;
	if (l->sectors > MAX_SECTORS)
		refuse("the region is too large: at most %u sectors, use --length", MAX_SECTORS);
	if (l->first % l->grain || l->sectors % l->grain || l->block_min % l->grain ||
	    l->block_max % l->grain)
		refuse("%s has blocks of %d bytes: region and --block must be multiples", l->device,
		       block);
	l->sectors = l->sectors / l->jobs / l->grain * l->grain;
	if (l->block_max > l->sectors)
		refuse("--block is larger than a job's region of %" PRIu64 " bytes",
		       l->sectors * SECTOR);
}

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);

	if (!memory)
		refuse("out of memory");
	return memory;
}

static void prepare(struct load *l)
{
	size_t block = (size_t)sweep_sectors(l) * SECTOR;
	int rc = io_uring_queue_init(l->depth, &l->ring, 0);

	if (rc < 0)
		refuse("io_uring: %s", strerror(-rc));
	l->slots = allocate(l->depth, sizeof(*l->slots));
	l->idle = allocate(l->depth, sizeof(*l->idle));
	l->expected = allocate(l->sectors, sizeof(*l->expected));
	l->busy = allocate(l->sectors, 1);
	l->random = l->seed;
	for (unsigned i = 0; i < l->depth; i++) {
		if (posix_memalign((void **)&l->slots[i].buffer, 4096, block))
			refuse("out of memory");
		memset(l->slots[i].buffer, (int)i, block);
		l->idle[l->idles++] = i;
	}
}

/* All of a job. Returns 0, or a negative errno. */
static int run(struct load *l)
{
	int rc = 0;

	prepare(l);
	if (l->load_file) {
		rc = load_table(l);
		if (rc == -EBADMSG)
			refuse("--load %s: holds no table of this region", l->load_file);
		if (rc < 0)
			refuse("--load %s: %s", l->load_file, strerror(-rc));
	} else if (l->verify) {
		rc = run_phase(l, PHASE_FILL);
	}
	if (!rc)
		rc = run_phase(l, PHASE_LOAD);
	if (!rc && l->verify)
		rc = run_phase(l, PHASE_CHECK);
	return rc;
}

static void add_outcome(struct outcome *sum, const struct outcome *job)
{
	const struct counts *load = &job->counts[PHASE_LOAD];

	for (unsigned op = 0; op < OP_KINDS; op++) {
		sum->counts[PHASE_LOAD].requests[op] += load->requests[op];
		sum->counts[PHASE_LOAD].sectors[op] += load->sectors[op];
	}
	sum->failed += job->failed;
	sum->latencies += job->latencies;
	sum->latency_sum += job->latency_sum;
	if (job->latency_max > sum->latency_max)
		sum->latency_max = job->latency_max;
	if (job->load_seconds > sum->load_seconds)
		sum->load_seconds = job->load_seconds;
	for (unsigned i = 0; i < BUCKETS; i++)
		sum->histogram[i] += job->histogram[i];
}

/* Waits for a job. Returns false if it has failed. */
static bool await_job(pid_t job)
{
	int status;

	while (waitpid(job, &status, 0) < 0) {
		if (errno != EINTR)
			return false;
	}
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

/* Runs the jobs, each in a process. Returns 0 or a negative errno. */
static int run_jobs(struct load *l)
{
	struct outcome *outcomes = mmap(NULL, l->jobs * sizeof(*outcomes), PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int rc = 0;

	if (outcomes == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; i < l->jobs; i++) {
		jobs[i] = fork();
		if (jobs[i] < 0)
			refuse("fork: %s", strerror(errno));
		if (jobs[i]) {
			jobs_started++;
			continue;
		}
		jobs_started = 0;
		l->out = &outcomes[i];
		l->first += i * l->sectors;
		l->seed += i;
		_exit(run(l) < 0);
	}
	for (unsigned i = 0; i < l->jobs; i++) {
		if (!await_job(jobs[i]))
			rc = -EIO;
		add_outcome(l->out, &outcomes[i]);
	}
	return rc;
}

int main(int argc, char **argv)
{
	static struct outcome outcome;
	struct load l = {.block_min = 8,
			 .block_max = 8,
			 .read_percent = 50,
			 .depth = 16,
			 .batch = 1,
			 .jobs = 1,
			 .seed = 1,
			 .out = &outcome};
	struct sigaction action = {.sa_handler = on_signal};
	int rc;

	parse_options(&l, argc, argv);
	open_device(&l);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	rc = l.jobs > 1 ? run_jobs(&l) : run(&l);
	if (rc < 0)
		refuse("%s: %s", l.device, strerror(-rc));
	if (l.save_file) {
		rc = save_table(&l);
		if (rc < 0)
			refuse("--save %s: %s", l.save_file, strerror(-rc));
	}
	print_result(&l);
	return outcome.bad || outcome.failed;
}

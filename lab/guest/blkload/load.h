/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of blkload share: what was asked for, the state of a job, and what came of it.
 *
 *	main.c		jobs: who does it, and when
 *	phases.c	what a job does: fill, load, check
 *	options.c	the command line, and the region that fits the device
 *	engine.c	the ways to hand requests to the kernel
 *	verify.c	stamps in sectors, and the table of what each must hold
 *	clock.c		the time, as cheaply as it can be had
 *	report.c	histogram, percentiles, and the line of JSON
 */
#ifndef BLKLOAD_LOAD_H
#define BLKLOAD_LOAD_H

#include <liburing.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define SECTOR          512u
#define MAX_BLOCK       (4u << 20)
#define MAX_DEPTH       1024u
#define MAX_JOBS        64u
#define MAX_SECTORS     (1u << 28)
#define MAX_COMPLAINTS  10u
#define BUCKETS_PER_LOG 32u
#define BUCKETS         (64 * BUCKETS_PER_LOG)

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
	uint64_t started; /* ticks */
};

struct counts {
	uint64_t requests[OP_KINDS];
	uint64_t sectors[OP_KINDS];
};

/* What came of a run, or of a job's part in it. */
struct outcome {
	struct counts counts[PHASES];
	uint64_t checked, bad, failed;
	uint64_t latencies, latency_sum, latency_max; /* ticks */
	double load_seconds;
	bool fixed; /* the kernel knows buffers and file beforehand */
	uint64_t histogram[BUCKETS];
	uint64_t interrupts; /* of --interrupts, of the whole machine while the load ran */
};

struct engine;

struct load {
	/* what was asked for */
	char **devices;
	unsigned device_count;
	uint64_t first;                /* first sector of the region */
	uint64_t sectors;              /* in the region */
	uint32_t block_min, block_max; /* sectors */
	unsigned read_percent;
	bool sequential;
	const char *engine_name;
	unsigned depth, batch, submit;
	unsigned jobs; /* a device */
	unsigned seconds;
	uint64_t max_requests;
	uint64_t flush_every;
	unsigned progress; /* s */
	uint64_t seed;
	bool verify;
	bool histogram;
	const char *announce, *interrupts;
	const char *load_file, *save_file;

	/* the state of a job */
	const char *device;
	int fd;
	unsigned part;  /* of the region */
	int gate;       /* to the first process */
	uint32_t grain; /* sectors in a block of the device: all requests are multiples of it */
	struct engine *engine;
	struct slot *slots;
	unsigned *idle, idles; /* a stack of the slots that are free */
	uint32_t *expected;    /* with verify: the generation of each sector; 0: not known */
	unsigned char *busy;   /* with verify: sectors of requests in flight */
	uint32_t generation;   /* of the last write */
	uint64_t random;
	uint64_t cursor; /* the next sector, where the order is sequential */
	uint64_t writes_since_flush;
	uint64_t issued;

	struct outcome *out;
};

/* Says what is wrong, in one line, and ends the process with status 2. */
void refuse(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Fills in what was asked for; refuses what makes no sense. */
void parse_options(struct load *l, int argc, char **argv);

/* Opens the job's device, and fits the region to it: its part, where several jobs share it. */
void open_device(struct load *l);

/* Zeroed memory, or the end. */
void *allocate(size_t count, size_t size);

/* Set by a signal: no more requests, but the end in order. */
extern volatile sig_atomic_t phase_stopped;

/* Opens the job's device, and makes all ready that a phase needs. */
void phase_prepare(struct load *l);

/*
 * Does what was asked for, once prepared; or, without, all of a verified run: the region is filled
 * or its table loaded, and all of it checked in the end.  Return 0 or a negative errno.
 */
int phase_run_load(struct load *l);
int phase_run_verified(struct load *l);

/* Opens a way to the kernel for the job's device; each slot's buffer has so many bytes. */
struct engine *engine_open(struct load *l, size_t buffer);

/* Prepares a slot's request.  Returns false if there is no room for it now. */
bool engine_queue(struct engine *engine, struct slot *slot, uint64_t offset);

/* How many prepared requests wait to be handed over. */
unsigned engine_queued(const struct engine *engine);

/*
 * Hands over what is prepared, and waits until that many requests, of those in flight, are
 * complete. Returns 0 or a negative errno.
 */
int engine_submit(struct engine *engine, unsigned wait);

/* Calls the function for each request that is complete, with its bytes or a negative errno. */
void engine_reap(struct engine *engine, void (*done)(struct load *, struct slot *, int result));

/* Whether the kernel has been told of buffers and file. */
bool engine_is_fixed(const struct engine *engine);

/* Fills a slot's buffer with what its sectors shall hold, as a new generation. */
void stamp_slot(struct load *l, struct slot *slot);

/* Judges what a request has brought, or notes what it has written, if it was good. */
void check_slot(struct load *l, struct slot *slot, bool good);

/* Reads the table of generations from --load, and writes it to --save; refuses what fails. */
void load_table(struct load *l);
void save_table(struct load *l);

/*
 * clock_begin() finds out whether the time stamp counter serves as a clock, for which it takes some
 * 20 ms, or leaves it at the system's.  Ticks are of the one that it is.  clock_end(),
 * after the run, makes clock_ns() as exact as it can be, and returns how many times its first pace
 * the counter's was.
 */
void clock_begin(bool measuring);
double clock_end(void);
bool clock_is_tsc(void);
uint64_t clock_ticks(void);
uint64_t clock_ticks_of(uint64_t ns);
double clock_ns(double ticks);

/* The system's clock, in nanoseconds. */
uint64_t clock_system_ns(void);

/* Adds a latency to a histogram, and a job's outcome to the sum of all. */
void count_latency(struct outcome *out, uint64_t ticks);
void add_outcome(struct outcome *sum, const struct outcome *job);

/* Prints the line of JSON, with what clock_end() has returned. */
void print_result(const struct load *l, double pace);

#endif

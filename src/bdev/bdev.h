/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bdev: a block device as the data path sees it, whoever provides it.
 *
 * A bdev is made by its provider's create function, is found by its name, and is used through
 * channels, one for each reactor that does I/O on it; a channel and what is submitted to it belong
 * to that reactor's thread alone, so a provider needs no lock.  The registry and claims belong to
 * the control thread.
 *
 * An io belongs to its submitter until bdev_submit(), to the provider until its done is called,
 * then to the submitter again.  done is called exactly once, on the channel's reactor, possibly
 * before bdev_submit() has returned: a submitter must be prepared for both.
 */
#ifndef SLUICE_BDEV_BDEV_H
#define SLUICE_BDEV_BDEV_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"
#include "dma/dma.h"
#include "reactor/helper.h"

struct reactor;
struct bdev;
struct bdev_channel;

enum bdev_op {
	BDEV_READ,
	BDEV_WRITE,
	BDEV_FLUSH,   /* all writes completed before it was submitted become durable; no range */
	BDEV_DISCARD, /* the range's contents are no longer wanted; no data */
	BDEV_WRITE_ZEROES, /* the range reads as zeroes afterwards; no data */
};

struct bdev_io {
	enum bdev_op op;
	uint64_t offset; /* bytes, a multiple of block_size */
	uint64_t len;    /* bytes, a multiple of block_size; offset + len <= size */
	/* DISCARD: the contents must be gone for good, or the io fails */
	bool secure;
	/* WRITE_ZEROES: the device may give up the range's space as well */
	bool deallocate;
	/*
	 * READ, WRITE: iovcnt pieces that add up to len, each aligned to mem_align and a multiple
	 * of block_size long.
	 */
	const struct iovec *iov;
	int iovcnt;
	/*
	 * READ, WRITE, in place of iov (which is NULL then), only for a bdev with a dma: where its
	 * device finds the data, which the CPU may have no address of. So many pieces that add up
	 * to len, each a multiple of 512 bytes: see bdev_takes_pieces().
	 */
	const struct dma_piece *pieces;
	uint32_t nr_pieces;
	void (*done)(struct bdev_io *io);
	int result; /* set before done: 0 or a negative errno; a short transfer is -EIO */
	/* for the provider while it has the io */
	struct bdev_channel *ch;
	struct list node;
	uint64_t scratch;
	struct helper_job job;
};

/* What a bdev can take; fixed while it is claimed. Sizes in bytes. */
struct bdev_limits {
	uint32_t block_size;          /* of offsets and lengths: 512 or 4096 */
	uint32_t physical_block_size; /* smallest write without read-modify-write inside the device
				       */
	uint32_t mem_align;           /* of each iov's base, a power of two, at most 4096 */
	uint32_t max_iov;             /* pieces of one READ or WRITE; 0: any number */
	uint64_t max_io;              /* bytes of one READ or WRITE; 0: any */
	/*
	 * Of a READ or WRITE by pieces: its offset, its length and what lies between two gaps are
	 * multiples of it, a power of two; 0: of block_size. A gap is where a piece ends before its
	 * page does, or the next begins inside one.
	 */
	uint32_t piece_align;
	bool write_cache;     /* a completed WRITE is durable only after a FLUSH */
	bool discard;         /* DISCARD is taken; granularity and alignment are hints */
	uint64_t discard_max; /* bytes of one DISCARD; 0: any */
	uint32_t discard_granularity;
	uint32_t discard_alignment;
	uint64_t write_zeroes_max; /* bytes of one WRITE_ZEROES; 0: none is taken */
	bool secure_discard;       /* a secure DISCARD really erases: never a hint */
	bool volatile_data;        /* contents die with the daemon: its guests cannot outlive it */
};

struct bdev_ops {
	const char *product; /* "null", "ram", "uring", "aio": the type in commands and listings */
	/* Frees the bdev. No channel is open. */
	void (*destroy)(struct bdev *b);
	/* Both on the reactor's thread; nothing is in flight at close. */
	int (*channel_open)(struct bdev *b, struct reactor *r, struct bdev_channel **ch);
	void (*channel_close)(struct bdev_channel *ch);
	/*
	 * Takes the io; it may be held back until the end of the pass, so that one system call
	 * submits all of a pass. Never fails: an error is an io's result.
	 */
	void (*submit)(struct bdev_channel *ch, struct bdev_io *io);
	/*
	 * Optional: the io, which is the submitter's still, comes after the next one that is
	 * submitted. What the CPU would have to wait for then can be on its way meanwhile.
	 */
	void (*prefetch)(struct bdev_channel *ch, const struct bdev_io *io);
	/*
	 * Optional, on the control thread: makes room for @size bytes, more than the bdev has now
	 * and of a good shape; what reactors use stays where it is. Returns 0, or a negative errno
	 * with the line in @err.
	 */
	int (*resize)(struct bdev *b, uint64_t size, struct err *err);
	/*
	 * Optional, both or neither, where the size is that of a file or a device, which grows
	 * without us. The first, on the control thread, opens a descriptor to measure by, or
	 * returns a negative errno; it holds nothing that the bdev's deletion should set free.
	 * The second measures, in bytes, on any thread and as long as it takes; the bdev may be
	 * gone by then. Returns 0 or a negative errno.
	 */
	int (*probe_open)(const struct bdev *b);
	int (*probe_measure)(int fd, uint64_t *size);
	/*
	 * The JSON-RPC parameters that would create it again, e.g. {"name":..,"filename":..},
	 * and with them the name of that method in *@method. New reference; NULL without memory.
	 */
	json_t *(*config)(const struct bdev *b, const char **method);
};

struct bdev {
	char name[64];
	const struct bdev_ops *ops;
	uint64_t size; /* bytes, a multiple of limits.block_size; reactors use bdev_get_size() */
	struct bdev_limits limits;
	bool readonly; /* WRITE, DISCARD and WRITE_ZEROES are refused with -EROFS */
	bool shared;   /* its creator asked to share it */
	/*
	 * Its device fetches and writes data by itself: from memory of this kind without a copy,
	 * so that is what bounce pages for it are best made of. NULL: data goes through the CPU.
	 */
	struct dma *dma;
	/*
	 * The bdev that this one is a part of (a partition), NULL: of none. The two exclude each
	 * other, shared or not, and the whole is there as long as its parts. A part has no parts.
	 */
	struct bdev *whole;
	uint32_t part;  /* which of its parts, from 1; 0: it is none */
	char label[40]; /* what the partition is called; printable */
	/*
	 * What this bdev was made with and goes with, say an NVMe controller: it is neither saved
	 * nor deleted by itself. Empty: nothing.
	 */
	char owner[64];
	/* private */
	struct list node;
	unsigned claims;
	bool claims_shared;
	unsigned channels;
	struct bdev *sectors; /* bdev_sectors(); NULL: itself */
	uint64_t id;          /* no other ever has it */
	int64_t seen;         /* bytes last measured, or why they could not be */
};

/* A provider embeds this at the start of its own channel. */
struct bdev_channel {
	struct bdev *bdev;
	struct reactor *reactor;
};

/*
 * Providers. Each checks its arguments, opens what it serves and registers the bdev; *@out may be
 * NULL. On error: a negative errno, *err says the cause and the remedy, nothing is left behind.
 * EEXIST: the name is taken. EBUSY: somebody else has the file locked or the device open.
 */
int bdev_null_create(const char *name, uint64_t size, uint32_t block_size, struct bdev **out,
		     struct err *err);
int bdev_ram_create(const char *name, uint64_t size, uint32_t block_size, struct bdev **out,
		    struct err *err);
struct bdev_file_opts {
	const char *filename; /* a regular file or a block device */
	bool readonly;
	bool shared; /* others that also ask to share may have it open */
};
/* By io_uring; -ENOSYS with the remedy (use aio) where the kernel has none or forbids it. */
int bdev_uring_create(const char *name, const struct bdev_file_opts *opts, struct bdev **out,
		      struct err *err);
/* By Linux aio, for kernels without io_uring. */
int bdev_aio_create(const char *name, const struct bdev_file_opts *opts, struct bdev **out,
		    struct err *err);

/*
 * For providers, to be asked before they open or allocate anything. Copies @name to @b; -EINVAL (no
 * name) or -EEXIST (taken) with the reason.
 */
int bdev_set_name(struct bdev *b, const char *name, struct err *err);
/* -EINVAL with the reason unless @block_size is 512 or 4096 and @size a multiple above 0. */
int bdev_check_shape(uint64_t size, uint32_t block_size, struct err *err);
/* For providers: makes the filled-in @b findable. -EEXIST or -EINVAL (bad name) with the reason. */
int bdev_register(struct bdev *b, struct err *err);

/* Who is told of bdevs, on the control thread; each callback is optional. */
struct bdev_observer {
	/* One was registered or released: somebody who waits for one may be luckier. */
	void (*changed)(void *arg);
	/* @b has grown. */
	void (*resized)(struct bdev *b, void *arg);
	void *arg;
	/* private */
	struct list node;
};
void bdev_observe(struct bdev_observer *o);
/* Nothing happens if it does not, or never did (it is zeroed). Not from another's callback. */
void bdev_unobserve(struct bdev_observer *o);

struct bdev *bdev_find(const char *name);
/* Iterates over all bdevs by name: NULL starts; returns NULL at the end. */
struct bdev *bdev_next(const struct bdev *b);
/* Destroys it; -ENOENT, or -EBUSY while it is claimed or has parts. */
int bdev_delete(const char *name, struct err *err);
/* Destroys all; for the daemon's end. None may be claimed. */
void bdev_delete_all(void);

/*
 * Claims @b for one user (a virtual disk). A second claim is refused (-EBUSY) unless both asked to
 * share, by @shared or because the bdev was created shared; so is one of a part of a claimed bdev,
 * or of one with a claimed part. -EROFS: @write on a read-only bdev.
 */
int bdev_claim(struct bdev *b, bool write, bool shared, struct err *err);
void bdev_release(struct bdev *b);

/* Its size in bytes now; it may grow at any time, and never shrinks. From any thread. */
static inline uint64_t bdev_get_size(const struct bdev *b)
{
	/* Pairs with the release in bdev_set_size(): what was made ready for the new size is there.
	 */
	return __atomic_load_n(&b->size, __ATOMIC_ACQUIRE);
}
/* What bdev_resize() would say of that size, as far as it can be told beforehand. */
int bdev_check_resize(const struct bdev *b, uint64_t size, struct err *err);
/*
 * Makes @b @size bytes large. -EINVAL: smaller than it is, or no good shape; -EOPNOTSUPP: of a kind
 * whose size is not ours to choose; or what the provider says. Nothing has changed on error.
 */
int bdev_resize(struct bdev *b, uint64_t size, struct err *err);
/* For providers: the bdev has become @size bytes large, and is ready for it. Control thread. */
void bdev_set_size(struct bdev *b, uint64_t size);
/*
 * The watch over bdevs on files and devices: those that are claimed are measured every two seconds
 * by @control's helper threads, and grow when what is behind them has. Control thread.
 */
void bdev_watch_start(struct reactor *control);
/*
 * Rescans that wait are done with -ECANCELED. Nothing happens if it was not started. The helper
 * threads must have ended, and @control not go on.
 */
void bdev_watch_stop(void);
struct bdev_rescan {
	/*
	 * The bdev is as large now as what is behind it (0), or a negative errno with the line in
	 * @err: -EINVAL if that has shrunk, which changes nothing.
	 */
	void (*done)(struct bdev_rescan *r, int result, const struct err *err);
	/* private */
	struct list node;
	uint64_t id;
};
/*
 * Measures @b anew, after the rescans before it; @r->done is called on the control thread, perhaps
 * before this returns. @b may be deleted meanwhile. The watch must have been started.
 */
void bdev_rescan(struct bdev *b, struct bdev_rescan *r);

/*
 * @b in sectors of 512 bytes: itself if those are its blocks, else a bdev in front of it that makes
 * sectors of blocks. Channels are opened and ios submitted there; it is claimed, resized and
 * deleted as @b, and is gone with it. A secure DISCARD of parts of blocks is refused (-EINVAL).
 */
struct bdev *bdev_sectors(struct bdev *b);

/* Opens a channel of @b on the calling reactor. Returns 0 or a negative errno. */
int bdev_channel_open(struct bdev *b, struct reactor *r, struct bdev_channel **ch);
void bdev_channel_close(struct bdev_channel *ch);

/*
 * Whether @b takes the READ or WRITE with its pieces as they lie. Of their addresses only those
 * within the pages are looked at: the pages need not be known yet.
 */
bool bdev_takes_pieces(const struct bdev *b, const struct bdev_io *io);

/* Submits an io that keeps to the limits (checked: else done with -EINVAL, or -EROFS, -EOPNOTSUPP).
 */
void bdev_submit(struct bdev_channel *ch, struct bdev_io *io);

/* A hint that @io, whose fields are set, comes soon; what is submitted next is another one. */
static inline void bdev_prefetch(struct bdev_channel *ch, const struct bdev_io *io)
{
	if (ch->bdev->ops->prefetch)
		ch->bdev->ops->prefetch(ch, io);
}

#endif

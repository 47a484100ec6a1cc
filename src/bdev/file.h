/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a bdev on a file or a kernel block device is, whichever engine moves its data: opened,
 * locked against other users, measured, discarded and flushed in one way.
 */
#ifndef SLUICE_BDEV_FILE_H
#define SLUICE_BDEV_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/log.h"
#include "bdev/bdev.h"

struct bdev_file {
	struct bdev bdev;
	char *filename;
	int fd;
	bool device; /* a block device, else a regular file */
	dev_t rdev;  /* of the block device */
	bool direct; /* past the page cache */
	/* The file system refused a discard it was thought to take: from now on none is tried. */
	atomic_bool discard_refused;
};

struct bdev_queue;

struct bdev_file_channel {
	struct bdev_channel ch;
	struct bdev_queue *queue; /* the engine's */
	struct log_limit errors;
};

static inline struct bdev_file_channel *bdev_file_channel_of(struct bdev_channel *ch)
{
	return container_of(ch, struct bdev_file_channel, ch);
}

static inline struct bdev_file *bdev_file_of(struct bdev *b)
{
	return container_of(b, struct bdev_file, bdev);
}

/* A provider's create function: opens opts->filename as bdev @name, served by @ops. */
int bdev_file_create(const struct bdev_ops *ops, const char *name,
		     const struct bdev_file_opts *opts, struct bdev **out, struct err *err);
/* A provider's destroy. */
void bdev_file_destroy(struct bdev *b);
/* A provider's probe_open and probe_measure. */
int bdev_file_probe_open(const struct bdev *b);
int bdev_file_probe_measure(int fd, uint64_t *size);
/* The parameters of a provider's config. */
json_t *bdev_file_config(const struct bdev *b);

/*
 * Both take an io of a channel on a file, do it on a helper thread (on a reactor without helpers:
 * here and now) and complete it on the channel's reactor.
 */
void bdev_file_discard(struct bdev_io *io);
void bdev_file_flush(struct bdev_io *io);

/* Ends an io of a channel on a file with 0 or a negative errno, which goes to the log. */
void bdev_file_complete(struct bdev_io *io, int result);

#endif

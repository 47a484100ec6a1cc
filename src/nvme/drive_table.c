/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A short walk: the first block, the header, its entries; and if the header or its entries are
 * damaged, the other header in the last block and its entries.
 */
#include "nvme/drive_table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum step { STEP_MBR, STEP_HEADER, STEP_ENTRIES };

struct drive_table {
	struct bdev_channel *ch;
	struct bdev_io io;
	struct iovec iov;
	struct reactor_msg next; /* an io may be done before its submission has returned */
	enum step step;
	bool backup; /* the other header is being looked at */
	struct gpt_header header;
	struct gpt_part parts[GPT_PARTS_MAX];
	void (*done)(void *arg, int rc, const struct gpt_part *parts, unsigned refused,
		     const struct err *err);
	void *arg;
	void *buffer; /* room for the entries */
};

static void free_table(struct drive_table *t)
{
	free(t->buffer);
	free(t);
}

static void finish(struct drive_table *t, int rc, unsigned refused, const struct err *err)
{
	bdev_channel_close(t->ch);
	t->done(t->arg, rc, t->parts, refused, err);
	free_table(t);
}

static void read_blocks(struct drive_table *t, enum step step, uint64_t lba, uint32_t len)
{
	uint32_t block_size = t->ch->bdev->limits.block_size;

	t->step = step;
	t->iov.iov_base = t->buffer;
	t->iov.iov_len = (len + block_size - 1) / block_size * block_size;
	t->io.op = BDEV_READ;
	t->io.offset = lba * block_size;
	t->io.len = t->iov.iov_len;
	bdev_submit(t->ch, &t->io);
}

/* What has been read makes no sense: the backup is asked, once. */
static void look_elsewhere(struct drive_table *t, const struct err *why)
{
	uint64_t last = t->header.blocks - 1;
	struct err err;

	if (t->backup) {
		err_set(&err, -EINVAL,
			"bdev \"%s\": its partition table and the copy are damaged: %.200s (repair "
			"it, e.g. with gdisk)",
			t->ch->bdev->name, why->text);
		finish(t, -EINVAL, 0, &err);
		return;
	}
	log_warning("bdev \"%s\": its partition table is damaged, the copy is used: %s",
		    t->ch->bdev->name, why->text);
	t->backup = true;
	read_blocks(t, STEP_HEADER, last, 1);
}

static void use_mbr(struct drive_table *t)
{
	switch (gpt_check_mbr(t->buffer)) {
	case GPT_MBR_GUARD:
		read_blocks(t, STEP_HEADER, 1, 1);
		return;
	case GPT_MBR_LEGACY:
		log_info("bdev \"%s\": partitions of an MBR are not served, only a GPT's",
			 t->ch->bdev->name);
		break;
	case GPT_MBR_NONE:
		break;
	}
	finish(t, 0, 0, NULL);
}

static void use_header(struct drive_table *t)
{
	struct err err;
	uint64_t blocks = t->header.blocks;

	if (gpt_parse_header(t->buffer, t->ch->bdev->limits.block_size, t->backup ? blocks - 1 : 1,
			     blocks, &t->header, &err))
		look_elsewhere(t, &err);
	else
		read_blocks(t, STEP_ENTRIES, t->header.entries_lba, gpt_entries_len(&t->header));
}

static void use_entries(struct drive_table *t)
{
	unsigned refused;
	struct err err;
	int n = gpt_parse_entries(&t->header, t->buffer, t->parts, &refused, &err);

	if (n < 0)
		look_elsewhere(t, &err);
	else
		finish(t, n, refused, NULL);
}

static void go_on(struct reactor_msg *msg)
{
	struct drive_table *t = container_of(msg, struct drive_table, next);
	struct err err;

	if (t->io.result) {
		err_set(&err, t->io.result, "bdev \"%s\": cannot read its partition table: %s",
			t->ch->bdev->name, strerror(-t->io.result));
		if (t->step != STEP_MBR && !t->backup)
			look_elsewhere(t, &err);
		else
			finish(t, t->io.result, 0, &err);
		return;
	}
	switch (t->step) {
	case STEP_MBR:
		use_mbr(t);
		break;
	case STEP_HEADER:
		use_header(t);
		break;
	case STEP_ENTRIES:
		use_entries(t);
		break;
	}
}

static void io_done(struct bdev_io *io)
{
	struct drive_table *t = container_of(io, struct drive_table, io);

	reactor_send(t->ch->reactor, &t->next);
}

int drive_table_read(struct bdev *whole, struct reactor *r,
		     void (*done)(void *arg, int rc, const struct gpt_part *parts, unsigned refused,
				  const struct err *err),
		     void *arg, struct err *err)
{
	struct drive_table *t = calloc(1, sizeof(*t));
	int rc = -ENOMEM;

	if (t)
		t->buffer = aligned_alloc(4096, GPT_ENTRIES_MAX);
	if (t && t->buffer)
		rc = bdev_channel_open(whole, r, &t->ch);
	if (rc) {
		if (t)
			free_table(t);
		return err_set(err, rc, "bdev \"%s\": cannot read its partition table: %s",
			       whole->name, strerror(-rc));
	}
	t->header.blocks = bdev_get_size(whole) / whole->limits.block_size;
	t->io.iov = &t->iov;
	t->io.iovcnt = 1;
	t->io.done = io_done;
	t->next.fn = go_on;
	t->done = done;
	t->arg = arg;
	read_blocks(t, STEP_MBR, 0, 1);
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/hand.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/parse.h"
#include "manager/say.h"
#include "sivshm_items.h"

enum { HEAD = sizeof(struct sivshm_items_head) };

static int violation(struct hand *h, const char *why)
{
	h->why = why;
	return -EPROTO;
}

static void put_head(void *room, enum sivshm_items_kind kind, uint32_t code, uint64_t item)
{
	const struct sivshm_items_head head = {htole32(kind), htole32(code), htole64(item)};

	memcpy(room, &head, HEAD);
}

/* Returns 0, -EAGAIN or -EPROTO. */
static int send_head(struct hand *h, enum sivshm_items_kind kind, uint32_t code, uint64_t item,
		     const char *body, size_t bytes)
{
	void *room;
	int rc = sivshm_channel_reserve(h->channel, HEAD + bytes, &room);

	if (rc)
		return rc == -EAGAIN ? rc : violation(h, "it has broken its ring");
	put_head(room, kind, code, item);
	if (bytes)
		memcpy((char *)room + HEAD, body, bytes);
	sivshm_channel_commit(h->channel, HEAD + bytes);
	h->pushes = true;
	return 0;
}

int hand_open(struct hand *h, struct sivshm_port *port, size_t result_max)
{
	const struct sivshm_channel_opts opts = {.struct_bytes = sizeof(opts)};
	int rc;

	*h = (struct hand){.held_max = result_max, .fd = -1, .stamp_ns = clock_now_ns()};
	h->last = &h->first;
	rc = sivshm_channel_create(port, &opts, &h->channel);
	if (rc)
		return rc;
	if (sivshm_channel_max(h->channel) < SIVSHM_ITEMS_MESSAGE_MAX)
		rc = -EMSGSIZE;
	else
		rc = send_head(h, SIVSHM_ITEMS_HELLO, SIVSHM_ITEMS_VERSION, 0, NULL, 0);
	if (rc) {
		sivshm_channel_destroy(h->channel);
		h->channel = NULL;
	}
	return rc;
}

static void close_file(struct hand *h)
{
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
}

unsigned hand_close(struct hand *h, struct item_list *back)
{
	unsigned count = h->count;
	struct item *i, *next;

	if (h->channel)
		sivshm_channel_destroy(h->channel);
	h->channel = NULL;
	close_file(h);
	for (i = h->first; i; i = next) {
		next = i->next;
		item_reset(i);
		item_list_add(back, i);
	}
	h->first = NULL;
	h->last = &h->first;
	h->sending = NULL;
	h->count = 0;
	return count;
}

void hand_give(struct hand *h, struct item *i)
{
	if (!h->count)
		h->stamp_ns = clock_now_ns();
	i->next = NULL;
	*h->last = i;
	h->last = &i->next;
	h->count++;
}

/* The next item that has not been begun. */
static bool begin(struct hand *h)
{
	struct item *i;

	for (i = h->first; i && i->ended; i = i->next)
		;
	h->sending = i;
	h->named = false;
	return i;
}

/* A file is opened when it is its turn: who knows how many there are. */
static void open_file(struct hand *h)
{
	struct item *i = h->sending;
	struct stat st;

	h->fd = open(i->name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (h->fd >= 0 && (fstat(h->fd, &st) || !S_ISREG(st.st_mode))) {
		say("cannot read '%s': it is no file any more", item_shown(i));
		close_file(h);
		i->failed = true;
	} else if (h->fd < 0) {
		say("cannot read '%s': %m", item_shown(i));
		i->failed = true;
	}
}

static int send_name(struct hand *h)
{
	size_t bytes = strnlen(h->sending->name, SIVSHM_ITEMS_NAME_MAX);
	int rc = send_head(h, SIVSHM_ITEMS_ITEM, 0, h->sending->id, h->sending->name, bytes);

	if (rc)
		return rc;
	h->named = true;
	if (!h->sending->data)
		open_file(h);
	return 0;
}

/* Puts the next piece of the data at @to. Returns its bytes; 0: there is no more. */
static size_t fetch(struct hand *h, void *to, size_t max)
{
	struct item *i = h->sending;
	ssize_t n;

	if (i->data) {
		size_t left = i->bytes - i->sent, piece = left < max ? left : max;

		memcpy(to, i->data + i->sent, piece);
		return piece;
	}
	if (h->fd < 0)
		return 0;
	do {
		n = read(h->fd, to, max);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		say("cannot read '%s': %m", item_shown(i));
		i->failed = true;
		return 0;
	}
	return (size_t)n;
}

/* Reads straight into the segment; when nothing is left the room is the END's. */
static int send_piece(struct hand *h)
{
	enum { PIECE = SIVSHM_ITEMS_MESSAGE_MAX - HEAD };
	struct item *i = h->sending;
	size_t bytes;
	void *room;
	int rc = sivshm_channel_reserve(h->channel, HEAD + PIECE, &room);

	if (rc)
		return rc == -EAGAIN ? rc : violation(h, "it has broken its ring");
	bytes = fetch(h, (char *)room + HEAD, PIECE);
	if (bytes) {
		put_head(room, SIVSHM_ITEMS_DATA, 0, i->id);
		i->sent += bytes;
	} else {
		put_head(room, SIVSHM_ITEMS_END, i->failed, i->id);
		i->ended = true;
		close_file(h);
	}
	sivshm_channel_commit(h->channel, HEAD + bytes);
	h->pushes = true;
	return 0;
}

ssize_t hand_send(struct hand *h, size_t budget)
{
	size_t sent = 0;
	int rc = 0;

	while (sent < budget && !rc) {
		if ((!h->sending || h->sending->ended) && !begin(h))
			break;
		rc = h->named ? send_piece(h) : send_name(h);
		if (!rc)
			sent += SIVSHM_ITEMS_MESSAGE_MAX;
	}
	if (rc && rc != -EAGAIN)
		return rc;
	/* There was room, so what was sent before has been read. */
	if (sent)
		h->stamp_ns = clock_now_ns();
	return (ssize_t)sent;
}

static struct item **find(struct hand *h, uint64_t id)
{
	struct item **at = &h->first;

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	/* Not begun, not known. */
	return *at && ((*at)->ended || (*at == h->sending && h->named)) ? at : NULL;
}

static int take_result(struct hand *h, struct item *i, const void *data, size_t bytes)
{
	if (bytes > h->held_max - h->held)
		return violation(h, "its results are larger than --max-result");
	if (item_add_result(i, data, bytes))
		return violation(h, "there is no memory for its results");
	h->held += bytes;
	return 1;
}

static int take_done(struct hand *h, struct item **at, uint32_t code, const char *text,
		     size_t bytes, struct item **done)
{
	char copy[SIVSHM_ITEMS_TEXT_MAX + 1];
	struct item *i = *at;

	if (!i->ended)
		return violation(h, "it has done an item before its end");
	if (code > 1 || bytes > SIVSHM_ITEMS_TEXT_MAX)
		return violation(h, "it speaks another protocol");
	*at = i->next;
	if (h->last == &i->next)
		h->last = at;
	if (h->sending == i)
		h->sending = NULL;
	h->count--;
	h->held -= i->result_bytes;
	i->next = NULL;
	if (code && !i->failed) {
		memcpy(copy, text, bytes);
		copy[bytes] = '\0';
		parse_make_printable(copy);
		say("a worker could not do '%s': %s", item_shown(i), copy);
		i->failed = true;
	}
	*done = i;
	return 1;
}

static int take_message(struct hand *h, const char *data, size_t bytes, struct item **done)
{
	struct sivshm_items_head head;
	struct item **at;

	if (bytes < HEAD || bytes > SIVSHM_ITEMS_MESSAGE_MAX)
		return violation(h, "its message has a wrong size");
	/* Copied once: the worker can write there still. */
	memcpy(&head, data, HEAD);
	head.kind = le32toh(head.kind);
	head.code = le32toh(head.code);
	if (!h->greeted) {
		if (head.kind != SIVSHM_ITEMS_HELLO || head.code != SIVSHM_ITEMS_VERSION)
			return violation(h, "it speaks another protocol");
		h->greeted = true;
		return 1;
	}
	if (head.kind != SIVSHM_ITEMS_RESULT && head.kind != SIVSHM_ITEMS_DONE)
		return violation(h, "it speaks another protocol");
	at = find(h, le64toh(head.item));
	if (!at)
		return violation(h, "it answers an item that it does not have");
	if (head.kind == SIVSHM_ITEMS_RESULT)
		return take_result(h, *at, data + HEAD, bytes - HEAD);
	return take_done(h, at, head.code, data + HEAD, bytes - HEAD, done);
}

int hand_receive(struct hand *h, struct item **done)
{
	const void *data;
	size_t bytes;
	int rc = sivshm_channel_receive(h->channel, &data, &bytes);

	*done = NULL;
	if (rc < 0)
		return violation(h, "it has broken its ring");
	if (!rc)
		return 0;
	h->stamp_ns = clock_now_ns();
	return take_message(h, data, bytes, done);
}

void hand_settle(struct hand *h)
{
	sivshm_channel_release(h->channel);
	/* One that cannot be rung is gone, which is noticed elsewhere. */
	if (h->pushes)
		(void)sivshm_channel_push(h->channel);
	h->pushes = false;
}

bool hand_arm(struct hand *h)
{
	int rc = sivshm_channel_arm(h->channel);

	/* What is wrong with the ring shows when it is used. */
	if (!rc && (h->sending ? !h->sending->ended : h->first && !h->first->ended))
		rc = sivshm_channel_arm_room(h->channel, SIVSHM_ITEMS_MESSAGE_MAX);
	return rc;
}

void hand_finish(struct hand *h)
{
	if (!send_head(h, SIVSHM_ITEMS_FINISH, 0, 0, NULL, 0))
		hand_settle(h);
}

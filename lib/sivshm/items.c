/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's side of items (sivshm_items.h), by ports and channels as anybody has them: a sequence
 * of messages is read by a small state machine, results are collected until they fill a message.
 */
#include "internal.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sivshm_items.h"

enum {
	HEAD = sizeof(struct sivshm_items_head),
	RESULT_MAX = SIVSHM_ITEMS_MESSAGE_MAX - HEAD,
	LOOK_MS = 10, /* nobody rings when a channel is there */
};

enum state {
	STATE_IDLE,  /* no item */
	STATE_DATA,  /* its data is coming */
	STATE_ENDED, /* all of it came */
	STATE_FINISHED,
};

struct sivshm_items {
	struct sivshm_port *port;
	struct sivshm_channel *channel;
	enum state state;
	int broken;      /* nothing works any more, and why */
	bool incomplete; /* the item's data */
	uint64_t id;
	size_t pending; /* bytes of result[] */
	char name[SIVSHM_ITEMS_NAME_MAX + 1];
	char result[RESULT_MAX];
};

static int break_off(struct sivshm_items *s, int why)
{
	s->broken = why;
	return why;
}

/* Waits for a message and copies its head. What follows it is at *@body. */
static int receive(struct sivshm_items *s, struct sivshm_items_head *head, const void **body,
		   size_t *bytes, int timeout_ms)
{
	const void *data;
	size_t n;
	int rc;

	if (s->broken < 0)
		return s->broken;
	sivshm_channel_release(s->channel);
	while (!(rc = sivshm_channel_receive(s->channel, &data, &n))) {
		rc = sivshm_channel_wait(s->channel, timeout_ms);
		if (!rc && timeout_ms >= 0)
			return -ETIMEDOUT;
		if (rc < 0 && rc != -EINTR)
			break;
	}
	if (rc < 0)
		return break_off(s, rc);
	if (n < HEAD || n > SIVSHM_ITEMS_MESSAGE_MAX)
		return break_off(s, -EPROTO);
	memcpy(head, data, HEAD);
	head->kind = le32toh(head->kind);
	head->code = le32toh(head->code);
	head->item = le64toh(head->item);
	*body = (const char *)data + HEAD;
	*bytes = n - HEAD;
	return 1;
}

/* Sends a message, and waits for room where there is none. */
static int send_message(struct sivshm_items *s, uint32_t kind, uint32_t code, const void *body,
			size_t bytes)
{
	const struct sivshm_items_head head = {htole32(kind), htole32(code), htole64(s->id)};
	void *room;
	int rc;

	if (s->broken)
		return s->broken;
	while ((rc = sivshm_channel_reserve(s->channel, HEAD + bytes, &room)) == -EAGAIN) {
		rc = sivshm_channel_wait_room(s->channel, HEAD + bytes, -1);
		if (rc < 0 && rc != -EINTR)
			break;
	}
	if (rc < 0)
		return break_off(s, rc);
	memcpy(room, &head, HEAD);
	if (bytes)
		memcpy((char *)room + HEAD, body, bytes);
	sivshm_channel_commit(s->channel, HEAD + bytes);
	rc = sivshm_channel_push(s->channel);
	return rc ? break_off(s, rc) : 0;
}

static int greet(struct sivshm_items *s, int timeout_ms)
{
	struct sivshm_items_head head;
	const void *body;
	size_t bytes;
	int rc = receive(s, &head, &body, &bytes, timeout_ms);

	if (rc < 0)
		return rc;
	if (head.kind != SIVSHM_ITEMS_HELLO || head.code != SIVSHM_ITEMS_VERSION)
		return -EPROTO;
	return send_message(s, SIVSHM_ITEMS_HELLO, SIVSHM_ITEMS_VERSION, NULL, 0);
}

/* The manager lays the channel out; in a guest that can be later than the device is seen. */
static int attach(struct sivshm_items *s, int timeout_ms)
{
	const struct sivshm_channel_opts opts = {.struct_bytes = sizeof(opts)};
	int64_t deadline = sivshm_deadline(timeout_ms);
	int rc;

	while ((rc = sivshm_channel_attach(s->port, &opts, &s->channel)) == -EAGAIN) {
		int left = sivshm_deadline_left(deadline);

		if (!left)
			return -ETIMEDOUT;
		rc = sivshm_port_wait(s->port, 0, left < 0 || left > LOOK_MS ? LOOK_MS : left);
		if (rc < 0 && rc != -EINTR)
			return rc;
	}
	if (!rc && sivshm_channel_max(s->channel) < SIVSHM_ITEMS_MESSAGE_MAX)
		rc = -EPROTO;
	return rc;
}

int sivshm_items_open(const char *where, int timeout_ms, struct sivshm_items **out)
{
	struct sivshm_items *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	rc = sivshm_open(where, timeout_ms, &s->port);
	if (!rc)
		rc = attach(s, timeout_ms);
	if (!rc)
		rc = greet(s, timeout_ms);
	if (rc) {
		sivshm_items_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void sivshm_items_close(struct sivshm_items *s)
{
	if (!s)
		return;
	if (s->channel)
		sivshm_channel_destroy(s->channel);
	if (s->port)
		sivshm_port_close(s->port);
	free(s);
}

int sivshm_items_next(struct sivshm_items *s, struct sivshm_item *item)
{
	struct sivshm_items_head head;
	const void *body;
	size_t bytes;
	int rc;

	if (s->state == STATE_FINISHED)
		return 0;
	if (s->state != STATE_IDLE)
		return -EINVAL;
	rc = receive(s, &head, &body, &bytes, -1);
	if (rc < 0)
		return rc;
	if (head.kind == SIVSHM_ITEMS_FINISH) {
		s->state = STATE_FINISHED;
		return 0;
	}
	if (head.kind != SIVSHM_ITEMS_ITEM || bytes > SIVSHM_ITEMS_NAME_MAX)
		return break_off(s, -EPROTO);
	memcpy(s->name, body, bytes);
	s->name[bytes] = '\0';
	s->id = head.item;
	s->state = STATE_DATA;
	s->incomplete = false;
	s->pending = 0;
	item->id = s->id;
	item->name = s->name;
	return 1;
}

int sivshm_items_read(struct sivshm_items *s, const void **data, size_t *bytes)
{
	struct sivshm_items_head head;
	int rc;

	if (s->state == STATE_ENDED)
		return s->incomplete ? -EIO : 0;
	if (s->state != STATE_DATA)
		return -EINVAL;
	rc = receive(s, &head, data, bytes, -1);
	if (rc < 0)
		return rc;
	if (head.item != s->id)
		return break_off(s, -EPROTO);
	if (head.kind == SIVSHM_ITEMS_DATA)
		return 1;
	if (head.kind != SIVSHM_ITEMS_END)
		return break_off(s, -EPROTO);
	s->state = STATE_ENDED;
	s->incomplete = head.code != 0;
	return s->incomplete ? -EIO : 0;
}

static int send_result(struct sivshm_items *s)
{
	int rc = send_message(s, SIVSHM_ITEMS_RESULT, 0, s->result, s->pending);

	s->pending = 0;
	return rc;
}

int sivshm_items_write(struct sivshm_items *s, const void *data, size_t bytes)
{
	const char *at = data;
	int rc = 0;

	if (s->state != STATE_DATA && s->state != STATE_ENDED)
		return -EINVAL;
	while (bytes && !rc) {
		size_t n = RESULT_MAX - s->pending;

		if (n > bytes)
			n = bytes;
		memcpy(s->result + s->pending, at, n);
		s->pending += n;
		at += n;
		bytes -= n;
		if (s->pending == RESULT_MAX)
			rc = send_result(s);
	}
	return rc;
}

int sivshm_items_done(struct sivshm_items *s, const char *failure)
{
	size_t bytes = failure ? strnlen(failure, SIVSHM_ITEMS_TEXT_MAX) : 0;
	const void *data;
	size_t skipped;
	int rc;

	if (s->state != STATE_DATA && s->state != STATE_ENDED)
		return -EINVAL;
	do {
		rc = sivshm_items_read(s, &data, &skipped);
	} while (rc == 1);
	if (rc < 0 && rc != -EIO)
		return rc;
	rc = s->pending ? send_result(s) : 0;
	if (!rc)
		rc = send_message(s, SIVSHM_ITEMS_DONE, failure != NULL, failure, bytes);
	s->state = STATE_IDLE;
	return rc;
}

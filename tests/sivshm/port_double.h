/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ports for tests of channels alone: two sides of memory that ends where nothing can be reached any
 * more, so that one byte too far is a fault, with or without a sanitizer.
 */
#ifndef SIVSHM_TEST_PORT_DOUBLE_H
#define SIVSHM_TEST_PORT_DOUBLE_H

#include "sivshm.h"

enum { PORT_DOUBLE_VECTORS = 2 };

struct port_pair {
	struct sivshm_port *manager;
	struct sivshm_port *worker;
};

/* Makes both sides of a segment of @bytes, all zero. */
struct port_pair port_pair_make(size_t bytes);
void port_pair_free(struct port_pair pair);
/* How often @vector of this side was rung so far. */
unsigned port_double_rings(const struct sivshm_port *p, unsigned vector);
/* This side's peer is gone as soon as this side waits, and then, before, @last_words (or NULL). */
void port_double_lose_peer(struct sivshm_port *p, void (*last_words)(void));

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* The progress line: kept on a terminal, printed now and then where it is asked for elsewhere. */
#ifndef SLUICE_MANAGER_PROGRESS_H
#define SLUICE_MANAGER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool terminal, wanted;
	uint64_t started_ns, shown_ns, shown_bytes;
};

struct progress_state {
	uint64_t bytes, items; /* done */
	unsigned alive, workers, in_flight;
};

void progress_init(struct progress *p, bool wanted, uint64_t now_ns);
/* Shows the state if it is time to. */
void progress_show(struct progress *p, const struct progress_state *state, uint64_t now_ns);
/* Shows it as the last line. */
void progress_finish(struct progress *p, const struct progress_state *state, uint64_t now_ns);

#endif

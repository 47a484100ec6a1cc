/* SPDX-License-Identifier: BSD-2-Clause */
#include "manager/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "manager/say.h"

enum { TEXT = 16 };

void progress_init(struct progress *p, bool wanted, uint64_t now_ns)
{
	*p = (struct progress){.terminal = isatty(STDERR_FILENO), .started_ns = now_ns};
	p->wanted = wanted || p->terminal;
	p->shown_ns = now_ns;
}

static const char *size_text(double bytes, char *out)
{
	static const char units[] = "BKMGT";
	unsigned unit = 0;

	for (; bytes >= 1024 && units[unit + 1]; unit++)
		bytes /= 1024;
	snprintf(out, TEXT, unit ? "%.1f%c" : "%.0f%c", bytes, units[unit]);
	return out;
}

static void format(const struct progress_state *s, double rate, char *line, size_t room)
{
	char bytes[TEXT], speed[TEXT];

	snprintf(line, room,
		 "%s done, %s/s, %" PRIu64 " items, %u of %u workers alive, %u in flight",
		 size_text((double)s->bytes, bytes), size_text(rate, speed), s->items, s->alive,
		 s->workers, s->in_flight);
}

void progress_show(struct progress *p, const struct progress_state *state, uint64_t now_ns)
{
	uint64_t passed = now_ns - p->shown_ns;
	char line[160];

	if (!p->wanted || passed < (p->terminal ? NSEC_PER_SEC / 5 : NSEC_PER_SEC))
		return;
	format(state, (double)(state->bytes - p->shown_bytes) * 1e9 / (double)passed, line,
	       sizeof(line));
	if (p->terminal)
		say_status(line);
	else
		say("%s", line);
	p->shown_ns = now_ns;
	p->shown_bytes = state->bytes;
}

void progress_finish(struct progress *p, const struct progress_state *state, uint64_t now_ns)
{
	uint64_t passed = now_ns - p->started_ns;
	char line[160];

	say_clear();
	if (!p->wanted)
		return;
	format(state, (double)state->bytes * 1e9 / (double)(passed ? passed : 1), line,
	       sizeof(line));
	say("%s", line);
}

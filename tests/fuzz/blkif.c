/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fuzz target: Sluice's whole Xen side (src/xen, src/blkif, src/grant) against a guest, a
 * toolstack and an administrator who do whatever the input says.
 *
 * An input is a play: a header that sets the stage, then records of one action each: a key is
 * written, a request is put into a ring, memory is overwritten, the device keeps or fails what it
 * has, the domain dies, time passes.  After each action the record says who gets turns: reactors
 * are stepped by hand on one thread, so the order of events is the input's too, and an input that
 * fails once fails always.
 *
 * What must hold, whatever the play: no memory error (the sanitizers' part); no response that
 * nobody asked for; pages that were not granted, or only for reading, stay as they are; nobody is
 * busy for ever.  And after it, when nothing is held back any more: all that was asked in a proper
 * ring is answered, nothing is in flight, and a drain leaves nothing behind.
 */
#include <string.h>

#include "stage.h"

/* New ones come last: the corpus knows them by their number. */
static void (*const actions[])(const struct fuzz_record *rec) = {
	act_put_direct,
	act_put_indirect,
	act_put_discard,
	act_push,
	act_notify,
	act_publish,
	act_set_frontend_state,
	act_write_frontend_key,
	act_write_backend_key,
	act_overwrite,
	act_set_trap,
	act_want_notification,
	act_change_grant,
	act_use_device,
	act_use_toolstack,
	act_administer,
	act_change_domain,
	act_restart,
	act_set_fault,
	act_set_share_fault,
	act_let_time_pass,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_record rec;

	if (size < FUZZ_RECORD_BYTES)
		return 0;
	fuzz_clock_start();
	stage_set(data);
	for (size_t at = FUZZ_RECORD_BYTES; at + sizeof(rec) <= size; at += sizeof(rec)) {
		memcpy(&rec, data + at, sizeof(rec));
		actions[rec.action % (sizeof(actions) / sizeof(actions[0]))](&rec);
		stage_give_turns(rec.run);
	}
	stage_end(data[7]);
	fuzz_clock_stop();
	return 0;
}

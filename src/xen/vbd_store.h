/* SPDX-License-Identifier: BSD-2-Clause */
/* Private to src/xen: what a disk reads and writes in xenstore. Errors are negative errno values.
 */
#ifndef SLUICE_XEN_VBD_STORE_H
#define SLUICE_XEN_VBD_STORE_H

#include "xen/connection.h"
#include "xen/vbd.h"

/* Whether our directory has the key; also true when xenstore cannot be asked. */
bool vbd_has_key(const struct vbd *v, const char *key);

/* Writes our state and remembers it. */
void vbd_write_state(struct vbd *v, uint32_t state);
/* Writes the remembered state again, over whatever stands there. */
void vbd_restore_state(struct vbd *v);
/* Says what is wrong: in the log, in listings, and in xenstore, once as long as it is the same. */
void vbd_set_error(struct vbd *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void vbd_clear_error(struct vbd *v);

/*
 * Answers the toolstack's script, which waits for the key: "ready", or (@ready false) the error.
 * The key also tells our directory from one that was made anew: vbd_is_renewed().
 */
void vbd_set_status(struct vbd *v, bool ready);
bool vbd_is_renewed(const struct vbd *v);

/* What of @b the disk's guest can use. */
struct blkif_limits vbd_get_limits(const struct vbd *v, const struct bdev *b);
/*
 * Write what the frontend is to know in InitWait and in Connected, and that state, and take a clean
 * mark away. -ENOENT: our directory is gone, -ECANCELED: the toolstack wants the disk closed; then
 * nothing is written, and a watch event is on its way.
 */
int vbd_write_offer(struct vbd *v);
int vbd_write_connected(struct vbd *v);
/* Writes the disk's new size, and our state anew, which makes frontends look. As those. */
int vbd_write_size(struct vbd *v, uint64_t sectors);
/*
 * Reads and judges what the frontend has chosen. -EINVAL: it makes no sense; another negative
 * errno: xenstore did not tell, and may later. With the reason.
 */
int vbd_read_keys(struct vbd *v, struct connection_keys *keys, struct err *err);

/*
 * What an administrator has set while the disk was served, beside what the toolstack wrote; read
 * leaves alone what was not set.
 */
void vbd_read_settings(const struct vbd *v, bool *paused, uint64_t *ios_per_sec,
		       uint64_t *bytes_per_sec);
int vbd_write_paused(struct vbd *v);
int vbd_write_limits(struct vbd *v);

/* The clean mark: left by a daemon that has drained, taken by the one that serves the ring. */
void vbd_write_mark(struct vbd *v);
/* Its number of sectors; false if there is no mark. */
bool vbd_read_mark(const struct vbd *v, uint64_t *sectors);
int vbd_remove_mark(const struct vbd *v);

#endif

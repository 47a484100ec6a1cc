/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An error that a person will read: a negative errno for the program and one line for
 * the administrator, which names the cause and the remedy.  Used on control paths only;
 * the data path carries bare numbers.
 */
#ifndef SLUICE_BASE_ERR_H
#define SLUICE_BASE_ERR_H

struct err {
	char text[384];
};

/*
 * Formats the line into @err (NULL: nobody wants it; too long: cut) and returns @code, a
 * negative errno, so that `return err_set(err, -EBUSY, "...");` is all a caller writes.
 */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif

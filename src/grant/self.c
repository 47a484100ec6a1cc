/* SPDX-License-Identifier: BSD-2-Clause */
#include "grant/self.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xen/xen.h>
#include <xenstore.h>

#include "base/parse.h"

int grant_self_get_domid(uint16_t *domid, struct err *err)
{
	struct xs_handle *xs = xs_open(0);
	unsigned int len;
	uint32_t value;
	char *text;
	bool sane;

	if (!xs)
		return err_set(err, -errno, "cannot open xenstore: %s (is xenstored running?)",
			       strerror(errno));
	/* Below our own home, as the path is relative. The library ends the value by a 0. */
	text = xs_read(xs, XBT_NULL, "domid", &len);
	xs_close(xs);
	sane = text && parse_u32(text, DOMID_FIRST_RESERVED - 1, &value);
	free(text);
	if (!sane)
		return err_set(err, -ENOENT,
			       "xenstore does not say which domain this is (no number in its key "
			       "'domid'): run xen-init-dom0, as the service xencommons does");
	*domid = (uint16_t)value;
	return 0;
}

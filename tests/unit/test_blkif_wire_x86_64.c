/* SPDX-License-Identifier: BSD-2-Clause */
/* Xen's blkif structures as an x86-64 frontend sees them. */
#include "blkif/wire.h"

/* Before Xen's macro of that name hides it; and Xen's ring types give way to ours. */
enum { OUR_DISCARD_SECURE = BLKIF_DISCARD_SECURE };
#define blkif_sring       xen_sring
#define blkif_sring_entry xen_sring_entry
#include <xen/io/blkif.h>
#undef blkif_sring
#undef blkif_sring_entry

#define WIRE_FACTS wire_facts_x86_64
#include "test_blkif_wire_facts.h"

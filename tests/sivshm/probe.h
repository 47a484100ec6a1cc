/* SPDX-License-Identifier: BSD-2-Clause */
/* What a worker program finds out about itself and writes to the start of its segment. */
#ifndef SIVSHM_TEST_PROBE_H
#define SIVSHM_TEST_PROBE_H

struct probe_report {
	unsigned fds_before; /* its descriptors, before it opened its port */
	unsigned memory_fds; /* of segments, afterwards */
	unsigned maps;       /* mappings of segments */
	unsigned own_map;    /* of those, at its own port's address */
	unsigned child_fds;  /* the descriptors of a program that it started */
};

#endif

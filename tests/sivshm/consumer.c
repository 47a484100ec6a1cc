/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A program of somebody else's, which knows the installed header and library only. It is compiled
 * as C and as C++, so it is written in what both have in common.
 */
#include <sivshm.h>

#include <stdio.h>
#include <string.h>

static void rung(struct sivshm_worker *w, unsigned vector, void *arg)
{
	(void)w;
	*(unsigned *)arg = vector + 1;
}

static int talk(struct sivshm_manager *m)
{
	struct sivshm_worker_opts opts;
	struct sivshm_worker *w;
	struct sivshm_port *p;
	unsigned heard = 0;
	char where[32];
	int rc;

	memset(&opts, 0, sizeof(opts));
	opts.struct_bytes = sizeof(opts);
	opts.segment_bytes = 65536;
	opts.vectors = 2;
	opts.rung = rung;
	opts.arg = &heard;
	rc = sivshm_worker_add(m, &opts, &w);
	if (rc < 0)
		return rc;
	snprintf(where, sizeof(where), "fd:%d", sivshm_worker_take_socket(w));
	rc = sivshm_open(where, 1000, &p);
	if (rc < 0)
		return rc;
	memcpy(sivshm_port_memory(p), "hello", 6);
	rc = sivshm_port_ring(p, 1);
	if (rc == 0)
		rc = sivshm_manager_dispatch(m, 1000);
	if (rc >= 0)
		printf("%s %u\n", (const char *)sivshm_port_memory(sivshm_worker_port(w)), heard);
	sivshm_port_close(p);
	return rc;
}

int main(void)
{
	struct sivshm_manager *m;
	int rc = sivshm_manager_create(NULL, &m);

	if (rc == 0) {
		rc = talk(m);
		sivshm_manager_destroy(m);
	}
	if (rc < 0)
		fprintf(stderr, "consumer: %s\n", strerror(-rc));
	return rc < 0;
}

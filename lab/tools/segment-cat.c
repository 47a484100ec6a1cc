/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * segment-cat WHERE: writes all of a disk that is served over a segment to standard output, by the
 * plainest of frontends: one request at a time.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "front/segment.h"
#include "sivshm.h"

enum {
	PATIENCE_MS = 10000,
	PIECE_PAGES = 32,
	PIECE = PIECE_PAGES * 4096, /* bytes */
};

static int copy(struct front_segment *s)
{
	static char data[PIECE];
	uint64_t left = front_segment_sectors(s) * 512, sector = 0;

	while (left) {
		size_t len = left < PIECE ? (size_t)left : PIECE;
		int rc = front_rw_sync(front_segment_queue(s, 0), BLKIF_READ, sector, data, len);

		if (rc)
			return rc;
		if (fwrite(data, 1, len, stdout) != len)
			return -errno;
		sector += len / 512;
		left -= len;
	}
	return fflush(stdout) ? -errno : 0;
}

int main(int argc, char **argv)
{
	struct front_segment_opts opts = {
		.queues = 1,
		.max_segments = PIECE_PAGES,
		.sync_pages = PIECE_PAGES,
	};
	struct front_segment *s;
	struct sivshm_port *port;
	int rc;

	if (argc != 2) {
		fprintf(stderr, "usage: segment-cat fd:N|unix:PATH|pci:ADDRESS\n");
		return 2;
	}
	rc = sivshm_open(argv[1], PATIENCE_MS, &port);
	if (rc) {
		fprintf(stderr, "segment-cat: cannot open %s: %s\n", argv[1], strerror(-rc));
		return 1;
	}
	rc = front_segment_create(port, &opts, &s);
	if (!rc)
		rc = front_segment_connect(s, PATIENCE_MS);
	if (!rc)
		rc = copy(s);
	if (rc) {
		fprintf(stderr, "segment-cat: %s\n", strerror(-rc));
		return 1;
	}
	rc = front_segment_close(s, PATIENCE_MS);
	front_segment_destroy(s);
	sivshm_port_close(port);
	return rc ? 1 : 0;
}

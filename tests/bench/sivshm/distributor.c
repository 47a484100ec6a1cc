/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-distributor SOCKET VECTORS BYTES: serves IVSHMEM's protocol, the classic way. */
#include <signal.h>

#include "bench.h"
#include "classic.h"

int main(int argc, char **argv)
{
	if (argc != 4)
		bench_die("usage: bench-distributor SOCKET VECTORS BYTES");
	signal(SIGPIPE, SIG_IGN);
	classic_serve(classic_create(argv[1], (unsigned)bench_number(argv[2], 1),
				     bench_number(argv[3], 4096)));
}

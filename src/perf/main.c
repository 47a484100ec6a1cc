/* SPDX-License-Identifier: BSD-2-Clause */
/* The command `sluice-perf`; all else is in the library beside it, where tests reach it. */
#include "perf/perf.h"

int main(int argc, char **argv)
{
	return perf_main(argc, argv, stdout, stderr);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* `sivshm`: starts workers with segments of their own, and hands work out to them. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "manager/commands.h"
#include "manager/say.h"

static const struct command commands[] = {
	{"run", "--workers N [OPTION...] -- PROGRAM [ARGUMENT...]",
	 "start workers that are processes", run_processes},
	{"qemu", "--workers N [OPTION...] [-- QEMU-ARGUMENT...]", "start workers that are guests",
	 run_guests},
	{"distribute",
	 "--workers N [OPTION...] [FILE|DIRECTORY...] -- PROGRAM [ARGUMENT...]\n"
	 "       sivshm distribute --workers N --guests [OPTION...] [FILE|DIRECTORY...]"
	 " [-- QEMU-ARGUMENT...]",
	 "hand files or standard input out to workers, and gather results", distribute},
};

/* Descriptors that are opened later must not pass for standard ones. */
static int open_standard(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	if (open_standard())
		return EXIT_FAILURE;
	/* A reader of the output that goes away is seen where it is written. */
	signal(SIGPIPE, SIG_IGN);
	/* Where it is ignored, children are collected by nobody, and how they end is not known. */
	signal(SIGCHLD, SIG_DFL);
	return options_run(argc, argv, commands, sizeof(commands) / sizeof(commands[0]));
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "sluice/xl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sluice/text.h"

enum { ARGS_MAX = 8, SAID_MAX = 64 << 10 };

bool xl_vdev_valid(const char *vdev)
{
	static const char *const prefixes[] = {"xvd", "hd", "sd"};
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz", digits[] = "0123456789";
	size_t len = 0, disk, number;

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]) && !len; i++)
		if (!strncmp(vdev, prefixes[i], strlen(prefixes[i])))
			len = strlen(prefixes[i]);
	disk = len ? strspn(vdev + len, letters) : 0;
	number = strspn(vdev + len + disk, digits);
	if (vdev[len + disk + number])
		return false;
	return len ? disk >= 1 && disk <= 3 && number <= 3 : number >= 1 && number <= 10;
}

char *xl_disk_spec(const char *vdev, bool readonly, const char *target)
{
	char *spec;

	/* The target comes last: xl takes all that follows for a part of it. */
	if (asprintf(&spec, "vdev=%s,script=block-sluice,access=%s,target=%s", vdev,
		     readonly ? "ro" : "rw", target) < 0)
		return NULL;
	return spec;
}

char *xl_find(void)
{
	const char *dir = getenv("PATH");
	char path[PATH_MAX];
	struct stat st;

	while (dir && *dir) {
		size_t len = strcspn(dir, ":");

		/* An empty entry would mean the current directory, which is no place for xl. */
		if (len &&
		    (size_t)snprintf(path, sizeof(path), "%.*s/xl", (int)len, dir) < sizeof(path) &&
		    !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK))
			return strdup(path);
		dir += len + (dir[len] == ':');
	}
	return NULL;
}

/* Prints what xl said, harmless, its last line ended. */
static void show(struct client *c, int said)
{
	char *text = malloc(SAID_MAX + 1), *clean;
	ssize_t len = text ? pread(said, text, SAID_MAX, 0) : -1;

	if (len > 0) {
		text[len] = '\0';
		clean = text_clean(text, true);
		fprintf(c->err, "%s%s", clean, clean[strlen(clean) - 1] == '\n' ? "" : "\n");
		free(clean);
	}
	free(text);
}

int xl_run(struct client *c, const char *xl, const char *const *args)
{
	char *argv[ARGS_MAX + 2] = {(char *)"xl"};
	int said, status, rc = 0;
	pid_t child;

	for (unsigned i = 0; i < ARGS_MAX && args[i]; i++)
		argv[i + 1] = (char *)args[i];
	/*
	 * Not a pipe: what xl leaves running in the background would keep it open, and us waiting
	 * for its end.
	 */
	said = memfd_create("xl", MFD_CLOEXEC);
	if (said < 0)
		return client_fail(c, "cannot run xl: %m");
	fflush(c->out);
	fflush(c->err);
	child = fork();
	if (!child) {
		int nothing = open("/dev/null", O_RDONLY);

		if (nothing >= 0 && dup2(nothing, STDIN_FILENO) >= 0 &&
		    dup2(said, STDOUT_FILENO) >= 0 && dup2(said, STDERR_FILENO) >= 0)
			execv(xl, argv);
		_exit(127);
	}
	if (child < 0) {
		rc = client_fail(c, "cannot run xl: %m");
		close(said);
		return rc;
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		show(c, said);
		if (WIFEXITED(status))
			rc = client_fail(c,
					 "'xl %s' failed with exit status %d: its messages stand "
					 "above, and sluiced's log may tell more",
					 args[0], WEXITSTATUS(status));
		else
			rc = client_fail(c, "'xl %s' was ended by signal %d", args[0],
					 WTERMSIG(status));
	}
	close(said);
	return rc;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench-counters: what a load costs whom, read at the instants that the load itself announces.
 *
 *	bench-counters [--socket SOCKET] [--process NAME=PID[,PID...]]... [--interrupts NAME]...
 *		DOMID LOG...
 *
 * Follows logs, such as a guest's console, for lines `@begin TEXT' and `@end TEXT' (blkload
 * --announce), and prints for each a line of JSON with the counters of that moment: the run time
 * of the guest and of dom0 and the time that processors were idle, by Xen's own account in
 * nanoseconds; the run time of processes, the nanoseconds that sluiced found work to do, by RPC,
 * and dom0's interrupts by name.
 *
 * The load rests for a moment meanwhile, which all of this has to fit in: so it is one process,
 * that starts none and otherwise sleeps.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <xenctrl.h>

enum { MAX_NAMES = 16, MAX_PIDS = 64, MAX_CPUS = 256, LINE_BYTES = 4096, ANSWER_BYTES = 65536 };

struct process {
	const char *name;
	pid_t pids[MAX_PIDS];
	unsigned count;
};

struct log {
	int fd;
	char line[LINE_BYTES];
	size_t used;
};

struct watch {
	xc_interface *xen;
	uint32_t domid;
	const char *socket_path;
	struct process processes[MAX_NAMES];
	unsigned process_count;
	const char *interrupts[MAX_NAMES];
	unsigned interrupt_count;
	struct log logs[MAX_NAMES];
	unsigned log_count;
};

static void __attribute__((noreturn, format(printf, 1, 2))) refuse(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fprintf(stderr, "bench-counters: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, "\n");
	va_end(arguments);
	exit(1);
}

static uint64_t clock_of(clockid_t clock)
{
	struct timespec now = {0, 0};

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The run time of all threads of some processes, also of threads that have ended. */
static uint64_t run_time(const struct process *process)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < process->count; i++) {
		clockid_t clock;

		if (clock_getcpuclockid(process->pids[i], &clock) == 0)
			sum += clock_of(clock);
	}
	return sum;
}

static uint64_t domain_time(struct watch *w, uint32_t domid)
{
	xc_domaininfo_t info;

	if (xc_domain_getinfolist(w->xen, domid, 1, &info) != 1 || info.domain != domid)
		refuse("domain %" PRIu32 " is not there", domid);
	return info.cpu_time;
}

/* The time that all processors together were idle. */
static uint64_t idle_time(struct watch *w, int *cpus)
{
	xc_cpuinfo_t info[MAX_CPUS];
	uint64_t sum = 0;

	*cpus = 0;
	if (xc_getcpuinfo(w->xen, MAX_CPUS, info, cpus) < 0)
		refuse("Xen does not tell how idle its processors are: %s", strerror(errno));
	for (int i = 0; i < *cpus; i++)
		sum += info[i].idletime;
	return sum;
}

/* What sluiced's reactors were busy for, by themselves. */
static uint64_t work_time(const struct watch *w)
{
	static const char request[] =
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"framework_get_reactors\"}\n";
	static char answer[ANSWER_BYTES];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t used = 0;
	uint64_t sum = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", w->socket_path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    write(fd, request, sizeof(request) - 1) < 0)
		refuse("%s: %s", w->socket_path, strerror(errno));
	do {
		ssize_t n = read(fd, answer + used, sizeof(answer) - 1 - used);

		if (n <= 0)
			refuse("%s: no answer", w->socket_path);
		used += (size_t)n;
		answer[used] = 0;
	} while (used < sizeof(answer) - 1 && !strchr(answer, '\n'));
	close(fd);
	for (char *at = answer; (at = strstr(at, "\"busy_ns\"")); at++)
		sum += strtoull(strchr(at, ':') + 1, NULL, 10);
	return sum;
}

/* How often the interrupts have come whose line has this name in it, on dom0's processors. */
static void count_interrupts(const struct watch *w, uint64_t *counts)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[LINE_BYTES];

	memset(counts, 0, MAX_NAMES * sizeof(*counts));
	while (file && fgets(line, sizeof(line), file)) {
		char *next = strchr(line, ':'), *end;
		uint64_t sum = 0;

		for (next = next ? next + 1 : line;; next = end) {
			uint64_t count = strtoull(next, &end, 10);

			if (end == next || *end != ' ')
				break;
			sum += count;
		}
		for (unsigned i = 0; i < w->interrupt_count; i++) {
			if (strstr(line, w->interrupts[i]))
				counts[i] += sum;
		}
	}
	if (file)
		fclose(file);
}

static void print_counters(struct watch *w, const char *text)
{
	uint64_t counts[MAX_NAMES], work = w->socket_path ? work_time(w) : 0;
	uint64_t wall = clock_of(CLOCK_MONOTONIC);
	int cpus;
	uint64_t idle = idle_time(w, &cpus);

	printf("{\"at\":\"%s\",\"wall_ns\":%" PRIu64 ",\"guest_ns\":%" PRIu64
	       ",\"dom0_ns\":%" PRIu64 ",\"idle_ns\":%" PRIu64 ",\"cpus\":%d,\"work_ns\":%" PRIu64,
	       text, wall, domain_time(w, w->domid), domain_time(w, 0), idle, cpus, work);
	for (unsigned i = 0; i < w->process_count; i++)
		printf(",\"%s_ns\":%" PRIu64, w->processes[i].name, run_time(&w->processes[i]));
	count_interrupts(w, counts);
	for (unsigned i = 0; i < w->interrupt_count; i++)
		printf(",\"%s\":%" PRIu64, w->interrupts[i], counts[i]);
	printf("}\n");
	fflush(stdout);
}

/* A guest wrote it: nothing goes on that could end a string of JSON. */
static void judge_line(struct watch *w, char *line)
{
	char *text = line + 1;

	if (strncmp(line, "@begin ", 7) != 0 && strncmp(line, "@end ", 5) != 0)
		return;
	text[strcspn(text, "\r\n\"\\")] = 0;
	print_counters(w, text);
}

static void read_log(struct watch *w, struct log *log)
{
	char bytes[LINE_BYTES];
	ssize_t n;

	while ((n = read(log->fd, bytes, sizeof(bytes))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (bytes[i] == '\n') {
				log->line[log->used] = 0;
				judge_line(w, log->line);
				log->used = 0;
			} else if (log->used < sizeof(log->line) - 1) {
				log->line[log->used++] = bytes[i];
			}
		}
	}
}

static void parse_process(struct process *process, char *text)
{
	char *next = strchr(text, '=');

	if (!next)
		refuse("--process %s: must be NAME=PID[,PID...]", text);
	*next = 0;
	process->name = text;
	do {
		if (process->count == MAX_PIDS)
			refuse("--process %s: at most %d", text, MAX_PIDS);
		process->pids[process->count++] = (pid_t)strtol(next + 1, &next, 10);
	} while (*next == ',');
}

static void parse_options(struct watch *w, int argc, char **argv)
{
	static const struct option options[] = {{"socket", 1, NULL, 's'},
						{"process", 1, NULL, 'p'},
						{"interrupts", 1, NULL, 'i'},
						{NULL, 0, NULL, 0}};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (w->process_count == MAX_NAMES || w->interrupt_count == MAX_NAMES)
			refuse("at most %d processes and interrupts", MAX_NAMES);
		if (option == 's')
			w->socket_path = optarg;
		else if (option == 'p')
			parse_process(&w->processes[w->process_count++], optarg);
		else if (option == 'i')
			w->interrupts[w->interrupt_count++] = optarg;
		else
			exit(2);
	}
	if (argc - optind < 2 || argc - optind > MAX_NAMES)
		refuse("needs a domain's number and logs");
	w->domid = (uint32_t)strtoul(argv[optind], NULL, 10);
}

int main(int argc, char **argv)
{
	static struct watch w;
	char events[LINE_BYTES];
	int changes = inotify_init1(IN_CLOEXEC);

	parse_options(&w, argc, argv);
	w.xen = xc_interface_open(NULL, NULL, 0);
	if (!w.xen)
		refuse("no Xen: %s", strerror(errno));
	while (++optind < argc) {
		struct log *log = &w.logs[w.log_count++];

		log->fd = open(argv[optind], O_RDONLY | O_CLOEXEC);
		if (log->fd < 0 || inotify_add_watch(changes, argv[optind], IN_MODIFY) < 0)
			refuse("%s: %s", argv[optind], strerror(errno));
	}
	do {
		for (unsigned i = 0; i < w.log_count; i++)
			read_log(&w, &w.logs[i]);
	} while (read(changes, events, sizeof(events)) > 0 || errno == EINTR);
	refuse("the logs cannot be followed: %s", strerror(errno));
}

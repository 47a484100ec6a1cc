/* SPDX-License-Identifier: BSD-2-Clause */
#include "perf/perf.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "perf/measure.h"
#include "sivshm.h"

enum { OPEN_MS = 10000, LIMITS_MS = 500 };

static atomic_bool stopped;

static void stop(int sig)
{
	atomic_store(&stopped, true);
}

static int fail(FILE *err_out, const struct err *err, int status)
{
	fprintf(err_out, "sluice-perf: %s\n", err->text);
	return status;
}

static int measure_limits(const struct perf_options *o, FILE *out, FILE *err_out)
{
	double round_trip_ns, bytes_per_second;
	struct err err;
	int rc = measure_round_trip(o->cpus[0], o->cpus[1], LIMITS_MS, &round_trip_ns);

	if (rc) {
		err_set(&err, rc, "cannot measure between cores %d and %d: %s", o->cpus[0],
			o->cpus[1], strerror(-rc));
		return fail(err_out, &err, 1);
	}
	rc = measure_memcpy(o->copy_block, o->footprint, -1, LIMITS_MS, &bytes_per_second);
	if (rc) {
		err_set(&err, rc, "cannot measure copying in %lu bytes: %s",
			(unsigned long)o->footprint, strerror(-rc));
		return fail(err_out, &err, 1);
	}
	if (o->json)
		fprintf(out,
			"{\n  \"cpus\": [%d, %d],\n  \"round_trip_ns\": %.1f,\n"
			"  \"memcpy\": {\"block_bytes\": %lu, \"footprint_bytes\": %lu, "
			"\"bytes_per_second\": %.0f}\n}\n",
			o->cpus[0], o->cpus[1], round_trip_ns, (unsigned long)o->copy_block,
			(unsigned long)o->footprint, bytes_per_second);
	else
		fprintf(out,
			"round trip of a cache line between cores %d and %d: %.1f ns\n"
			"memcpy of %lu bytes within %lu: %.0f MB/s\n",
			o->cpus[0], o->cpus[1], round_trip_ns, (unsigned long)o->copy_block,
			(unsigned long)o->footprint, bytes_per_second / 1e6);
	return 0;
}

static int open_port(const struct perf_options *o, struct sivshm_port **port, struct err *err)
{
	int rc = sivshm_open(o->where[0] ? o->where : NULL, OPEN_MS, port);

	switch (rc) {
	case 0:
		return 0;
	case -ENOENT:
	case -ECONNREFUSED:
		return err_set(err, rc,
			       "nobody listens at %s: make the worker with 'sluice sivshm create', "
			       "and see 'sluice sivshm list'",
			       o->where);
	case -ENODEV:
		return err_set(err, rc,
			       "there is no ivshmem device here: name the disk by --worker, "
			       "--socket or --port");
	case -ETIMEDOUT:
	case -ECONNRESET:
		return err_set(err, rc,
			       "%s lets nobody in: one frontend at a time, of the user that it was "
			       "made for ('sluice sivshm list')",
			       o->where);
	default:
		return err_set(err, rc, "cannot open %s: %s", o->where[0] ? o->where : "the port",
			       strerror(-rc));
	}
}

static int make_load(const struct perf_options *o, FILE *out, FILE *err_out)
{
	/* The first one ends the load, and a second the program. */
	struct sigaction action = {.sa_handler = stop, .sa_flags = (int)SA_RESETHAND};
	struct sigaction before[2];
	struct perf_report *report = calloc(1, sizeof(*report));
	struct sivshm_port *port;
	struct err err;
	int rc;

	if (!report) {
		err_set(&err, -ENOMEM, "no memory left");
		return fail(err_out, &err, 1);
	}
	atomic_store(&stopped, false);
	sigaction(SIGINT, &action, &before[0]);
	sigaction(SIGTERM, &action, &before[1]);
	rc = open_port(o, &port, &err);
	if (!rc) {
		rc = perf_run(o, port, &stopped, report, &err);
		sivshm_port_close(port);
	}
	if (!rc && perf_print(o, report, out))
		rc = err_set(&err, -ENOMEM, "the report could not be written");
	if (rc)
		fail(err_out, &err, 1);
	else if (!perf_is_good(report))
		rc = -EIO;
	free(report);
	sigaction(SIGINT, &before[0], NULL);
	sigaction(SIGTERM, &before[1], NULL);
	return rc ? 1 : 0;
}

int perf_main(int argc, char **argv, FILE *out, FILE *err_out)
{
	struct perf_options *o = calloc(1, sizeof(*o));
	struct err err;
	int status;

	if (!o) {
		err_set(&err, -ENOMEM, "no memory left");
		return fail(err_out, &err, 1);
	}
	if (perf_options_parse(argc, argv, o, &err)) {
		status = fail(err_out, &err, 2);
	} else if (o->help) {
		fputs(perf_usage, out);
		status = 0;
	} else if (o->version) {
		fprintf(out, "sluice-perf %s\n", SLUICE_VERSION);
		status = 0;
	} else if (o->limits_only) {
		status = measure_limits(o, out, err_out);
	} else {
		status = make_load(o, out, err_out);
	}
	free(o);
	return status;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * NVMe drives by method and by command, over the model of a controller, which lives on the control
 * reactor's thread: what is attached, saved, listed and refused, and what the next daemon makes of
 * the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit/ctl_harness.h"
#include "base/clock.h"
#include "base/log.h"
#include "bdev/bdev.h"
#include "ctl/bdev_rpc.h"
#include "ctl/nvme_rpc.h"
#include "model.h"
#include "sluice/client.h"

#define ADDRESS "0000:00:04.0"

enum { REACTORS = 3 }; /* that are said to be there; none is needed */

static struct world {
	struct harness h;
	char dir[96], state[128];
	struct dma_double mem;
	struct model model;
	struct poller model_poller;
	struct config *config;
	struct nvme_drives *drives;
	struct nvme_rpc rpc;
	int open_rc;
	unsigned opened, closed;
	int entered;
	int all_stopped;
	char *out, *said;
} w;

/* The host */

static int dma_create(void *arg, struct dma **out, struct err *err)
{
	*out = &w.mem.dma;
	return 0;
}

static void dma_destroy(void *arg, struct dma *dma)
{
	assert_int_equal(dma_double_used(&w.mem), 0);
}

static struct nvme_pci_ops counted_ops;

static void count_close(struct nvme_pci *pci)
{
	w.closed++;
}

static int open_drive(void *arg, const char *address, struct dma *dma, struct nvme_pci **out,
		      struct err *err)
{
	if (w.open_rc || strcmp(address, ADDRESS))
		return err_set(err, w.open_rc ? w.open_rc : -ENODEV, "there is no drive %s",
			       address);
	w.opened++;
	*out = &w.model.pci;
	return 0;
}

static int enter(void *arg, const char *address, struct err *err)
{
	w.entered++;
	return 0;
}

static void leave(void *arg, const char *address)
{
	w.entered--;
}

static const struct nvme_ways ways = {dma_create, dma_destroy, open_drive, enter, leave, NULL};

static int poll_model(struct poller *p)
{
	return model_step(&w.model);
}

static bool arm_model(struct poller *p)
{
	return true;
}

/* A daemon's control plane, but for its socket's name and its guests. */
static void start(void)
{
	struct err err;

	harness_init(&w.h, &(struct rpc_opts){0});
	w.model_poller = (struct poller){.name = "model", .poll = poll_model, .arm = arm_model};
	reactor_poller_add(w.h.reactor, &w.model_poller);
	assert_int_equal(config_create(w.state, w.h.reactor, w.h.helpers, &w.config, &err), 0);
	assert_int_equal(nvme_drives_create(&ways, w.h.reactor, REACTORS, &w.drives), 0);
	w.rpc = (struct nvme_rpc){.drives = w.drives, .config = w.config, .control = w.h.reactor};
	nvme_rpc_init(&w.rpc);
	assert_int_equal(config_load(w.config, bdev_rpc_create, &err), 0);
	assert_int_equal(bdev_rpc_register(w.h.server, w.config), 0);
	assert_int_equal(nvme_rpc_register(w.h.server, &w.rpc), 0);
	harness_start(&w.h);
}

static void note_stopped(void *arg)
{
	__atomic_store_n(&w.all_stopped, 1, __ATOMIC_RELEASE);
}

static void stop_drives(void *arg)
{
	nvme_drives_stop(w.drives, note_stopped, NULL);
}

static void remove_poller(void *arg)
{
	reactor_poller_del(&w.model_poller);
}

static void stop(void)
{
	w.all_stopped = 0;
	harness_call(&w.h, stop_drives, NULL);
	while (!__atomic_load_n(&w.all_stopped, __ATOMIC_ACQUIRE))
		usleep(1000);
	harness_call(&w.h, remove_poller, NULL);
	harness_stop(&w.h);
	harness_end_helpers(&w.h);
	config_destroy(w.config);
	bdev_delete_all();
	nvme_drives_destroy(w.drives);
	harness_end(&w.h);
	assert_int_equal(w.opened, w.closed);
	assert_int_equal(w.entered, 0);
}

static int setup(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	memset(&w, 0, sizeof(w));
	strcpy(w.dir, "/tmp/sluice-nvme-XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	snprintf(w.state, sizeof(w.state), "%s/state/nvme.json", w.dir);
	dma_double_init(&w.mem, 4096);
	model_init(&w.model, &w.mem, 512, 1024);
	counted_ops = *w.model.pci.ops;
	counted_ops.close = count_close;
	w.model.pci.ops = &counted_ops;
	w.model.pci.name = ADDRESS;
	memcpy(w.model.id.mn, "Model drive                             ", 40);
	memcpy(w.model.id.sn, "S1\x1b[31m             ", 20);
	memcpy(w.model.id.fr, "1.0     ", 8);
	start();
	return 0;
}

static int teardown(void **state)
{
	char path[112];

	stop();
	unlink(w.state);
	snprintf(path, sizeof(path), "%s/state", w.dir);
	rmdir(path);
	assert_int_equal(rmdir(w.dir), 0);
	assert_int_equal(w.model.violations, 0);
	model_fini(&w.model);
	dma_double_fini(&w.mem);
	free(w.out);
	free(w.said);
	return 0;
}

/* Commands */

static int run(const char *line)
{
	char copy[512], *argv[24] = {(char *)"sluice", (char *)"--socket", w.h.socket};
	size_t out_len, said_len;
	struct client c;
	int argc = 3, status;
	FILE *f, *e;

	free(w.out);
	free(w.said);
	f = open_memstream(&w.out, &out_len);
	e = open_memstream(&w.said, &said_len);
	snprintf(copy, sizeof(copy), "%s", line);
	for (char *save, *word = strtok_r(copy, " ", &save); word;
	     word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	client_init(&c, f, e);
	c.drive_ms = 20000;
	status = client_run(&c, argc, argv);
	fclose(f);
	fclose(e);
	return status;
}

static void expect(const char *line, const char *output)
{
	if (run(line) || strcmp(w.out, output) || *w.said)
		fail_msg("'sluice %s' printed:\n%s\nand said:\n%s", line, w.out, w.said);
}

static void expect_error(const char *line, const char *text)
{
	if (run(line) != 1 || *w.out || !strstr(w.said, text) ||
	    strchr(w.said, '\n') != w.said + strlen(w.said) - 1)
		fail_msg("'sluice %s' printed:\n%s\nand said:\n%s\nnot \"%s\"", line, w.out, w.said,
			 text);
}

static void expect_output(const char *line, const char *text)
{
	if (run(line) || !strstr(w.out, text) || *w.said)
		fail_msg("'sluice %s' printed:\n%s\nand said:\n%s\nnot \"%s\"", line, w.out, w.said,
			 text);
}

/* What the file says now. */
static char *saved(void)
{
	static char text[4096];
	int fd = open(w.state, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

#define ENTRY "\"traddr\": \"" ADDRESS "\""

struct claim {
	const char *name;
	int rc;
};

static void do_claim(void *arg)
{
	struct claim *c = arg;

	c->rc = bdev_claim(bdev_find(c->name), true, false, NULL);
}

static void do_release(void *arg)
{
	bdev_release(bdev_find(arg));
}

static int claim(const char *name)
{
	struct claim c = {name, 0};

	harness_call(&w.h, do_claim, &c);
	return c.rc;
}

static void release(const char *name)
{
	harness_call(&w.h, do_release, (void *)name);
}

/* Tests */

static void test_way_of_a_drive(void **state)
{
	expect("bdev create nvme " ADDRESS, "drive nvme0 attached (" ADDRESS ")\n"
					    "bdev nvme0n1 created\n");
	assert_non_null(strstr(saved(), ENTRY));
	assert_null(strstr(saved(), "nvme0n1"));
	expect("bdev list", "NAME     KIND  SIZE  BLOCK  ACCESS  SHARED  IN-USE  FILE\n"
			    "nvme0n1  nvme  512K    512  rw      no      no      " ADDRESS "\n");
	expect_output("--json bdev list", "\"controller\": \"nvme0\"");
	expect_output("rpc bdev_nvme_get_controllers", "\"state\": \"enabled\"");
	/* What the drive says of itself is text for a terminal, and no orders to it. */
	assert_non_null(strstr(w.out, "\"S1?[31m\""));
	assert_non_null(strstr(w.out, "\"Model drive\""));
	expect_error("bdev delete nvme0n1", "goes with drive nvme0: 'sluice nvme detach nvme0'");
	expect_error("rpc bdev_nvme_get_controllers {\"name\":\"nvme1\"}",
		     "no drive 'nvme1' is attached");

	assert_int_equal(claim("nvme0n1"), 0);
	expect_error("nvme detach nvme0", "in use by way of bdev nvme0n1: detach its disks first");
	assert_non_null(strstr(saved(), ENTRY));
	release("nvme0n1");
	/* What the refused attempt has held is free again. */
	assert_int_equal(claim("nvme0n1"), 0);
	release("nvme0n1");
	expect("nvme detach nvme0", "drive nvme0 detached\n");
	assert_null(strstr(saved(), "traddr"));
	assert_int_equal(w.closed, 1);
	expect_error("nvme detach nvme0", "no drive 'nvme0' is attached");
	expect("rpc bdev_nvme_get_controllers", "[]\n");

	expect("bdev create nvme fast " ADDRESS, "drive fast attached (" ADDRESS ")\n"
						 "bdev fastn1 created\n");
	expect_error("bdev create nvme " ADDRESS, "is attached already, as \"fast\"");
	expect_error("bdev create nvme 0000:00:05.0", "there is no drive 0000:00:05.0");
	expect_error("bdev create nvme fast 0000:00:05.0", "there is a drive \"fast\" already");
}

static void test_fewer_queues_than_reactors(void **state)
{
	w.model.io_queues = REACTORS;
	expect_output("bdev create nvme " ADDRESS, "attached");
	expect_output("rpc bdev_nvme_get_controllers", "\"io_queues\": 3,");
	expect_output("rpc bdev_nvme_get_controllers", "\"reactors_without_queue\": 0,");
	expect_output("nvme detach nvme0", "detached");
	w.model.io_queues = 1;
	expect_output("bdev create nvme " ADDRESS, "attached");
	expect_output("rpc bdev_nvme_get_controllers", "\"io_queues\": 1,");
	expect_output("rpc bdev_nvme_get_controllers", "\"reactors_without_queue\": 2,");
	expect_output("nvme detach nvme0", "detached");
	w.model.io_queues = REACTORS + 1;
	expect_output("bdev create nvme " ADDRESS, "attached");
	expect_output("rpc bdev_nvme_get_controllers", "\"io_queues\": 4,");
}

static void test_rescan(void **state)
{
	expect_error("nvme rescan nvme0", "no drive 'nvme0' is attached");
	expect_output("bdev create nvme " ADDRESS, "attached");
	expect("nvme rescan nvme0", "drive nvme0 has bdev nvme0n1\n");
	expect("nvme rescan nvme0 --json", "[\n  \"nvme0n1\"\n]\n");
}

static void test_hostile_parameters(void **state)
{
	static const struct {
		const char *params, *says;
	} bad[] = {
		{"", "missing parameter"},
		{"{\"name\":\"a\",\"trtype\":\"PCIe\"}", "missing parameter 'traddr'"},
		{"{\"name\":\"a\",\"traddr\":\"0000:00:04.0\"}", "missing parameter 'trtype'"},
		{"{\"name\":1,\"trtype\":\"PCIe\",\"traddr\":\"0000:00:04.0\"}",
		 "must be a string"},
		{"{\"name\":\"a\",\"trtype\":\"PCIe\",\"traddr\":[]}", "must be a string"},
		{"{\"name\":\"a\",\"trtype\":\"TCP\",\"traddr\":\"0000:00:04.0\"}", "use PCIe"},
		{"{\"name\":\"a\",\"trtype\":\"PCIe\",\"traddr\":\"../../../etc\"}",
		 "is no PCI address"},
		{"{\"name\":\"a\",\"trtype\":\"PCIe\",\"traddr\":\"\"}", "is no PCI address"},
		{"{\"name\":\"a/b\",\"trtype\":\"PCIe\",\"traddr\":\"0000:00:04.0\"}",
		 "is no name for a drive"},
		{"{\"name\":\"\",\"trtype\":\"PCIe\",\"traddr\":\"0000:00:04.0\"}",
		 "is no name for a drive"},
		{"{\"name\":\"12345678901234567890123456789012345678901\",\"trtype\":\"PCIe\","
		 "\"traddr\":\"0000:00:04.0\"}",
		 "is no name for a drive"},
		{"{\"name\":\"a\",\"trtype\":\"PCIe\",\"traddr\":\"0000:00:04.0\",\"x\":1}",
		 "unknown parameter 'x'"},
	};
	char line[256];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(line, sizeof(line), "rpc bdev_nvme_attach_controller %s", bad[i].params);
		expect_error(line, bad[i].says);
	}
	assert_int_equal(w.opened, 0);
	expect_error("rpc bdev_nvme_detach_controller", "missing parameter 'name'");
	expect_error("rpc bdev_nvme_detach_controller {\"name\":\"\"}", "no drive ''");
	expect_error("rpc bdev_nvme_get_controller_health_info {\"name\":\"x\"}", "no drive 'x'");
	expect("rpc bdev_nvme_attach_controller {\"name\":\"a\",\"trtype\":\"pcie\",\"traddr\":"
	       "\"00:04.0\"}",
	       "[\n  \"an1\"\n]\n");
}

static void test_next_daemon(void **state)
{
	expect_output("bdev create nvme " ADDRESS, "nvme0n1");
	expect_output("bdev create null nvme0 --size 1M", "created");
	stop();
	start();
	expect_output("rpc bdev_nvme_get_controllers", "\"state\": \"enabled\"");
	assert_int_equal(claim("nvme0n1"), 0);
	release("nvme0n1");
	/* A bdev by the drive's name is another thing. */
	expect_output("nvme detach nvme0", "detached");
	assert_null(strstr(saved(), "traddr"));
	assert_non_null(strstr(saved(), "\"nvme0\""));
	expect_output("bdev create nvme " ADDRESS, "nvme0n1");
	expect_output("bdev delete nvme0", "deleted");
	assert_non_null(strstr(saved(), ENTRY));
	assert_null(strstr(saved(), "null"));
	/* Another change's file has it, too. */
	expect_output("bdev create null other --size 1M", "created");
	assert_non_null(strstr(saved(), ENTRY));
	stop();
	start();
	expect_output("bdev list", "nvme0n1");
	expect_output("bdev list", "other");
}

static void test_kept(void **state)
{
	expect_output("bdev create nvme " ADDRESS, "nvme0n1");
	stop();
	w.open_rc = -ENODEV;
	start();
	expect_output("rpc bdev_nvme_get_controllers", "\"state\": \"missing\"");
	assert_non_null(strstr(w.out, ENTRY));
	expect_output("rpc bdev_nvme_get_controllers {\"name\":\"nvme0\"}", "missing");
	expect_error("rpc bdev_nvme_get_controllers {\"name\":\"nvme1\"}", "no drive 'nvme1'");
	expect_error("nvme show nvme0", "no drive 'nvme0' is attached");
	/* Nobody takes its name, and it gets no other. */
	expect_error("bdev create nvme nvme0 0000:00:05.0", "is kept as \"nvme0\"");
	expect_error("bdev create nvme other " ADDRESS, "is kept as \"nvme0\"");
	expect_error("bdev create nvme 0000:00:05.0", "there is no drive 0000:00:05.0");
	/* It is in the file, and stays there whatever else changes. */
	expect_error("bdev delete nvme0", "no bdev 'nvme0'");
	expect_output("bdev create null nvme0 --size 1M", "created");
	assert_non_null(strstr(saved(), ENTRY));
	expect_output("bdev delete nvme0", "deleted");
	assert_non_null(strstr(saved(), ENTRY));
	expect_error("bdev create nvme nvme0 " ADDRESS, "there is no drive");
	assert_non_null(strstr(saved(), ENTRY));
	/* It is tried again on request, and then there once. */
	w.open_rc = 0;
	expect_output("bdev create nvme nvme0 " ADDRESS, "nvme0n1");
	assert_non_null(strstr(saved(), ENTRY));
	assert_null(strstr(strstr(saved(), ENTRY) + 1, ENTRY));
	run("rpc bdev_nvme_get_controllers");
	assert_null(strstr(w.out, "missing"));
	stop();
	w.open_rc = -ENODEV;
	start();
	/* Or given up. */
	expect("nvme detach nvme0", "drive nvme0 detached\n");
	assert_null(strstr(saved(), "traddr"));
	w.open_rc = 0;
}

static void test_start_fails(void **state)
{
	w.model.fatal_on_enable = true;
	run("bdev create nvme " ADDRESS);
	assert_non_null(strstr(w.said, "sluice: "));
	assert_string_equal(saved(), "");
	assert_int_equal(w.closed, 1);
	expect("rpc bdev_nvme_get_controllers", "[]\n");
	expect("bdev list", "NAME  KIND  SIZE  BLOCK  ACCESS  SHARED  IN-USE  FILE\n");
}

static void wait_closed(unsigned n)
{
	for (int i = 0; i < 10000 && __atomic_load_n(&w.closed, __ATOMIC_RELAXED) < n; i++)
		usleep(1000);
	assert_int_equal(w.closed, n);
}

static void test_cannot_be_saved(void **state)
{
	char path[112], away[112];

	snprintf(path, sizeof(path), "%s/state", w.dir);
	snprintf(away, sizeof(away), "%s/away", w.dir);
	assert_int_equal(rename(path, away), 0);
	expect_error("bdev create nvme " ADDRESS, "cannot save the set of bdevs");
	wait_closed(1);
	expect("bdev list", "NAME  KIND  SIZE  BLOCK  ACCESS  SHARED  IN-USE  FILE\n");
	assert_int_equal(rename(away, path), 0);
	expect_output("bdev create nvme " ADDRESS, "nvme0n1");
	assert_int_equal(rename(path, away), 0);
	expect_error("nvme detach nvme0", "cannot save the set of bdevs");
	/* As it was. */
	assert_int_equal(claim("nvme0n1"), 0);
	release("nvme0n1");
	assert_int_equal(rename(away, path), 0);
	assert_non_null(strstr(saved(), ENTRY));
	expect_output("nvme detach nvme0", "detached");
}

static void test_show(void **state)
{
	expect_error("nvme show nvme0", "no drive 'nvme0' is attached");
	expect_output("bdev create nvme " ADDRESS, "nvme0n1");
	expect_output("nvme show nvme0", "temperature       37 C\n");
	expect_output("nvme show 00:04.0", "spare             99% ");
	assert_non_null(strstr(w.out, "drive             nvme0\n"));
	assert_non_null(strstr(w.out, "address           " ADDRESS "\n"));
	assert_non_null(strstr(w.out, "model             Model drive\n"));
	assert_non_null(strstr(w.out, "serial            S1?[31m\n"));
	assert_non_null(strstr(w.out, "firmware          1.0\n"));
	assert_non_null(strstr(w.out, "state             enabled\n"));
	expect_output("--json nvme show nvme0", "\"temperature_celsius\": 37");
	assert_non_null(strstr(w.out, "\"model_number\": \"Model drive\""));
}

static void test_pulled(void **state)
{
	expect_output("bdev create nvme " ADDRESS, "nvme0n1");
	w.model.removed = true;
	for (int i = 0; i < 5000; i++) {
		run("rpc bdev_nvme_get_controllers");
		if (strstr(w.out, "failed"))
			break;
		usleep(1000);
	}
	assert_non_null(strstr(w.out, "\"state\": \"failed\""));
	expect_error("nvme show nvme0", "has failed or is gone");
	expect_output("bdev list", "nvme0n1");
	expect("nvme detach nvme0", "drive nvme0 detached\n");
	w.model.removed = false;
}

static void test_calls(void **state)
{
	static const char *const wrong[] = {
		"bdev create nvme",
		"bdev create nvme a b c",
		"bdev create nvme nvme0",
		"bdev create nvme " ADDRESS " --size 1M",
		"nvme",
		"nvme detach",
		"nvme show",
		"nvme claim",
		"nvme claim a b",
		"nvme release",
		"nvme list x",
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		if (run(wrong[i]) != 2)
			fail_msg("'sluice %s' said:\n%s", wrong[i], w.said);
	}
	expect_output("nvme claim --help", "Take an NVMe drive from the kernel");
	expect_output("--help", "nvme release");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_way_of_a_drive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fewer_queues_than_reactors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rescan, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_parameters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_next_daemon, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_start_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cannot_be_saved, setup, teardown),
		cmocka_unit_test_setup_teardown(test_show, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pulled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_drive.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "double.h"
#include "nvme/spec.h"

#define DIR "/sys/bus/pci/devices/" FAKE_DRIVE

static struct {
	struct model model;
	pthread_t thread;
	bool ended;
	int config_fd;
} drive;

static void *reach(uint64_t bus)
{
	/* The guest's page may be one to read only; who writes to such a one is found out there. */
	return double_bus_to_memory(bus, false);
}

static void *run(void *arg)
{
	struct model *m = &drive.model;

	while (!__atomic_load_n(&drive.ended, __ATOMIC_ACQUIRE)) {
		/* The configuration space is a file here, so what is set there is looked up. */
		if (pread(drive.config_fd, m->config + NVME_PCI_COMMAND, 2, NVME_PCI_COMMAND) != 2)
			break;
		if (!model_step(m))
			usleep(50);
	}
	return NULL;
}

static void write_config(unsigned offset, const void *data, size_t len)
{
	assert_int_equal(pwrite(drive.config_fd, data, len, (off_t)offset), len);
}

struct model *fake_drive_create(struct host *host, uint32_t block_size, uint64_t blocks)
{
	static const char zeros[4096];
	struct model *m = &drive.model;
	char path[160];
	int fd;

	host_write_file(host, DIR "/class", "0x010802\n");
	host_write_file(host, DIR "/enable", "0\n");
	host_write_file(host, DIR "/power_state", "D0\n");
	host_write_file(host, DIR "/driver_override", "sluice\n");
	host_write_file(host, DIR "/config", "");
	host_write_file(host, DIR "/resource0", "");
	host_write_file(host, "/run/x", "");

	snprintf(path, sizeof(path), "%s" DIR "/config", host->root);
	drive.config_fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(drive.config_fd >= 0);
	snprintf(path, sizeof(path), "%s" DIR "/resource0", host->root);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, sizeof(m->bar)), 0);

	model_init(m, NULL, block_size, blocks);
	m->reach = reach;
	/* The model finds its registers in memory, and the driver in the file. */
	assert_ptr_equal(mmap(m->bar, sizeof(m->bar), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_FIXED, fd, 0),
			 m->bar);
	close(fd);
	model_power_on(m);
	write_config(0, zeros, sizeof(zeros));
	write_config(0, m->config, sizeof(m->config));
	drive.ended = false;
	assert_int_equal(pthread_create(&drive.thread, NULL, run, NULL), 0);
	return m;
}

void fake_drive_destroy(void)
{
	struct model *m = &drive.model;

	__atomic_store_n(&drive.ended, true, __ATOMIC_RELEASE);
	pthread_join(drive.thread, NULL);
	close(drive.config_fd);
	if (m->violations)
		fail_msg("the drive has met with %u wrongs, first %s", m->violations, m->violation);
	assert_int_equal(m->dma_after_cut, 0);
	model_fini(m);
	assert_ptr_equal(mmap(m->bar, sizeof(m->bar), PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 m->bar);
}

static uint32_t *reg(unsigned offset)
{
	return (uint32_t *)(void *)(drive.model.bar + offset);
}

bool fake_drive_enabled(void)
{
	return __atomic_load_n(reg(NVME_REG_CC), __ATOMIC_ACQUIRE) & NVME_CC_EN;
}

bool fake_drive_is_master(void)
{
	uint16_t command = 0;

	assert_int_equal(pread(drive.config_fd, &command, sizeof(command), NVME_PCI_COMMAND),
			 sizeof(command));
	return command & NVME_PCI_COMMAND_MASTER;
}

void fake_drive_leave_running(void)
{
	uint16_t command = NVME_PCI_COMMAND_MEMORY | NVME_PCI_COMMAND_MASTER;

	write_config(NVME_PCI_COMMAND, &command, sizeof(command));
	__atomic_store_n(reg(NVME_REG_AQA), 1 << 16 | 1, __ATOMIC_RELEASE);
	__atomic_store_n(reg(NVME_REG_CC), NVME_CC_EN | NVME_CC_IOSQES(6) | NVME_CC_IOCQES(4),
			 __ATOMIC_RELEASE);
}

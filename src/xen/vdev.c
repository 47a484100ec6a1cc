/* SPDX-License-Identifier: BSD-2-Clause */
#include "xen/vdev.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"

enum {
	XVD_MAJOR = 202,
	SD_MAJOR = 8,
	IDE0_MAJOR = 3,
	IDE1_MAJOR = 22,
};
#define EXTENDED (1u << 28) /* xvd disks and partitions that do not fit major 202 */

/* Letters ("a" is 0, "z" 25, "aa" 26) and an optional partition number. */
static bool parse_disk(const char *text, uint32_t *disk, uint32_t *partition)
{
	uint32_t d = 0;
	unsigned letters = 0;

	for (; *text >= 'a' && *text <= 'z' && letters < 3; text++, letters++)
		d = d * 26 + (uint32_t)(*text - 'a') + 1;
	if (!letters)
		return false;
	*disk = d - 1;
	*partition = 0;
	return !*text || (*text != '0' && parse_u32(text, 255, partition));
}

static bool parse_hex(const char *digits, uint32_t *value)
{
	size_t len = strlen(digits);

	if (!len || len > 8 || strspn(digits, "0123456789abcdefABCDEF") != len)
		return false;
	*value = (uint32_t)strtoul(digits, NULL, 16);
	return true;
}

bool vdev_parse(const char *name, uint32_t *devid)
{
	uint32_t disk, partition;

	if (name[0] >= '0' && name[0] <= '9') {
		if (name[0] == '0' && name[1] == 'x')
			return parse_hex(name + 2, devid);
		return parse_u32(name, UINT32_MAX >> 1, devid);
	}
	if (!strncmp(name, "xvd", 3) && parse_disk(name + 3, &disk, &partition)) {
		if (disk < 16 && partition < 16)
			*devid = XVD_MAJOR << 8 | disk << 4 | partition;
		else if (disk < 1u << 20)
			*devid = EXTENDED | disk << 8 | partition;
		else
			return false;
		return true;
	}
	if (!strncmp(name, "hd", 2) && parse_disk(name + 2, &disk, &partition)) {
		if (disk >= 4 || partition >= 64)
			return false;
		*devid = (uint32_t)(disk < 2 ? IDE0_MAJOR : IDE1_MAJOR) << 8 | (disk & 1) << 6 |
			 partition;
		return true;
	}
	if (!strncmp(name, "sd", 2) && parse_disk(name + 2, &disk, &partition)) {
		if (disk >= 16 || partition >= 16)
			return false;
		*devid = SD_MAJOR << 8 | disk << 4 | partition;
		return true;
	}
	return false;
}

void vdev_format(uint32_t devid, char *name, size_t len)
{
	uint32_t disk, partition = 0;
	char letters[8] = "";
	const char *prefix;
	size_t at = sizeof(letters) - 1;

	if (devid & EXTENDED) {
		prefix = "xvd";
		disk = (devid & ~EXTENDED) >> 8;
		partition = devid & 255;
	} else if (devid >> 8 == XVD_MAJOR || devid >> 8 == SD_MAJOR) {
		prefix = devid >> 8 == XVD_MAJOR ? "xvd" : "sd";
		disk = devid >> 4 & 15;
		partition = devid & 15;
	} else if (devid >> 8 == IDE0_MAJOR || devid >> 8 == IDE1_MAJOR) {
		prefix = "hd";
		disk = (devid >> 8 == IDE1_MAJOR ? 2 : 0) + (devid >> 6 & 1);
		partition = devid & 63;
	} else {
		snprintf(name, len, "%u", devid);
		return;
	}
	/* Letters from the last to the first. */
	for (disk++; disk && at; disk = (disk - 1) / 26)
		letters[--at] = (char)('a' + (disk - 1) % 26);
	if (partition)
		snprintf(name, len, "%s%s%u", prefix, letters + at, partition);
	else
		snprintf(name, len, "%s%s", prefix, letters + at);
}

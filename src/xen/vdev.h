/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of virtual disks (xen-vbd-interface(7)): xvda, hda, sda, or a number, and their device ids.
 */
#ifndef SLUICE_XEN_VDEV_H
#define SLUICE_XEN_VDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "xvda", "xvdq3", "hdb1", "sda", "51712", "0xca00": the device id, or false. */
bool vdev_parse(const char *name, uint32_t *devid);

/* The name of @devid, "xvda" style where it has one, else its number. */
void vdev_format(uint32_t devid, char *name, size_t len);

#endif

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: the NVMe driver on Linux without Xen, by VFIO behind an IOMMU
# machine: linux
# drive: data size=256M
# drive: nothing null=1G
# timeout: 180

# The PCI address of the drive with a serial number.
address() { # SERIAL
	basename "$(readlink -f "/sys/block/$(basename "$(drive "$1")")/device/device")"
}

take() { # ADDRESS
	echo vfio-pci >"/sys/bus/pci/devices/$1/driver_override"
	echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"
	echo "$1" >/sys/bus/pci/drivers_probe
}

give_back() { # ADDRESS
	echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"
	echo >"/sys/bus/pci/devices/$1/driver_override"
	echo "$1" >/sys/bus/pci/drivers_probe
}

data=$(address data)
nothing=$(address nothing)
must take "$data"
must take "$nothing"
must drive-load "$data" info
must drive-load --iov "$nothing" bench
must give_back "$data"
pass

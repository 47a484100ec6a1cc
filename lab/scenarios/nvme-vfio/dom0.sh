# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: the NVMe driver on Linux without Xen: verified I/O by VFIO, behind an IOMMU that confines it
# machine: linux
# drive: data size=256M
# drive: large size=256M block=4096
# drive: nothing null=1G
# timeout: 300

# The PCI address of the drive with a serial number.
address() { # SERIAL
	basename "$(readlink -f "/sys/block/$(basename "$(drive "$1")")/device/device")"
}

take() { # ADDRESS
	must sluice nvme claim "$1"
}

give_back() { # ADDRESS
	must sluice nvme release "$1"
}

# What the kernel reads from the drive is what was written.
same_as_image() { # SERIAL
	cmp -n "$(stat -c %s /run/image)" /run/image "$(drive "$1")" >/run/differs 2>&1 ||
		fail "the kernel reads something else than was written: $(cat /run/differs)"
}

data=$(address data)
nothing=$(address nothing)
refused "belongs to the kernel's driver \"nvme\"" drive-load "$data" info

step "verified reads and writes by the driver alone, two queues"
for serial in data large; do
	address=$(address $serial)
	take "$address"
	drive-load --workers 2 --depth 8 --image /run/image "$address" verify \
		>/run/verified || fail "drive-load has found wrong data, or worse: see dom0.log"
	story "drive $serial: $(cat /run/verified)"
	give_back "$address"
	same_as_image $serial
done
story "the kernel's driver reads the same from both drives"

# What a frontend in the program's own process writes through blkif, by each way of sharing, it reads
# again; and the kernel's driver reads the same.
for sharing in copy dma persistent; do
	step "a frontend through blkif, sharing=$sharing"
	take "$data"
	drive-load --sharing "$sharing" --depth 4 --image /run/image "$data" verify >/run/verified ||
		fail "drive-load has found wrong data, or worse: see dom0.log"
	story "$(cat /run/verified)"
	[ "$sharing" = copy ] || [ "$(json copied </run/verified)" -lt \
		"$(($(json bytes </run/verified) / 100))" ] || fail "with dma more than 1% was copied"
	give_back "$data"
	same_as_image data
done

step "the IOMMU against the drive"
take "$data"
dmesg -c >"$logs/kernel.log"
must drive-load --read-to 1234567000 "$data"
dmesg | grep -q "DMAR: .DMA Write.* fault addr 0x1234567000" ||
	fail "nothing stopped the drive at an address that was never mapped"
story "the kernel's log: $(dmesg | grep -m1 -o "DMAR: .DMA.*")"
# The emulated IOMMU tells of some faults only; these pages tell by themselves.
for option in --read-to --write-from; do
	drive-load "$option" unmapped "$data" >/run/reached || fail "drive-load has failed"
	[ "$(jq .reached /run/reached)" = false ] ||
		fail "the drive has reached a page that was no longer its own: $(cat /run/reached)"
	story "$option a page that was just unmapped: $(cat /run/reached)"
done
give_back "$data"

step "the driver alone, on a drive that takes no time"
take "$nothing"
for depth in 1 32; do
	drive-load --depth "$depth" "$nothing" bench >/run/bench || fail "drive-load has failed"
	story "random 4 KiB reads at depth $depth: $(json iops </run/bench) a second"
done
pass

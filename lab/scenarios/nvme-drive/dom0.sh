# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2154 # from lib/dom0.sh
# about: a drive is claimed, attached, left running by a sluiced that is killed, and given back
# timeout: 150

disk=$(drive data)
address=$(drive_address data)
printf 'label: gpt\nsize=64MiB, name=one\nsize=64MiB, name=two\n' >/run/table
must sfdisk -q "$disk" </run/table
wait_for 5 "the partitions in dom0" test -b "${disk}p2"

step "claiming a drive that is in use"
must mkfs.ext4 -q "${disk}p1"
mkdir -p /mnt
must mount "${disk}p1" /mnt
refused "p1 is mounted on /mnt" sluice nvme claim "$address"
must sluice nvme list
must umount /mnt
exec 9<"${disk}p2"
refused "p2 is open in process $$" sluice nvme claim "$address"
exec 9<&-
must losetup -f "${disk}p2"
refused "p2 is behind loop0" sluice nvme claim "$address"
must losetup -d /dev/loop0
start_sluiced
must sluice bdev create uring file "${disk}p1" --shared
refused "in use by bdev 'file'" sluice nvme claim "$address"
must sluice bdev delete file
kernel_has data || fail "the kernel lost the drive to a claim that was refused"
story "a drive that is mounted, open, behind a loop device or served is not claimed"

step "claiming and attaching it"
must sluice nvme claim "$address"
[ -z "$(drive data)" ] || fail "the kernel still has the drive"
refused "is claimed, but not attached" sluice nvme show "$address"
must sluice bdev create nvme fast "$address"
must sluice bdev list
[ "$(sluice --json bdev list | jq -r '[.[].name] | join(" ")')" = "fastn1 fastn1p1 fastn1p2" ] ||
	fail "the bdevs are not the drive's namespace and its two partitions"
must sluice attach 0 xvdb fastn1p1
wait_for 20 "a disk in dom0 on the drive" test -b /dev/xvdb
must mount /dev/xvdb /mnt
must umount /mnt
refused "in use by way of bdev fastn1p1" sluice nvme detach fast
refused "part of \"fastn1\"\|\"fastn1p1\", that is in use" sluice attach 0 xvdc fastn1
refused "is attached as fast" sluice nvme release "$address"
must sluice detach 0 xvdb
story "its file system, made by the kernel, is mounted by way of sluiced"

step "killing sluiced with the drive running"
kill_sluiced
refused "cannot" sluice rpc rpc_get_methods
[ -s /run/sluice/sluice.ledger ] || fail "the ledger of what the drive may reach is gone"
start_sluiced
grep -q "drive $address, which was left running, is stopped" "$logs/sluiced.log" ||
	fail "the successor has not stopped the drive"
[ "$(sluice --json bdev list | jq -r '[.[].name] | join(" ")')" = "fastn1 fastn1p1 fastn1p2" ] ||
	fail "the successor has not attached the drive again"
must sluice nvme show fast
story "the drive that a killed sluiced has left running was stopped, and attached anew"

step "giving it back"
must sluice nvme detach fast
must sluice nvme list
must sluice nvme release "$address"
kernel_has data || fail "the kernel does not have the drive again"
stop_sluiced
[ ! -e /run/sluice/sluice.ledger ] || fail "something is noted in the ledger still"
must mount "$(drive data)p1" /mnt
must umount /mnt
pass

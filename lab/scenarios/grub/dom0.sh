# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: GRUB boots a PV guest from its Sluice disk, and hands the disk over to the Linux it has loaded
# timeout: 240
# bring: vmlinuz grub

disk=$(drive data)
step "installing a kernel on the guest's disk"
must sfdisk -q "$disk" <<-EOF
	label: dos
	size=256MiB, type=83
	size=16MiB, type=83
EOF
wait_for 5 "the partitions" test -b "${disk}p2"
must mkfs.ext4 -q "${disk}p1"
must mount -t ext4 "${disk}p1" /mnt
mkdir -p /mnt/boot/grub
cp /guest/vmlinuz /mnt/boot/vmlinuz
cat /guest/guest.cpio /lab/guest.cpio >/mnt/boot/initrd
cat >/mnt/boot/grub/grub.cfg <<-EOF
	linux /boot/vmlinuz console=hvc0 quiet panic=-1 role=grub
	initrd /boot/initrd
	boot
EOF
must umount /mnt
must blockdev --flushbufs "$disk"

start_sluiced
must sluice bdev create uring disk "$disk"
step "creating a guest whose kernel is GRUB"
guest_kernel=/guest/grub
create_guest guest pv grub "$(sluice_disk xvda disk)"
await_result guest 150 kernel
story "GRUB found its menu on the disk, and Linux is up; GRUB and Linux have connected" \
	"$(grep -c 'xvda of domain.*: connected' "$logs/sluiced.log") times"
connections=$(grep -c 'xvda of domain.*: connected' "$logs/sluiced.log")
[ "$connections" -ge 2 ] || fail "the disk was connected only $connections times: has GRUB read it?"

step "GRUB has handed over to Linux"
[ "$(guest_result guest kernel)" = "$(sha256sum </guest/vmlinuz | cut -d' ' -f1)" ] ||
	fail "the guest reads another kernel from the disk than dom0 put there"
await_result guest 60 load
load=$(guest_result guest load)
[ "$(echo "$load" | json errors)" = 0 ] || fail "the load found errors: $load"
story "Linux read the same kernel from the disk, wrote $(guest_result guest files) files and found" \
	"them again, and verified $(echo "$load" | json checked_sectors) sectors"
await_end guest 30
must sluice bdev delete disk
stop_sluiced
pass

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of grub: the disk that GRUB has read this kernel from is now Linux's; it has to
# hold what dom0 put there, and to take new data.

wait_for 20 "/dev/xvda1" test -b /dev/xvda1
must mount -t ext4 /dev/xvda1 /mnt
result kernel "$(sha256sum </mnt/boot/vmlinuz | cut -d' ' -f1)"
mkdir /mnt/new
must cp -r /bin /sbin /mnt/new
cd /mnt/new || fail "no new files"
tree_sums /run/sums.before
cd /
must umount /mnt
echo 3 >/proc/sys/vm/drop_caches
must mount -t ext4 /dev/xvda1 /mnt
cd /mnt/new || fail "no new files after the remount"
tree_sums /run/sums.after
cd /
compare_sums
must umount /mnt
result files "$(wc -l </run/sums.after)"
load load --verify --block 512-64k --depth 16 --batch 4 --flush 100 --requests 2000 --seed 41 /dev/xvda2

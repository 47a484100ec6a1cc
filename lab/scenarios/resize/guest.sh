# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of resize: a mounted file system and verified load on a file in it; whenever the
# disk is larger, the file system grows into it.

wait_for 20 "/dev/xvda" test -b /dev/xvda
must mkfs.ext4 -q -E nodiscard /dev/xvda
must mount -t ext4 /dev/xvda /mnt
must dd if=/dev/zero of=/mnt/file bs=1M count=16 2>/dev/null
start_load load --verify --block 512-64k --depth 8 --batch 4 --flush 100 --progress 1 --seed 51 /mnt/file

size=$(cat /sys/block/xvda/size)
result sectors "$size"
while ! asked_to_stop; do
	sleep 0.2
	now=$(cat /sys/block/xvda/size)
	[ "$now" != "$size" ] || continue
	size=$now
	must resize2fs /dev/xvda >/dev/null 2>&1
	result blocks "$(df -k /mnt | awk 'NR == 2 { print $2 }')"
	result progress "$(load_progress load)"
	result sectors "$size"
done
stop_load load
finish_load load
result room "$(df -k /mnt | awk 'NR == 2 { print $4 }')"
must dd if=/dev/urandom of=/mnt/more bs=1M count=90 2>/dev/null
sum=$(sha256sum </mnt/more)
must umount /mnt
must e2fsck -f -n /dev/xvda >/dev/null
must mount -t ext4 /dev/xvda /mnt
[ "$(sha256sum </mnt/more)" = "$sum" ] || fail "the file in the new room reads differently"
must umount /mnt

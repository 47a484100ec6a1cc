# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of demo and pvh: what anyone does with a new disk, and then verified load.

wait_for 20 "/dev/xvda" test -b /dev/xvda

must sfdisk -q /dev/xvda <<-EOF
	label: gpt
	size=192MiB, type=linux, name=files
	size=64MiB, type=linux, name=raw
EOF
wait_for 5 "the partitions" test -b /dev/xvda2
result partitioned "$(grep -c 'xvda[0-9]' /proc/partitions)"

must mkfs.ext4 -q /dev/xvda1
must mount -t ext4 /dev/xvda1 /mnt
mkdir -p /mnt/tree/system
must cp -r /bin /sbin /modules /etc /mnt/tree/system
# A few hundred small files, made without a process for each.
for folder in 0 1 2 3 4 5 6 7; do
	mkdir -p "/mnt/tree/$folder"
	for file in 0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k l m n o p q r s t; do
		echo "file $file of folder $folder: $file$folder$file$folder" \
			>"/mnt/tree/$folder/$file"
	done
done
cd /mnt/tree || fail "no tree"
tree_sums >/run/sums.before
cd /
must umount /mnt
echo 3 >/proc/sys/vm/drop_caches
must mount -t ext4 /dev/xvda1 /mnt
cd /mnt/tree || fail "no tree after the remount"
tree_sums >/run/sums.after
result tree_bytes "$(($(du -s -k . | cut -f1) * 1024))"
cd /
must cmp /run/sums.before /run/sums.after
for program in busybox blkload; do
	must cmp "/bin/$program" "/mnt/tree/system/bin/$program"
done
must umount /mnt
must e2fsck -f -n /dev/xvda1 >/dev/null
result files "$(wc -l </run/sums.after)"
result tree "$(sha256sum </run/sums.after | cut -d' ' -f1)"

load load --verify --block 512-64k --read 50 --depth 16 --batch 4 --flush 100 --seconds 10 \
	--seed 7 /dev/xvda2
result raw "$(device_digest /dev/xvda2)"
result counts "$(disk_counts xvda)"

# Stay connected and idle, until dom0 has measured what that costs.
result idle yes
wait_for 60 "the end of dom0's measurement" asked_to_stop

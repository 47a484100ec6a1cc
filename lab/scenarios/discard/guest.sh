# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of discard: files that come and go on a disk that takes discards, then another
# disk that does not.

wait_for 20 "/dev/xvda" test -b /dev/xvda
wait_for 20 "/dev/xvdb" test -b /dev/xvdb
result limits "$(cat /sys/block/xvda/queue/discard_max_bytes) $(cat /sys/block/xvdb/queue/discard_max_bytes)"

must mkfs.ext4 -q -E nodiscard /dev/xvda
must mount -t ext4 /dev/xvda /mnt
must dd if=/dev/urandom of=/mnt/gone bs=1M count=48 2>/dev/null
must dd if=/dev/urandom of=/mnt/kept bs=1M count=16 2>/dev/null
must sync
sum=$(sha256sum </mnt/kept)
result full yes
wait_for 60 "dom0 to have looked" test -b /dev/xvdc

rm /mnt/gone
must sync # what is not committed to the journal is not free yet
must fstrim /mnt
must sync
result trimmed yes
wait_for 60 "dom0 to have looked again" gone /dev/xvdc
echo 3 >/proc/sys/vm/drop_caches
[ "$(sha256sum </mnt/kept)" = "$sum" ] || fail "the discards hit the file that was kept"
must umount /mnt
must e2fsck -f -n /dev/xvda >/dev/null

# What was discarded reads as zeroes, and what is beside it stays.
must dd if=/dev/urandom of=/run/random bs=1M count=4 2>/dev/null
must dd if=/run/random of=/dev/xvda bs=1M count=4 oflag=direct 2>/dev/null
must blkdiscard -o 1M -l 2M /dev/xvda
dd if=/dev/zero of=/run/random bs=1M seek=1 count=2 conv=notrunc 2>/dev/null
must dd if=/dev/xvda of=/run/read bs=1M count=4 iflag=direct 2>/dev/null
must cmp /run/random /run/read
if blkdiscard -o 1M -l 1M /dev/xvdb 2>/dev/null; then
	fail "xvdb takes discards"
fi

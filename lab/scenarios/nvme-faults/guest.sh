# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of nvme-faults: verified load on a good disk all the time, beside one with bad
# sectors and two whose drives go away.

for disk in xvda xvdb xvdc xvdd; do
	wait_for 20 "/dev/$disk" test -b /dev/$disk
done
start_load good --verify --length 32M --block 512-64k --depth 8 --batch 4 --flush 200 --seed 3 \
	--progress 1 /dev/xvda

# Whether 4 KiB at a place can be read or written.
try() { # read|write PAGE
	case $1 in
	read) dd if=/dev/xvdb of=/dev/null bs=4k skip="$2" count=1 iflag=direct 2>/run/dd.err ;;
	write) dd if=/dev/zero of=/dev/xvdb bs=4k seek="$2" count=1 oflag=direct 2>/run/dd.err ;;
	esac
}

# Sector 2048 cannot be read, and sector 4096 not written: see dom0.sh.
for page in 255 257 512; do
	try read $page || fail "a good page $page cannot be read: $(tail -n1 /run/dd.err)"
done
for page in 256 511 513; do
	try write $page || fail "a good page $page cannot be written: $(tail -n1 /run/dd.err)"
done
for _ in 1 2 3; do
	try read 256 && fail "the bad sector was read"
	grep -q 'Input/output error' /run/dd.err || fail "the bad sector is no I/O error: $(tail -n1 /run/dd.err)"
	try write 512 && fail "the bad sector was written"
	grep -q 'Input/output error' /run/dd.err || fail "the bad sector is no I/O error: $(tail -n1 /run/dd.err)"
done
# A request of many pages with the sector amidst them fails, and those beside it do not.
load beside --verify --offset 4M --length 16M --block 4k-128k --depth 16 --batch 4 --requests 500 \
	--seed 5 /dev/xvdb
if dd if=/dev/xvdb of=/dev/null bs=128k skip=8 count=1 iflag=direct 2>/dev/null; then
	fail "a large request with the bad sector in it was read"
fi
result bad "$(load_progress good)"

# The loads on disks whose drives go away end with errors, but they end.
for disk in xvdc xvdd; do
	start_load $disk --block 4k-64k --length 64M --depth 16 --batch 4 --seconds 20 --seed 9 /dev/$disk
done
result going yes
for disk in xvdc xvdd; do
	while [ ! -s /run/$disk.status ]; do
		sleep 0.2
	done
	result "$disk" "$(tail -n1 /run/$disk.out)"
	if dd if=/dev/$disk of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; then
		fail "a disk without a drive was read"
	fi
done
result gone "$(load_progress good)"

# A disk of the drive that has come back.
wait_for 120 "the disk of the drive that has come back" test -b /dev/xvde
load back --verify --length 16M --block 512-64k --depth 16 --batch 4 --requests 500 --seed 13 /dev/xvde
result after "$(load_progress good)"
stop_load good
finish_load good

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of sharing: verified loads, then timed ones, turn and turn about.

# On its part of the disk: c and d are one drive.
load_part() { # KEY DISK ARGUMENT...
	part_key=$1 part_disk=$2 part_offset=0
	[ "$part_disk" != d ] || part_offset=512M
	shift 2
	load "$part_key" --offset "$part_offset" --length 32M "$@" "/dev/xvd$part_disk"
	keys="$keys $part_key"
}

keys=
for disk in a b c d; do
	wait_for 20 "/dev/xvd$disk" test -b "/dev/xvd$disk"
	load_part "verified_$disk" "$disk" --verify --block 512-128k --depth 16 --batch 4 \
		--requests 400 --seed 3
done
for round in 1 2 3; do
	for disk in a b c d; do
		load_part "r4k_d1_${disk}_$round" "$disk" --block 4k --read 100 --depth 1 --seconds 2
		load_part "w4k_d32_${disk}_$round" "$disk" --block 4k --read 0 --depth 32 --batch 8 \
			--seconds 2
		load_part "r128k_d8_${disk}_$round" "$disk" --block 128k --read 100 --depth 8 \
			--seconds 2
	done
done
result finished "$keys"
wait_for 60 "the end" asked_to_stop

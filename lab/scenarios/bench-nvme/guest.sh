# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of bench-nvme: each load on each disk, round after round, and in each round in
# another order of disks.  After each it waits for a moment, in which dom0 reads its counters.

rounds=3
disks=$(grep -o 'xvd[a-z]$' /proc/partitions | sort | xargs)

measure() { # ROUND DISK LOAD ARGUMENT...
	measure_round=$1 measure_disk=$2 measure_load=$3
	shift 3
	measure_out=$(blkload --length 1G --seconds 2 --seed "$measure_round" "$@" "/dev/$measure_disk") ||
		fail "blkload $* on $measure_disk: $measure_out"
	result "measured $measure_round $measure_disk $measure_load $measure_out"
	sleep 1
}

# Whether a system call hands over one request or many says more of this guest than of its disk, so
# there is a load of each kind.
all_loads() { # ROUND DISK
	for share in 100 0; do
		kind="write"
		[ $share = 0 ] || kind="read"
		measure "$1" "$2" "4k-$kind-depth-1" --block 4k --read $share --depth 1
		measure "$1" "$2" "4k-$kind-batched" --block 4k --read $share --depth 32 --batch 16
		measure "$1" "$2" "4k-$kind-4x8" --block 4k --read $share --jobs 4 --depth 8 --submit 1
		measure "$1" "$2" "1m-$kind-4-jobs" --block 1M --read $share --jobs 4 --depth 1
	done
}

for disk in $disks; do
	# What is done for the first time is not what is measured.
	blkload --block 4k-128k --depth 32 --requests 500 --length 64M "/dev/$disk" >/dev/null ||
		fail "blkload on $disk"
done
round=1
while [ $round -le $rounds ]; do
	# What nothing costs, between two looks at the counters.
	result measured $round none start -
	sleep 3
	result measured $round none idle -
	sleep 1
	for disk in $disks; do
		all_loads $round "$disk"
	done
	first=${disks%% *}
	disks="${disks#* } $first"
	round=$((round + 1))
done

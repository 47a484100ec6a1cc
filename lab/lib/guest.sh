# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# What guest scripts use.  A guest talks to dom0 through its console: lines "@KEY VALUE", which dom0
# finds in the console's log.  dom0 talks to a guest through what any guest has: disks that come
# and go, and `xl shutdown`, which makes the guest's kernel run /sbin/poweroff.

result() { # KEY VALUE...
	echo "@$*"
}

fail() { # REASON...
	result failed "$*"
	sleep 1
	poweroff -f
}

must() { # COMMAND...
	"$@" || fail "$* ended with status $?"
}

wait_for() { # SECONDS WHAT COMMAND...
	wait_left=$(($1 * 5)) wait_what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		wait_left=$((wait_left - 1))
		[ "$wait_left" -gt 0 ] || fail "waited in vain for $wait_what"
		sleep 0.2
	done
}

# The end of a guest's work, asked for by dom0 with `xl shutdown`.
asked_to_stop() {
	[ -e /run/stop ]
}

# Runs blkload to its end, and passes on its line of JSON as the result KEY.
load() { # KEY ARGUMENT...
	start_load "$@"
	finish_load "$1"
}

# The same in two halves: the load runs in the background, until it has done its work or
# `stop_load KEY` asks it to end.  load_cpu pins it to a processor; load_retries is how often it may
# begin again after the emulator has made it crash (see the README), which is said as KEYcrash.
start_load() { # KEY ARGUMENT...
	load_key=$1 load_tries=${load_retries:-0}
	shift
	(
		set -- blkload "$@"
		[ -z "${load_cpu:-}" ] || set -- taskset "$((1 << load_cpu))" "$@"
		while :; do
			"$@" >"/run/$load_key.out" 2>"/run/$load_key.err" &
			echo $! >"/run/$load_key.pid"
			wait $!
			load_status=$?
			case $load_status in
			127 | 132 | 133 | 135 | 136 | 139) ;; # not found, or SIGILL to SIGSEGV
			*) break ;;
			esac
			result "${load_key}crash" "status $load_status: $(dmesg | grep -E 'segfault|traps:' |
				tail -n1)"
			[ "$load_tries" -gt 0 ] || break
			load_tries=$((load_tries - 1))
			sleep 1 # what is in flight has to be over
		done
		echo "$load_status" >"/run/$load_key.status"
	) &
}

stop_load() { # KEY
	kill -TERM "$(cat "/run/$1.pid")"
}

finish_load() { # KEY
	while [ ! -s "/run/$1.status" ]; do
		sleep 0.1
	done
	cat "/run/$1.err"
	result "$1" "$(tail -n1 "/run/$1.out")"
	[ "$(cat "/run/$1.status")" = 0 ] || fail "blkload found errors ($1," \
		"status $(cat "/run/$1.status")): $(head -n1 "/run/$1.err")"
}

# How many requests a load in the background with --progress has made so far.
load_progress() { # KEY
	sed -n 's/^blkload: \([0-9]*\) requests.*/\1/p' "/run/$1.out" | tail -n1
}

# What dom0 wanted of this guest when it created it.
role() {
	sed -n 's/.*role=\([a-z0-9]*\).*/\1/p' /proc/cmdline
}

gone() { # PATH
	[ ! -e "$1" ]
}

# The checksums of all files below the current directory.  One that a crash of the emulator's making
# has cut short is made again (see the README), and that is reported; any other trouble is the test's end.
tree_sums() { # FILE: for the sums
	find . -type f | sort >/run/tree.files
	for sums_try in 1 2 3 4; do
		sums_status=0
		xargs sha256sum </run/tree.files >"$1" || sums_status=$?
		[ "$sums_status" != 0 ] || [ "$(wc -l <"$1")" != "$(wc -l </run/tree.files)" ] || return 0
		dmesg | grep -q -E 'segfault|traps:' || break
		result sumscrash "$sums_try: $(dmesg | grep -E 'segfault|traps:' | tail -n1)"
	done
	fail "the checksums of $(wc -l </run/tree.files) files cannot be had: sha256sum ended with" \
		"status $sums_status after $(wc -l <"$1")"
}

# Whether the sums of before and after are the same; what differs is shown.
compare_sums() {
	cmp -s /run/sums.before /run/sums.after && return
	diff /run/sums.before /run/sums.after
	fail "$(diff /run/sums.before /run/sums.after | grep -c '^+[^+]') of the files in a tree" \
		"are not what was written"
}

# A digest of a device's contents, past the page cache.
device_digest() { # DEVICE
	dd if="$1" iflag=direct bs=1M 2>/dev/null | sha256sum | cut -d' ' -f1
}

# Does with a new disk what anyone does, and then verified load; what it has found out is reported
# under keys that begin with the disk's name.
prove_disk() { # DISK [SECONDS]
	wait_for 20 "/dev/$1" test -b "/dev/$1"
	must sfdisk -q "/dev/$1" <<-EOF
		label: gpt
		size=192MiB, type=linux, name=files
		size=64MiB, type=linux, name=raw
	EOF
	wait_for 5 "the partitions" test -b "/dev/${1}2"
	result "${1}_partitioned" "$(grep -c "$1[0-9]" /proc/partitions)"

	must mkfs.ext4 -q "/dev/${1}1"
	must mount -t ext4 "/dev/${1}1" /mnt
	mkdir -p /mnt/tree/system
	must cp -r /bin /sbin /modules /etc /mnt/tree/system
	# A few hundred small files, made without a process for each.
	for prove_folder in 0 1 2 3 4 5 6 7; do
		mkdir -p "/mnt/tree/$prove_folder"
		for prove_file in 0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k l m n o p q r s t; do
			echo "file $prove_file of folder $prove_folder: $prove_file$prove_folder$1" \
				>"/mnt/tree/$prove_folder/$prove_file"
		done
	done
	cd /mnt/tree || fail "no tree"
	tree_sums /run/sums.before
	cd /
	must umount /mnt
	echo 3 >/proc/sys/vm/drop_caches
	must mount -t ext4 "/dev/${1}1" /mnt
	cd /mnt/tree || fail "no tree after the remount"
	tree_sums /run/sums.after
	result "${1}_tree_bytes" "$(($(du -s -k . | cut -f1) * 1024))"
	cd /
	compare_sums
	for prove_file in busybox blkload; do
		must cmp "/bin/$prove_file" "/mnt/tree/system/bin/$prove_file"
	done
	must umount /mnt
	must e2fsck -f -n "/dev/${1}1" >/dev/null
	result "${1}_files" "$(wc -l </run/sums.after)"
	result "${1}_tree" "$(sha256sum </run/sums.after | cut -d' ' -f1)"

	load "${1}_load" --verify --block 512-64k --read 50 --depth 16 --batch 4 --flush 100 \
		--seconds "${2:-10}" --seed 7 "/dev/${1}2"
	result "${1}_raw" "$(device_digest "/dev/${1}2")"
	result "${1}_counts" "$(disk_counts "$1")"
}

# What the kernel counted for a disk: requests and sectors read, requests and sectors written.
disk_counts() { # NAME
	awk '{ print $1, $3, $5, $7 }' "/sys/block/$1/stat"
}

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# What dom0's scenario scripts use.  They run as dom0's init, with /lab/logs/dom0.log as output.
#
# Marks are the lines that the host follows on the serial console.  Each carries the nonce of this
# run, which only dom0 was given: nothing that a guest writes can pass for one.

logs=/lab/logs
nonce=$(cat /lab/nonce)
console=/var/log/xen/console

# ---- telling the host ----

mark() { # KIND TEXT...
	printf '\n@%s %s\n' "$nonce" "$*" >/dev/console
}

step() { # TEXT...: progress
	echo "--- $(cut -d' ' -f1 /proc/uptime) $*"
	mark step "$*"
}

story() { # TEXT...: a result worth showing
	echo "=== $*"
	mark story "$*"
}

# Pulls a drive that sits behind a port, from outside.
pull_drive() { # SERIAL
	echo "+ the drive $1 is pulled"
	mark pull "$1"
}

# Saves all logs on the log disk, says how it ended, and powers the machine off.  The last mark
# comes twice, because Xen's own messages may break into one.
finish() { # pass|fail TEXT...
	mkdir /lab/finishing 2>/dev/null || while :; do sleep 60; done
	echo "*** $*"
	dmesg >"$logs/dom0-dmesg.log"
	xenstore-ls -f >"$logs/xenstore.log" 2>&1
	xl list >"$logs/domains.log" 2>&1
	[ ! -e "$(instance_file wanted)" ] || timeout 5 sluice --json stat >"$logs/stat.json" 2>&1
	cp "$console"/guest-*.log /var/log/xen/qemu-*.log "$logs/" 2>/dev/null
	# Who waits for whom, if it was no crash: all event channels and grants, by Xen's own account.
	if [ "$1" = fail ] && [ -d /proc/xen ]; then
		xl debug-keys eg && xl dmesg >"$logs/xen.log"
	fi
	tar -c -C "$logs" . | dd of="$(drive logs)" bs=64k conv=fsync 2>/dev/null
	mark "$@"
	mark "$@"
	sleep 0.5
	poweroff -f
}

fail() { # REASON...
	finish fail "$*"
}

# The only way to pass: nothing has crashed, nothing complained.
pass() {
	check_health
	finish pass
}

check_health() {
	check_sluiced
	if grep -q -E 'Sanitizer|runtime error:' "$logs"/sluiced*.log 2>/dev/null; then
		fail "a sanitizer complained: $(grep -m1 -h -E 'Sanitizer|runtime error:' \
			"$logs"/sluiced*.log)"
	fi
	if dmesg | grep -q -E 'Oops|BUG:|general protection|Call Trace'; then
		fail "dom0's kernel complained: $(dmesg | grep -m1 -E \
			'Oops|BUG:|general protection|Call Trace')"
	fi
	if grep -q -s -E 'Kernel panic|Oops|BUG:|Call Trace' "$console"/guest-*.log; then
		fail "a guest's kernel complained: $(grep -m1 -h -E \
			'Kernel panic|Oops|BUG:|Call Trace' "$console"/guest-*.log)"
	fi
}

# A scenario that hangs ends itself, with its logs, before the host pulls the plug.
watch_deadline() {
	(
		sleep "$(cat /lab/deadline)"
		fail "not finished after $(cat /lab/deadline) s (was: $(grep '^---' \
			"$logs/dom0.log" | tail -n1))"
	) &
}

# ---- small tools ----

must() { # COMMAND...
	echo "+ $*"
	"$@" || fail "$* ended with status $?"
}

# A command that has to be refused: non-zero status, and a single line that says why in these words.
refused() { # WORDS COMMAND...
	refused_words=$1
	shift
	echo "+ $* (to be refused)"
	if timeout 30 "$@" >/run/refused 2>&1; then
		fail "$* was accepted"
	fi
	cat /run/refused
	grep -q "$refused_words" /run/refused || fail "$* was refused with: $(tail -n1 /run/refused)"
	[ "$(wc -l </run/refused)" = 1 ] || fail "$* was refused in $(wc -l </run/refused)" \
		"lines instead of one"
}

wait_for() { # SECONDS WHAT COMMAND...
	wait_end=$(($(now) + $1 * 1000)) wait_what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		check_sluiced
		[ "$(now)" -lt "$wait_end" ] || fail "waited in vain for $wait_what"
		sleep 0.2
	done
}

now() { # milliseconds since boot
	sed 's/^\([0-9]*\)\.\([0-9]*\) .*/\1\20/' /proc/uptime
}

# The value of a number in a flat line of JSON.
json() { # KEY, reads standard input
	sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"
}

# The block device of the NVMe drive with a serial number, as long as the kernel drives it.
drive() { # SERIAL [NAMESPACE]
	for drive_sys in /sys/block/nvme*; do
		if [ "$(tr -d ' ' 2>/dev/null <"$drive_sys/device/serial")" = "$1" ] &&
			[ "$(cat "$drive_sys/nsid" 2>/dev/null)" = "${2:-1}" ]; then
			echo "/dev/${drive_sys##*/}"
		fi
	done
}

# The PCI address of the same, as long as the kernel drives it.
drive_address() { # SERIAL
	for drive_sys in /sys/class/nvme/nvme*; do
		if [ "$(tr -d ' ' <"$drive_sys/serial")" = "$1" ]; then
			cat "$drive_sys/address"
		fi
	done
}

# Takes a drive from the kernel and gives it to sluiced, whose block devices of it are NAMEn1 and so
# on, with the partitions NAMEn1p1 and so on.
own_drive() { # SERIAL NAME [INSTANCE]
	own_address=$(drive_address "$1")
	[ -n "$own_address" ] || fail "the kernel has no NVMe drive '$1'"
	must sluice nvme claim "$own_address"
	must sluice --name "${3:-sluice}" bdev create nvme "$2" "$own_address"
	echo "$own_address" >"/run/own.$2"
}

# Gives it back, and waits until the kernel has it.
return_drive() { # SERIAL NAME
	must sluice nvme detach "$2"
	must sluice nvme release "$(cat "/run/own.$2")"
	wait_for 15 "the kernel to have the drive '$1' again" kernel_has "$1"
}

kernel_has() { # SERIAL
	[ -b "$(drive "$1")" ]
}

# A digest of a device's contents, past the page cache.
device_digest() { # DEVICE
	dd if="$1" iflag=direct bs=1M 2>/dev/null | sha256sum | cut -d' ' -f1
}

# ---- sluiced ----

# What is known of an instance: its pid, its exit status once it has ended, and whether that was
# wanted.  NAME defaults to sluice, as it does for sluiced itself.
instance_file() { # pid|status|wanted [NAME]
	echo "/lab/sluiced.${2:-sluice}.$1"
}

# Starts the daemon under a watcher that keeps its exit status.  Logs to sluiced.log, or, for another
# instance than the default one, to sluiced-NAME.log.
start_sluiced() { # [NAME [ARGUMENT...]]
	sluiced_name=${1:-sluice}
	[ $# = 0 ] || shift
	sluiced_log=$logs/sluiced.log
	[ "$sluiced_name" = sluice ] || sluiced_log=$logs/sluiced-$sluiced_name.log
	echo "+ sluiced --name $sluiced_name $*"
	rm -f "$(instance_file status "$sluiced_name")"
	(
		sluiced --name "$sluiced_name" "$@" >>"$sluiced_log" 2>&1 &
		echo $! >"$(instance_file pid "$sluiced_name")"
		wait $!
		echo $? >"$(instance_file status "$sluiced_name")"
	) &
	touch "$(instance_file wanted "$sluiced_name")"
	wait_for 20 "sluiced to serve its socket" sluice --name "$sluiced_name" rpc rpc_get_methods
}

sluiced_pid() { # [NAME]
	cat "$(instance_file pid "$@")"
}

# Fails the run if a daemon has ended by itself.
check_sluiced() {
	for sluiced_wanted in /lab/sluiced.*.wanted; do
		sluiced_status=${sluiced_wanted%.wanted}.status
		if [ -e "$sluiced_wanted" ] && [ -e "$sluiced_status" ]; then
			rm "$sluiced_wanted"
			fail "sluiced ended by itself with status $(cat "$sluiced_status"):" \
				"$(tail -q -n1 "$logs"/sluiced*.log)"
		fi
	done
}

# Ends the daemon in order: it has to drain and leave with status 0.
stop_sluiced() { # [NAME]
	end_sluiced TERM "$@"
	[ "$(cat "$(instance_file status "$@")")" = 0 ] || fail "sluiced ended with status" \
		"$(cat "$(instance_file status "$@")") after SIGTERM"
}

# Ends it without a chance to clean up.
kill_sluiced() { # [NAME]
	end_sluiced KILL "$@"
}

end_sluiced() { # SIGNAL [NAME]
	sluiced_signal=$1
	shift
	check_sluiced
	rm "$(instance_file wanted "$@")"
	kill "-$sluiced_signal" "$(sluiced_pid "$@")"
	wait_for 20 "sluiced to end after SIG$sluiced_signal" test -e "$(instance_file status "$@")"
}

# The processor time that sluiced has used, all threads, in ticks of 10 ms.
sluiced_ticks() { # [NAME]
	sed 's/.*) //' "/proc/$(sluiced_pid "$@")/stat" | awk '{ print $12 + $13 }'
}

# What sluiced counted for the only disk it serves: a number of an operation.
disk_count() { # read|write|flush requests|bytes|errors
	sluice --json stat | jq ".[0].$1.$2"
}

# What sluiced counts for a guest's disk: an expression of jq on the disk's object.
vbd_stat() { # GUEST EXPRESSION
	sluice --json stat | jq -r --argjson domid "$(xl domid "$1")" \
		".[] | select(.domid == \$domid) | $2"
}

# The same for what sluiced says of the disk's state.
vbd_state() { # GUEST EXPRESSION
	sluice --json list | jq -r --argjson domid "$(xl domid "$1")" \
		".[] | select(.domid == \$domid) | $2"
}

# ---- guests ----

# Creates a guest, whose script (the scenario's guest.sh) learns its ROLE by `role`.  guest_vcpus and
# guest_memory (MiB) say how large; guest_kernel is something else to start than Linux.
create_guest() { # NAME pv|pvh ROLE DISK...
	guest_name=$1 guest_type=$2 guest_role=$3
	shift 3
	[ -e /run/guest.initrd ] || cat /guest/guest.cpio /lab/guest.cpio >/run/guest.initrd
	{
		echo "name=\"$guest_name\""
		echo "type=\"$guest_type\""
		if [ -n "${guest_kernel:-}" ]; then
			echo "kernel=\"$guest_kernel\""
		else
			echo 'kernel="/guest/vmlinux"'
			echo 'ramdisk="/run/guest.initrd"'
			echo "extra=\"console=hvc0 quiet panic=-1 role=$guest_role\""
		fi
		echo "memory=${guest_memory:-384}"
		echo "vcpus=${guest_vcpus:-1}"
		echo 'cpus="1"'
		# The emulated processor promises no steady TSC, so that Xen would trap each reading of it; that
		# costs more than a request of a disk.  On hardware Xen does not trap it either.
		echo 'tsc_mode="native"'
		echo 'on_reboot="destroy"'
		echo 'on_crash="destroy"'
		echo "disk=["
		for guest_disk in "$@"; do
			echo "'$guest_disk',"
		done
		echo "]"
	} >"/run/$guest_name.cfg"
	must xl create "/run/$guest_name.cfg"
}

# A guest's disk that sluiced serves, in xl's syntax.
sluice_disk() { # VDEV BDEV[@INSTANCE][,shared]
	echo "vdev=$1,format=raw,access=rw,script=block-sluice,target=$2"
}

# The last value of a key that a guest has reported on its console.
guest_result() { # NAME KEY
	tr -d '\r' <"$console/guest-$1.log" | sed -n "s/^@$2 //p" | tail -n1
}

guest_has() { # NAME KEY VALUE
	[ "$(guest_result "$1" "$2")" = "$3" ]
}

guest_reported() { # NAME KEY
	[ -n "$(guest_result "$1" "$2")" ] || [ -n "$(guest_result "$1" failed)" ] ||
		! xl domid "$1"
}

# Waits until a guest reports a key (with any value), and prints nothing.
await_result() { # NAME SECONDS KEY
	wait_for "$2" "guest $1 to report '$3'" guest_reported "$1" "$3"
	check_guest "$1"
	[ -n "$(guest_result "$1" "$3")" ] || fail "guest $1 ended without reporting '$3':" \
		"$(last_words "$1")"
}

# What a guest's kernel died of, or else the last line on its console.
last_words() { # NAME
	grep -m1 -E 'Kernel panic|Oops|BUG:' "$console/guest-$1.log" ||
		tail -n1 "$console/guest-$1.log"
}

check_guest() { # NAME
	[ -z "$(guest_result "$1" failed)" ] || fail "guest $1: $(guest_result "$1" failed)"
}

guest_gone() { # NAME
	! xl domid "$1"
}

# Whether nothing of a domain is left in xenstore.
forgotten() { # DOMID
	! xenstore-ls -f | grep -E "^(/local/domain/0/backend/[a-z]*|/local/domain|/libxl)/$1[ /]"
}

# Destroys a guest, whatever it is doing: xl must have nothing to complain of, and xenstore nothing
# to remember.
destroy_guest() { # NAME
	guest_domid=$(xl domid "$1")
	must xl destroy "$1" 2>/run/destroy.err
	[ ! -s /run/destroy.err ] || fail "xl destroy complained: $(head -n1 /run/destroy.err)"
	wait_for 15 "all of guest $1 to be gone from xenstore" forgotten "$guest_domid"
}

# Waits until a guest has done its work and is gone.
await_end() { # NAME SECONDS
	await_result "$1" "$2" finished
	wait_for 30 "guest $1 to be gone" guest_gone "$1"
}

# ---- what guests have proved (prove_disk in guest.sh) ----

# Waits for all of it, and tells about the load.
await_proof() { # GUEST DISK
	await_result "$1" 90 "$2_partitioned"
	step "$1 has written a GPT to $2, and makes ext4 and copies a tree"
	await_result "$1" 120 "$2_tree"
	story "$1 copied $(guest_result "$1" "$2_files") files of" \
		"$(($(guest_result "$1" "$2_tree_bytes") >> 20)) MiB to ext4 on $2; after unmount, drop of" \
		"caches and remount all checksums were the same, and e2fsck found nothing"
	step "$1 writes and reads $2 at random, and verifies"
	await_result "$1" 120 "$2_load"
	proof_load=$(guest_result "$1" "$2_load")
	story "random verified load, half writes, 512 bytes to 64 KiB:" \
		"$(echo "$proof_load" | json requests) requests, $(echo "$proof_load" | json bytes) bytes," \
		"$(echo "$proof_load" | json iops) IOPS, latency $(echo "$proof_load" | json avg_us) us" \
		"on average, $(echo "$proof_load" | json p99_us) us at 99%; it verified" \
		"$(echo "$proof_load" | json checked_sectors) sectors," \
		"$(echo "$proof_load" | json errors) wrong"
	[ "$(echo "$proof_load" | json errors)" = 0 ] || fail "the load of $1 on $2 found errors:" \
		"$proof_load"
	await_result "$1" 60 "$2_counts"
}

# Reads what it wrote past sluiced: from a block device of the kernel's that holds the guest's disk.
compare_proof() { # GUEST DISK DEVICE
	must losetup -P -r /dev/loop0 "$3"
	wait_for 5 "the partitions of $1's $2 in dom0" test -b /dev/loop0p2
	[ "$(device_digest /dev/loop0p2)" = "$(guest_result "$1" "$2_raw")" ] ||
		fail "$3: the raw partition differs from what $1 verified on $2"
	must mount -t ext4 -o ro /dev/loop0p1 /mnt
	proof_tree=$(cd /mnt/tree && find . -type f -exec sha256sum {} + | sort -k2 | sha256sum |
		cut -d' ' -f1)
	must umount /mnt
	must losetup -d /dev/loop0
	[ "$proof_tree" = "$(guest_result "$1" "$2_tree")" ] ||
		fail "$3: the files differ from what $1 verified on $2"
}

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: a guest is destroyed twenty times with requests in flight; nothing of it stays, nowhere
# timeout: 560

rounds=20
disk=$(drive data)
start_sluiced
must sluice bdev create uring disk "$disk" --shared

# The least that either of the guest's disks shows: one is copied, the other mapped.
least() { # EXPRESSION
	vbd_stat guest "$1" | sort -n | head -n1
}

busy() {
	in_flight=$(least .in_flight)
	[ "$(least '.read.requests + .write.requests')" -gt 50 ] && [ "$in_flight" -gt 0 ]
}

alone() {
	[ "$(xl list | wc -l)" = 2 ]
}

# A debug key of Xen's, and what Xen has to say to it.
ask_xen() { # KEY
	xl dmesg -c >/dev/null
	xl debug-keys "$1"
	xl dmesg | sed 's/^(XEN) //'
}

# What must not grow, a line of "NAME VALUE SLACK" each: the slack is for what is nobody's leak.  Logs
# are in memory; and Xen keeps as many maptrack frames, of 256 entries, as were ever needed at once,
# which some rounds' luck decides.  What a mapped disk has at work is five frames.
sample() {
	echo 3 >/proc/sys/vm/drop_caches
	ask_xen g >/run/grants
	ask_xen e >/run/events
	echo "xen_free_mib $((-$(xl info free_memory))) 1"
	echo "dom0_free_kib $((-$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo))) 8192"
	echo "maptrack_frames $(sed -n 's/.* \([0-9]*\) maptrack frames.*/\1/p' /run/grants) 4"
	echo "event_channels $(grep -c '^ *[0-9]* \[' /run/events) 0"
	# Without what it keeps for guests' data, which is marked not to be dumped: of bounce pages as
	# many stay touched as were ever used at once.
	echo "sluiced_rss_kib $(awk '$1 == "Rss:" { rss = $2 }
		$1 == "VmFlags:" && !/ dd( |$)/ { sum += rss } END { print sum }' \
		"/proc/$(sluiced_pid)/smaps") 256"
	echo "sluiced_maps $(wc -l <"/proc/$(sluiced_pid)/maps") 2"
	echo "sluiced_files $(find "/proc/$(sluiced_pid)/fd" | wc -l) 0"
	echo "xenstore_nodes $(xenstore-ls -f / | wc -l) 0"
}

# Booting a guest twenty times takes long; one that was saved at work is at work again at once.
step "creating a busy guest, and saving it"
guest_memory=128
create_guest guest pv crash "$(sluice_disk xvda disk,shared,sharing=copy)" \
	"$(sluice_disk xvdb disk,shared,sharing=map)"
await_result guest 60 up
wait_for 60 "the guest to be busy" busy
must xl save guest /run/guest.save

round=0
while [ $round -lt $rounds ]; do
	round=$((round + 1))
	step "round $round of $rounds: restore, load, destroy"
	must xl restore /run/guest.save >/dev/null 2>&1
	wait_for 30 "the guest to be busy" busy
	echo "at least $in_flight requests in flight on each disk," \
		"$(vbd_stat guest .memory.mapped_pages | xargs) pages mapped"
	destroy_guest guest
	wait_for 15 "the domain to be gone" alone
	[ "$(sluice --json list | jq length)" = 0 ] || fail "sluiced still has the disk"
	case $round in
	5 | "$rounds")
		sample >"$logs/sample.$round"
		cat "$logs/sample.$round"
		cp /run/grants "$logs/grants.$round"
		cp /run/events "$logs/events.$round"
		;;
	esac
done

# The only grant table left is dom0's own, and nothing that it grants is in use.
if [ "$(grep -c '^grant-table for' /run/grants)" != 1 ] ||
	[ "$(grep -c '^no active grant table entries' /run/grants)" != 1 ]; then
	fail "grants are still in use: see grants.$rounds"
fi
while read -r what value slack; do
	before=$(sed -n "s/^$what \([-0-9]*\) .*/\1/p" "$logs/sample.5")
	story "$what: ${before#-} after 5 rounds, ${value#-} after $rounds"
	[ "$value" -le $((before + slack)) ] || fail "$what went from ${before#-} to ${value#-}" \
		"in $((rounds - 5)) rounds"
done <"$logs/sample.$rounds"
must sluice bdev delete disk
stop_sluiced
pass

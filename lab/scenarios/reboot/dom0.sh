# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2154 # from lib/dom0.sh
# about: data outlives guest restarts; a busy guest outlives daemon restarts; a crash is not adopted
# timeout: 300

disk=$(drive data)
start_sluiced
must sluice bdev create uring disk "$disk"

# ---- guests come and go ----

role=first
for life in 1 2 3 4; do
	step "life $life of the guest: $role"
	create_guest "life$life" pv $role "$(sluice_disk xvda disk)"
	await_end "life$life" 90
	load=$(guest_result "life$life" load)
	[ "$(echo "$load" | json errors)" = 0 ] || fail "life $life found errors: $load"
	role=next
done
story "in four lives of the guest each found what the one before had written," \
	"$(echo "$load" | json checked_sectors) sectors verified in the last, none wrong"

# ---- the daemon comes and goes under a busy guest ----

step "creating a busy guest"
create_guest busy pv busy "$(sluice_disk xvda disk)"
await_result busy 60 busy

busy_requests() {
	guest_result busy busy
}

more_than() { # REQUESTS
	[ "$(busy_requests)" -gt "$1" ]
}

for restart in 1 2; do
	step "restart $restart of 2 of sluiced under the busy guest"
	wait_for 10 "the guest to be busy" more_than "$(busy_requests)"
	old_pid=$(sluiced_pid)
	stop_sluiced
	[ "$(xenstore-read "/local/domain/0/backend/vbd/$(xl domid busy)/51712/state")" = 4 ] ||
		fail "the daemon that ended has not left the guest connected"
	before=$(busy_requests)
	sleep 2
	start_sluiced
	[ "$(sluiced_pid)" != "$old_pid" ] || fail "sluiced has not been restarted"
	# What was under way before the stop may still be counted; this is more than that.
	wait_for 20 "the guest to go on after the restart" more_than $((before + 100))
	check_guest busy
done
must xl shutdown busy
await_result busy 60 idle
load=$(guest_result busy load)
[ "$(echo "$load" | json errors)" = 0 ] || fail "the busy guest found errors: $load"
story "sluiced was restarted twice under a busy guest: $(echo "$load" | json total_requests)" \
	"requests, $(echo "$load" | json checked_sectors) sectors verified, none wrong; the longest" \
	"wait was $(($(echo "$load" | json max_us | cut -d. -f1) / 1000)) ms"

# ---- a crash ----

step "killing sluiced: the next one must not adopt what was left"
kill_sluiced
log_lines=$(wc -l <"$logs/sluiced.log")
start_sluiced
wait_for 10 "sluiced to say that it does not adopt" sh -c \
	"tail -n +$((log_lines + 1)) $logs/sluiced.log | grep -i 'clean mark'"
story "after kill -9 the new sluiced said: $(tail -n +$((log_lines + 1)) "$logs/sluiced.log" |
	grep -i -m1 'clean mark')"
destroy_guest busy

step "a new guest after the crash"
create_guest after pv next "$(sluice_disk xvda disk)"
await_end after 90
load=$(guest_result after load)
[ "$(echo "$load" | json errors)" = 0 ] || fail "the guest after the crash found errors: $load"
story "a new guest found all that had been written before the crash"
must sluice bdev delete disk
stop_sluiced
pass

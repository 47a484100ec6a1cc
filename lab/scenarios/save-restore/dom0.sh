# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: a PV guest under verified load is saved and restored twice, and saved while it goes on
# timeout: 240

: "${save_type:=pv}"

disk=$(drive data)
start_sluiced
must sluice bdev create uring disk "$disk"
step "creating a busy guest ($save_type)"
guest_memory=192
create_guest guest "$save_type" save "$(sluice_disk xvda disk)"

busy_requests() {
	guest_result guest busy
}

more_than() { # REQUESTS
	[ "$(busy_requests)" -gt "$1" ]
}

goes_on() {
	wait_for 30 "the guest to go on" more_than $(($(busy_requests) + 200))
	check_guest guest
}

wait_for 60 "the guest to be busy" more_than 200
for round in 1 2; do
	step "round $round of 2: saving the guest and restoring it"
	start=$(now) domid=$(xl domid guest)
	must xl save guest /run/guest.save
	saved=$(now)
	wait_for 15 "all of the saved guest to be gone from xenstore" forgotten "$domid"
	[ "$(sluice --json list | jq length)" = 0 ] || fail "sluiced still serves the saved guest's disk"
	must sluice bdev list
	must xl restore /run/guest.save
	[ "$(xl domid guest)" != "$domid" ] || fail "the guest has not been restored as another domain"
	story "saved in $((saved - start)) ms, $(($(stat -c %s /run/guest.save) >> 20)) MiB, and" \
		"restored in $(($(now) - saved)) ms"
	rm /run/guest.save
	goes_on
done

step "saving the guest while it goes on"
domid=$(xl domid guest)
must xl save -c guest /run/guest.save
[ "$(xl domid guest)" = "$domid" ] || fail "the guest has not gone on as the same domain"
rm /run/guest.save
goes_on
story "a copy was saved, and the guest went on as the same domain"

must xl shutdown guest
await_result guest 60 load
load=$(guest_result guest load)
[ "$(echo "$load" | json errors)" = 0 ] || fail "the load found errors: $load"
story "through it all the guest did $(echo "$load" | json total_requests) requests," \
	"$(echo "$load" | json checked_sectors) sectors verified, none wrong"
# The xl that waited for this domain's end has taken the suspension for it, and cleans up no more.
await_result guest 30 finished
destroy_guest guest
must sluice bdev delete disk
stop_sluiced
pass

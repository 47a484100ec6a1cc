# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: a PVH guest under verified load migrates live to its own host, twice; a disk has one user at a time
# timeout: 240
# machine: pvh
# guest: save-restore

disk=$(drive data)
start_sluiced
must sluice bdev create uring disk "$disk"
# xl calls the new domain guest--incoming until it runs; its console goes on in the guest's own log.
ln -s guest-guest.log "$console/guest-guest--incoming.log"
step "creating a busy guest"
guest_memory=192
create_guest guest pvh save "$(sluice_disk xvda disk)"

busy_requests() {
	guest_result guest busy
}

more_than() { # REQUESTS
	[ "$(busy_requests)" -gt "$1" ]
}

# What xl has to say of a migration, without its progress.
migrate() {
	echo "+ xl migrate guest to this host"
	xl migrate -s "" guest "xl migrate-receive" >/run/migrate.out 2>&1
	migrate_status=$?
	grep -v progress /run/migrate.out
	return $migrate_status
}

wait_for 60 "the guest to be busy" more_than 200
for round in 1 2; do
	step "round $round of 2: migrating"
	start=$(now) domid=$(xl domid guest)
	migrate || fail "xl migrate failed: $(grep -v progress /run/migrate.out | tail -n1)"
	story "migrated in $(($(now) - start)) ms"
	wait_for 15 "all of the guest's former domain to be gone from xenstore" forgotten "$domid"
	[ "$(xl domid guest)" != "$domid" ] || fail "the guest is still the same domain"
	wait_for 30 "the guest to go on" more_than $(($(busy_requests) + 200))
	check_guest guest
	[ "$(sluice --json list | jq length)" = 1 ] || fail "sluiced does not serve one disk"
done
waits=$(grep -c 'waits for bdev disk until the domain that it moves from has ended' "$logs/sluiced.log")
story "$waits times the new domain's disk waited for the old one's end"
must xl shutdown guest
await_result guest 60 load
load=$(guest_result guest load)
[ "$(echo "$load" | json errors)" = 0 ] || fail "the load found errors: $load"
story "through it all the guest did $(echo "$load" | json total_requests) requests," \
	"$(echo "$load" | json checked_sectors) sectors verified, none wrong; the longest wait was" \
	"$(($(echo "$load" | json max_us | cut -d. -f1) / 1000)) ms"
await_end guest 30
must sluice bdev delete disk
stop_sluiced
pass

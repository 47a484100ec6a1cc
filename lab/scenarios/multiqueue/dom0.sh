# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: a PV guest of four processors uses four queues at once, each verified, by sluiced's own counts
# timeout: 180

: "${multiqueue_type:=pv}"

disk=$(drive data)
start_sluiced
must sluice bdev create uring disk "$disk"
step "creating a guest of four processors ($multiqueue_type)"
guest_vcpus=4
create_guest guest "$multiqueue_type" multiqueue "$(sluice_disk xvda disk)"
await_result guest "${multiqueue_patience:-60}" queues
[ "$(guest_result guest vcpus)" = 4 ] || fail "the guest has $(guest_result guest vcpus) processors"
[ "$(guest_result guest queues)" = 4 ] || fail "the guest's disk has $(guest_result guest queues) queues"
[ "$(vbd_state guest .queues)" = 4 ] || fail "sluiced serves $(vbd_state guest .queues) queues"
step "four loads, one on each processor"
await_result guest "${multiqueue_patience:-60}" worked
for cpu in 0 1 2 3; do
	[ -z "$(guest_result guest "load${cpu}crash")" ] ||
		story "the emulator made a load begin again: $(guest_result guest "load${cpu}crash")"
	load=$(guest_result guest "load$cpu")
	[ "$(echo "$load" | json errors)" = 0 ] || fail "the load of processor $cpu found errors: $load"
done

must sluice stat
vbd_stat guest . >/run/stat.json || fail "sluiced has no statistics of the guest's disk"
jq -c . /run/stat.json
[ "$(jq '.queues | length' /run/stat.json)" = 4 ] ||
	fail "the statistics show $(jq '.queues | length' /run/stat.json) queues"
# The fills and the last checks are as large as the loads, so each queue has about a quarter.
shares=$(jq -r '[.queues[] | .read.requests + .write.requests] | add as $all |
	map(. * 100 / $all | floor) | map(tostring) | join(" ")' /run/stat.json)
for share in $shares; do
	[ "$share" -ge 10 ] || fail "a queue had $share% of the requests only (all: $shares)"
done
jq -e '. as $disk | all("read", "write", "flush"; . as $op |
	([$disk.queues[] | .[$op].requests] | add) == $disk[$op].requests)' /run/stat.json >/dev/null ||
	fail "the queues' counts do not add up to the disk's"
# shellcheck disable=SC2046 # four numbers
set -- $(guest_result guest counts)
bytes="$(($2 * 512)) read and $(($4 * 512)) written"
served=$(jq -r '"\(.read.bytes) read and \(.write.bytes) written"' /run/stat.json)
[ "$served" = "$bytes" ] || fail "the guest's kernel counted $bytes bytes, sluiced $served"
story "four queues had $shares percent of $(jq '.read.requests + .write.requests' /run/stat.json)" \
	"requests, all verified; they were served by reactors" \
	"$(jq -r '[.queues[].reactor] | unique | join(" ")' /run/stat.json)"
story "$(jq '.notifications.sent' /run/stat.json) notifications were sent," \
	"$(jq '.notifications.received' /run/stat.json) received," \
	"$(jq '.notifications.received_empty' /run/stat.json) of them for nothing"

must xl shutdown guest
await_end guest 30
must sluice bdev delete disk
stop_sluiced
pass

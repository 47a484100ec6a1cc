# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: bad sectors, and drives that are pulled under load, are errors to their guest and nothing to others
# timeout: 300
# drive: good size=256M
# drive: bad size=256M bad-read=2048 bad-write=4096
# drive: pulled size=256M port
# drive: removed size=256M port

start_sluiced
for name in good bad pulled removed; do
	own_drive $name $name
done
removed=$(cat /run/own.removed)
step "creating the guest"
create_guest guest pv faults "$(sluice_disk xvda goodn1,sharing=auto)" \
	"$(sluice_disk xvdb badn1,sharing=dma)" "$(sluice_disk xvdc pulledn1,sharing=dma)" \
	"$(sluice_disk xvdd removedn1,sharing=dma,persistent=no)"
await_result guest 60 up

await_result guest 90 bad
bad=$(guest_result guest bad)
errors=$(vbd_stat guest 'select(.vdev == "xvdb") | .read.errors + .write.errors')
[ "$errors" -ge 7 ] || fail "sluiced counts $errors errors on the drive with bad sectors"
story "bad sectors: $errors requests failed in the guest, those beside them did not, and the" \
	"disk served on; the good disk did $bad requests meanwhile"

await_result guest 30 going
sleep 3
step "pulling a drive under load"
pull_drive pulled
sleep 3
step "removing another from the bus by sysfs"
echo 1 >"/sys/bus/pci/devices/$removed/remove"
await_result guest 60 gone
for vdev in xvdc xvdd; do
	load=$(guest_result guest $vdev)
	failed=$(echo "$load" | json failed_requests) all=$(echo "$load" | json requests)
	[ "$failed" -gt 0 ] || fail "no request on $vdev has failed: $load"
	[ "$failed" -lt "$all" ] || fail "no request on $vdev was good before its drive went: $load"
	story "$vdev: $((all - failed)) requests were good before its drive went, $failed failed after"
done
gone=$(guest_result guest gone)
[ "$gone" -gt "$bad" ] || fail "the load on the good disk stood still: $bad, then $gone requests"
must sluice list
must sluice bdev list

step "taking away the disks without drives"
for name in pulled removed; do
	vdev=xvdc
	[ $name = pulled ] || vdev=xvdd
	must sluice detach guest $vdev
	must sluice nvme detach $name
done
[ ! -e "/sys/bus/pci/devices/$(cat /run/own.pulled)" ] || fail "the pulled drive is still there"

step "finding the removed drive again"
echo 1 >/sys/bus/pci/rescan
wait_for 10 "the removed drive on the bus" test -e "/sys/bus/pci/devices/$removed"
wait_for 10 "the kernel to have the removed drive" kernel_has removed
own_drive removed again
must sluice attach guest xvde againn1 --sharing dma
await_result guest 60 back
[ "$(guest_result guest back | json errors)" = 0 ] || fail "the load on the drive that came back" \
	"found errors: $(guest_result guest back)"
await_result guest 30 good
good=$(guest_result guest good)
[ "$(echo "$good" | json errors)" = 0 ] || fail "the load on the good disk found errors: $good"
story "through it all the good disk did $(echo "$good" | json total_requests) requests," \
	"$(echo "$good" | json checked_sectors) sectors verified, none wrong; and the drive that came" \
	"back serves again"
await_end guest 30
for name in good bad again; do
	must sluice nvme detach $name
done
stop_sluiced
pass

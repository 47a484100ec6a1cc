# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2154 # from lib/dom0.sh
# about: the same verified load on disks whose pages are copied and mapped, and how they compare
# timeout: 300

disk=$(drive data)
# Copied and mapped, in memory and on the drive, where each has its own part.
start_sluiced
must sluice bdev create ram copied --size 64M
must sluice bdev create ram mapped --size 64M
must sluice bdev create uring drive "$disk" --shared
step "creating the guest"
create_guest guest pv sharing "$(sluice_disk xvda copied,sharing=copy)" \
	"$(sluice_disk xvdb mapped,sharing=map)" "$(sluice_disk xvdc drive,shared,sharing=copy)" \
	"$(sluice_disk xvdd drive,shared,sharing=map)"
await_result guest 60 up
await_result guest 200 finished
for key in $(guest_result guest finished); do
	line=$(guest_result guest "$key")
	[ "$(echo "$line" | json errors)" = 0 ] || fail "the load $key found errors: $line"
	story "$key: $(echo "$line" | json iops) IOPS, $(echo "$line" | json avg_us) us on average"
done

sluice stat
sluice --json list >/run/list.json
[ "$(grep -c '"persistent": true' /run/list.json)" = 2 ] ||
	fail "not two disks, but others, are mapped persistently: $(cat /run/list.json)"
must xl shutdown guest
await_end guest 30
stop_sluiced
pass

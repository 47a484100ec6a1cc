# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: a busy, mounted disk grows twice: told by the administrator, and seen by sluiced itself
# timeout: 180

disk=$(drive data)
must mkfs.ext4 -q "$disk"
must mount -t ext4 "$disk" /mnt
truncate -s 64M /mnt/disk
start_sluiced
must sluice bdev create uring disk /mnt/disk
create_guest guest pv resize "$(sluice_disk xvda disk)"
await_result guest 60 sectors
guest_has guest sectors 131072 || fail "the guest sees $(guest_result guest sectors) sectors, not 131072"

step "growing from 64 to 96 MiB, by sluice resize"
truncate -s 96M /mnt/disk
must sluice resize disk
[ "$(vbd_state guest .sectors)" = 196608 ] || fail "sluiced shows $(vbd_state guest .sectors) sectors"
wait_for 20 "the guest to see 96 MiB and use them" guest_has guest sectors 196608
check_guest guest

step "growing from 96 to 192 MiB, without a word"
start=$(now)
truncate -s 192M /mnt/disk
wait_for 30 "the guest to see 192 MiB and use them" guest_has guest sectors 393216
check_guest guest
story "the guest saw the file grow by itself after $(($(now) - start)) ms; its file system has" \
	"$(guest_result guest blocks) KiB"
[ "$(guest_result guest blocks)" -ge $((150 * 1024)) ] || fail "the guest's file system has not grown"

must xl shutdown guest
await_result guest 60 load
load=$(guest_result guest load)
[ "$(echo "$load" | json errors)" = 0 ] || fail "the load found errors: $load"
await_end guest 60
story "all the while the guest's load went on: $(echo "$load" | json total_requests) requests," \
	"$(echo "$load" | json checked_sectors) sectors verified, none wrong; then it filled the new room"
must sluice bdev delete disk

# Less than before is nothing that a guest could bear.
must sluice bdev create uring small /mnt/disk
truncate -s 128M /mnt/disk
refused "has shrunk" sluice resize small
must sluice bdev delete small
stop_sluiced
pass

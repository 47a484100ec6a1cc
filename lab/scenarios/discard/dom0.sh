# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: fstrim in a guest gives dom0's file system its blocks back; a disk may be told not to discard
# timeout: 180

disk=$(drive data)
must mkfs.ext4 -q "$disk"
must mount -t ext4 "$disk" /mnt
truncate -s 256M /mnt/disk
truncate -s 16M /mnt/plain
start_sluiced
must sluice bdev create uring disk /mnt/disk
must sluice bdev create uring plain /mnt/plain
must sluice bdev create ram signal --size 1M

# What dom0's file takes, in MiB.
used() {
	sync
	echo $(($(du -k /mnt/disk | cut -f1) >> 10))
}

step "creating a guest with one disk that takes discards, and one that does not"
create_guest guest pv discard "$(sluice_disk xvda disk)" "no-discard,$(sluice_disk xvdb plain)"
await_result guest 60 limits
# shellcheck disable=SC2046 # two numbers
set -- $(guest_result guest limits)
[ "$1" -gt 0 ] || fail "the guest has not been offered discards on xvda"
[ "$2" = 0 ] || fail "the guest has been offered discards on xvdb, whose discard-enable is 0"

await_result guest 60 full
full=$(used)
[ "$full" -ge 64 ] || fail "the guest wrote 64 MiB, but the file has $full only"
must sluice attach guest xvdc signal # which the guest takes for a sign
await_result guest 60 trimmed
trimmed=$(used)
story "the guest wrote two files, and dom0's file took $full MiB; it removed one of 48 MiB, and after" \
	"fstrim dom0's file took $trimmed MiB; sluiced counted" \
	"$(vbd_stat guest 'select(.vdev == "xvda").discard | "\(.requests) discards of \(.bytes) bytes"')"
[ "$trimmed" -le $((full - 40)) ] || fail "fstrim gave back $((full - trimmed)) MiB of 48"
must sluice detach guest xvdc
await_end guest 60
story "the other file was whole; a discarded range read as zeroes, and what lies beside it as before"
must sluice bdev delete disk
must sluice bdev delete plain
stop_sluiced
pass

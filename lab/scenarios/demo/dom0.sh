# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2154 # from lib/dom0.sh
# about: an unmodified PV guest partitions, formats, fills and verifies a disk that sluiced serves
# timeout: 180

: "${demo_type:=pv}"

disk=$(drive data)
[ -b "$disk" ] || fail "no NVMe drive 'data'"
[ -d /sys/module/xen_blkback ] || fail "the kernel's xen-blkback is not loaded: taking a device" \
	"from it would not be tested"
story "dom0 runs Xen $(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)," \
	"Linux $(uname -r), and an NVMe disk of $(($(blockdev --getsize64 "$disk") >> 20)) MiB;" \
	"the kernel's xen-blkback is loaded"

start_sluiced
must sluice bdev create uring disk "$disk"
step "creating the guest ($demo_type)"
create_guest guest "$demo_type" demo "$(sluice_disk xvda disk)"
await_result guest 60 up
story "the guest ($demo_type) was up $(guest_result guest up) s after its start, with" \
	"its own xen-blkfront on /dev/xvda"

vbd=$(xl domid guest)-51712
[ -e "/sys/bus/xen-backend/devices/vbd-$vbd" ] || fail "the kernel does not know vbd-$vbd"
[ ! -e "/sys/bus/xen-backend/devices/vbd-$vbd/driver" ] || fail "the kernel's xen-blkback has vbd-$vbd"

await_result guest 60 partitioned
step "the guest has written a GPT, and makes ext4 and copies a tree"
await_result guest 90 tree
story "the guest copied $(guest_result guest files) files of" \
	"$(($(guest_result guest tree_bytes) >> 20)) MiB to ext4; after unmount, drop of caches" \
	"and remount all checksums were the same, and e2fsck found nothing"
step "the guest writes and reads at random, and verifies"
await_result guest 90 load
load=$(guest_result guest load)
story "random verified load, half writes, 512 bytes to 64 KiB: $(echo "$load" | json requests)" \
	"requests, $(echo "$load" | json bytes) bytes, $(echo "$load" | json iops) IOPS," \
	"latency $(echo "$load" | json avg_us) us on average, $(echo "$load" | json p99_us) us at 99%"
story "it verified $(echo "$load" | json checked_sectors) sectors, while it ran and at its end:" \
	"$(echo "$load" | json errors) wrong"
[ "$(echo "$load" | json errors)" = 0 ] || fail "the guest's load found errors: $load"

await_result guest 60 idle
step "the guest is idle, and sluiced is measured"
sleep 1
idle_from=$(now) idle_ticks=$(sluiced_ticks)
sleep 5
idle_ticks=$(($(sluiced_ticks) - idle_ticks)) idle_ms=$(($(now) - idle_from))
story "idle with a connected guest, sluiced used $((idle_ticks * 10)) ms of $idle_ms ms"
[ $((idle_ticks * 10 * 100)) -lt "$idle_ms" ] || fail "an idle sluiced used more than 1% of a core:" \
	"$((idle_ticks * 10)) ms of $idle_ms ms"

# Every byte went through sluiced: the guest's kernel and sluiced count on their own.
must sluice stat
# shellcheck disable=SC2046 # four numbers
set -- $(guest_result guest counts)
read_bytes=$(disk_count read bytes) write_bytes=$(disk_count write bytes)
[ "$read_bytes" = $(($2 * 512)) ] || fail "the guest read $(($2 * 512)) bytes, but $read_bytes" \
	"went through sluiced"
[ "$write_bytes" = $(($4 * 512)) ] || fail "the guest wrote $(($4 * 512)) bytes, but $write_bytes" \
	"went through sluiced"
[ $((read_bytes + write_bytes)) -ge "$(echo "$load" | json total_bytes)" ] ||
	fail "the load alone was more than what went through sluiced"
story "sluiced counted $(disk_count read requests) reads of $read_bytes bytes," \
	"$(disk_count write requests) writes of $write_bytes bytes and $(disk_count flush requests)" \
	"flushes: byte by byte what the guest's kernel counted"
must xl shutdown guest
await_end guest 30
check_guest guest
must sluice bdev delete disk
stop_sluiced

step "comparing the disk with what the guest reported"
must blockdev --rereadpt "$disk"
wait_for 5 "the partitions in dom0" test -b "${disk}p2"
[ "$(device_digest "${disk}p2")" = "$(guest_result guest raw)" ] ||
	fail "the raw partition differs from what the guest verified"
must mount -t ext4 -o ro "${disk}p1" /mnt
tree=$(cd /mnt/tree && find . -type f -exec sha256sum {} + | sort -k2 | sha256sum | cut -d' ' -f1)
must umount /mnt
[ "$tree" = "$(guest_result guest tree)" ] || fail "the files differ from what the guest verified"
story "read by dom0 past sluiced, the disk holds what the guest reported: the tree's sums and" \
	"the raw partition's SHA-256 $(guest_result guest raw | cut -c1-16)... are the same"
pass

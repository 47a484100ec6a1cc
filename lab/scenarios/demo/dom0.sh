# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2154 # from lib/dom0.sh
# about: an unmodified PV guest partitions, formats, fills and verifies a disk on a drive that sluiced drives
# timeout: 220

: "${demo_type:=pv}"

disk=$(drive data)
[ -b "$disk" ] || fail "no NVMe drive 'data'"
[ -d /sys/module/xen_blkback ] || fail "the kernel's xen-blkback is not loaded: taking a device" \
	"from it would not be tested"
story "dom0 runs Xen $(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)," \
	"Linux $(uname -r), and has an NVMe drive of $(($(blockdev --getsize64 "$disk") >> 20)) MiB;" \
	"the kernel's xen-blkback is loaded"

# One part of the drive is the guest's, the other is not.
must sfdisk -q "$disk" <<-END
	label: gpt
	size=512MiB, name=guest
	size=64MiB, name=neighbour
END
wait_for 5 "the partitions" test -b "${disk}p2"
must dd if=/dev/urandom of="${disk}p2" bs=1M count=64 oflag=direct 2>/dev/null
neighbour=$(device_digest "${disk}p2")

step "taking the drive from the kernel, and giving it to sluiced"
start_sluiced
must sluice nvme list
own_drive data nvme0
kernel_has data && fail "the kernel still has the drive"
must sluice nvme show nvme0
must sluice bdev list
story "the drive is sluiced's now, which drives it from user space, without interrupts; the kernel" \
	"has no block device of it any more, and its partitions are nvme0n1p1 and nvme0n1p2"

step "creating the guest ($demo_type)"
create_guest guest "$demo_type" demo "$(sluice_disk xvda nvme0n1p1,sharing=auto)"
await_result guest 60 up
story "the guest ($demo_type) was up $(guest_result guest up) s after its start, with" \
	"its own xen-blkfront on /dev/xvda, the first partition"

vbd=$(xl domid guest)-51712
[ -e "/sys/bus/xen-backend/devices/vbd-$vbd" ] || fail "the kernel does not know vbd-$vbd"
[ ! -e "/sys/bus/xen-backend/devices/vbd-$vbd/driver" ] || fail "the kernel's xen-blkback has vbd-$vbd"

await_proof guest xvda
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
must sluice list
must sluice stat
# shellcheck disable=SC2046 # four numbers
set -- $(guest_result guest xvda_counts)
read_bytes=$(disk_count read bytes) write_bytes=$(disk_count write bytes)
[ "$read_bytes" = $(($2 * 512)) ] || fail "the guest read $(($2 * 512)) bytes, but $read_bytes" \
	"went through sluiced"
[ "$write_bytes" = $(($4 * 512)) ] || fail "the guest wrote $(($4 * 512)) bytes, but $write_bytes" \
	"went through sluiced"
[ $((read_bytes + write_bytes)) -ge "$(guest_result guest xvda_load | json total_bytes)" ] ||
	fail "the load alone was more than what went through sluiced"
story "sluiced counted $(disk_count read requests) reads of $read_bytes bytes," \
	"$(disk_count write requests) writes of $write_bytes bytes and $(disk_count flush requests)" \
	"flushes: byte by byte what the guest's kernel counted"
copied=$(vbd_stat guest .shared_by.copy.bytes) mapped=$(vbd_stat guest .shared_by.dma.bytes)
[ $((copied + mapped)) = $((read_bytes + write_bytes)) ] || fail "$copied bytes were copied and" \
	"$mapped mapped, which is not what the guest read and wrote"
[ "$mapped" -gt 0 ] || fail "no byte went straight to the drive"
story "of these bytes the drive itself fetched and stored $mapped in the guest's pages, by the" \
	"addresses that Xen gave for the guest's grants; $copied were copied"
must xl shutdown guest
await_end guest 30
check_guest guest

step "giving the drive back to the kernel, and comparing it with what the guest reported"
return_drive data nvme0
stop_sluiced
disk=$(drive data)
wait_for 5 "the partitions in dom0" test -b "${disk}p2"
compare_proof guest xvda "${disk}p1"
[ "$(device_digest "${disk}p2")" = "$neighbour" ] || fail "the partition beside the guest's has changed"
story "read by the kernel past sluiced, the partition holds what the guest reported: the tree's" \
	"sums and the raw partition's SHA-256 $(guest_result guest xvda_raw | cut -c1-16)... are the" \
	"same; and its neighbour is as it was"
pass

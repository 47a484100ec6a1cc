# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: behind an IOMMU that confines dom0, a drive cannot be aimed at what a guest does not grant
# timeout: 240
# drive: data size=1G
# drive: aimed size=64M namespaces=2
# xen: iommu=verbose,dom0-strict
# qemu: -device intel-iommu

disk=$(drive data)
must sfdisk -q "$disk" <<-END
	label: gpt
	size=320MiB
	size=320MiB
END
# What would turn up in memory that the other drive could write to.
must dd if=/dev/urandom of="$(drive aimed)" bs=1M count=4 oflag=direct 2>/dev/null
aimed=$(drive_address aimed)
start_sluiced
own_drive data drive
must sluice nvme claim "$aimed"
must sluice bdev create ram signal --size 1M

step "creating a guest at work, and one that has never run and has granted nothing"
create_guest guest pv strict "$(sluice_disk xvda driven1p1,sharing=dma,persistent=no)" \
	"$(sluice_disk xvdb driven1p2,sharing=dma)"
cat >/run/other.cfg <<-END
	name="other"
	type="pv"
	kernel="/guest/vmlinux"
	memory=128
END
must xl create -p /run/other.cfg
await_result guest 60 up
await_result guest 120 ready
for vdev in xvda xvdb; do
	[ "$(guest_result guest before_$vdev | json errors)" = 0 ] || fail "the load on $vdev found errors"
	[ "$(vbd_stat guest "select(.vdev == \"$vdev\").shared_by.dma.bytes")" -gt 10000000 ] ||
		fail "$vdev is not served by mapping its pages"
done
sluice stat
xl dmesg >/run/before
grep -q 'DMAR:\[DMA' /run/before && fail "the IOMMU had to stop something already:" \
	"$(grep -m1 'DMAR:\[DMA' /run/before)"
story "a guest has worked and verified on pages mapped for the drive, each time and to stay, and the" \
	"IOMMU had nothing to stop"

# How often Xen says that the IOMMU stopped a write to a page.
stopped() { # BUS
	xl dmesg | grep -c "DMA Write.*fault addr $(printf '%x' "$1")"
}

was_stopped() { # BUS
	[ "$(stopped "$1")" -gt 0 ]
}

# Has a drive read into a page, which must not get there.
aim() { # BUS WHOSE
	[ "$(stopped "$1")" = 0 ] || fail "something has aimed at $2 before"
	must drive-load --read-to "$(printf '%x' "$1")" "$aimed"
	wait_for 5 "Xen to log that the write to $2 was stopped" was_stopped "$1"
	xl dmesg | grep "fault addr $(printf '%x' "$1")"
}

step "aiming a drive at a page of the guest that has granted nothing"
other=$(xl domid other)
page=$(guest-page find "$other" "$(xenstore-read "/local/domain/$other/console/ring-ref")") ||
	fail "no page of the other guest's"
before=$(guest-page sum "$other" $((page)))
aim $((page << 12)) "a page that was not granted"
[ "$(guest-page sum "$other" $((page)))" = "$before" ] || fail "the page of the guest has changed"
story "Xen: $(xl dmesg | grep -m1 "fault addr $(printf '%x' $((page << 12)))" | sed 's/^(XEN) //');" \
	"the page is as it was"

# The page of a grant that dom0 may map, and has not mapped any more: with sluiced gone for a moment
# a ring is such a page.
step "aiming it at a page whose mapping has just ended"
stop_sluiced
guest=$(xl domid guest)
ring=$(xenstore-read "/local/domain/$guest/device/vbd/51712/ring-ref" 2>/dev/null ||
	xenstore-read "/local/domain/$guest/device/vbd/51712/ring-ref0")
mkfifo /run/hold
guest-page hold "$guest" "$ring" </run/hold >/run/bus &
holder=$!
exec 7>/run/hold
wait_for 5 "the ring to be mapped for devices" test -s /run/bus
bus=$(($(cat /run/bus)))
frame=$((bus >> 12))
before=$(guest-page sum "$guest" $frame)
must drive-load --namespace 2 --write-from "$(printf '%x' $bus)" "$aimed"
[ "$(xl dmesg | grep -c "fault addr $(printf '%x' $bus)")" = 0 ] || fail "the IOMMU stopped the drive" \
	"at a page that is mapped for it"
exec 7>&-
wait $holder || fail "the mapping did not end"
aim $bus "a page whose mapping has ended"
[ "$(guest-page sum "$guest" $frame)" = "$before" ] || fail "the page of the guest has changed"
story "Xen: $(xl dmesg | grep -m1 "fault addr $(printf '%x' $bus)" | sed 's/^(XEN) //');" \
	"while it was mapped the drive could read it, and it is as it was"
must xl destroy other

step "the guest goes on"
start_sluiced
must sluice attach guest xvdc signal
await_end guest 120
for vdev in xvda xvdb; do
	[ "$(guest_result guest after_$vdev | json errors)" = 0 ] || fail "the load on $vdev found errors"
done
must sluice nvme detach drive
stop_sluiced
pass

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: no Xen: an NVMe drive by VFIO serves a process over a segment that it reaches itself, without a copy, and only as long as the process is there
# machine: linux
# drive: data size=32M
# timeout: 120

# What of sluiced's memory is pinned for devices, in KiB, as the kernel counts it.
pinned() {
	sed -n 's/^VmLck:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(sluiced_pid)/status"
}

# A number or an expression of what sluiced counted for the only worker.
worker_count() { # EXPRESSION
	sluice --json stat | jq ".[0].$1"
}

segment_is_mapped() {
	[ "$(pinned)" -ge "$((alone + 16384))" ]
}

segment_is_unmapped() {
	[ "$(pinned)" = "$alone" ]
}

must mkdir -p /run/sluice
start_sluiced
own_drive data nvme0
must sluice sivshm create w0 nvme0n1 --sharing dma
alone=$(pinned)
[ "$alone" -gt 0 ] || fail "sluiced has pinned nothing for the drive"
dmesg -c >"$logs/kernel.log"

step "verified load by a process, whose segment is the drive's memory"
sluice-perf --worker w0 --verify --rw randrw --depth 16 --time 5 --json >/run/load 2>/run/load.err &
load=$!
wait_for 20 "the segment to be mapped for the drive" segment_is_mapped
story "the drive reaches $alone KiB of sluiced's without a worker, and $(($(pinned) - alone)) more with one"
wait $load || fail "sluice-perf has failed: $(head -n1 /run/load.err)"
[ "$(jq '.verify | .reads > 0 and .lost + .stale + .torn + .misplaced + .corrupt == 0' /run/load)" = true ] ||
	fail "sluice-perf has found damage: $(jq -c .verify /run/load)"
story "$(jq -r '"\(.read.requests) reads and \(.write.requests) writes, \(.verify.reads) verified"' /run/load)"
[ "$(worker_count shared_by.copy.requests)" = 0 ] || fail "data was copied: see stat.json"
[ "$(worker_count shared_by.map.requests)" = 0 ] || fail "sluiced itself has touched data: see stat.json"
[ "$(worker_count shared_by.dma.bytes)" -gt 0 ] || fail "sluiced has counted nothing"
story "by sluiced's own counts the drive moved $(worker_count shared_by.dma.bytes) bytes, and nothing was copied"

step "what is left when the worker has gone"
wait_for 10 "the segment to be unmapped" segment_is_unmapped
story "the segment is the drive's no more: $(pinned) KiB"
dmesg >"$logs/faults.log"
grep -q DMAR "$logs/faults.log" && fail "the IOMMU has complained: $(grep -m1 DMAR "$logs/faults.log")"

step "what the kernel's driver reads"
segment-cat unix:/run/sluice/sivshm/w0.sock >/run/image || fail "segment-cat has failed"
[ "$(stat -c %s /run/image)" = $((32 << 20)) ] || fail "the disk has $(stat -c %s /run/image) bytes"
wait_for 10 "the segment to be unmapped again" segment_is_unmapped
must sluice sivshm delete w0
return_drive data nvme0
[ "$(sha256sum </run/image | cut -d' ' -f1)" = "$(device_digest "$(drive data)")" ] ||
	fail "the kernel reads something else than was served"
[ "$(tr -d '\0' </run/image | wc -c)" -gt 1000000 ] || fail "hardly anything was written"
story "the kernel's driver reads the same 32 MiB"

step "the IOMMU against the drive, at what was unmapped"
must sluice nvme claim "$(cat /run/own.nvme0)"
for option in --read-to --write-from; do
	drive-load "$option" unmapped "$(cat /run/own.nvme0)" >/run/reached || fail "drive-load has failed"
	[ "$(jq .reached /run/reached)" = false ] ||
		fail "the drive has reached a page that was no longer its own: $(cat /run/reached)"
	story "$option a page that was just unmapped: $(cat /run/reached)"
done
must sluice nvme release "$(cat /run/own.nvme0)"
stop_sluiced
pass

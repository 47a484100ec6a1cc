# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # from and for lib/workers.sh
# about: four guests with a segment each: isolation, doorbells, a word count with a guest killed in its midst, verified I/O on blkif over segments
# machine: host
# programs: segment-probe
# timeout: 180

step "four guests, two of them with VFIO, try what segments promise"
segment-probe lead --workers 4 --segment 0x1000000 --vectors 4 --hook "$lab/host/check-qemus" \
	"$lab/host/guest" mixed run=segment-probe,worker >"$LAB_DIR/probe.log" 2>&1 3>&- ||
	fail "$(tail -n1 "$LAB_DIR/probe.log")"
while IFS= read -r line; do
	story "$line"
done <"$LAB_DIR/probe.log"
pass

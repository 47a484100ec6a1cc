# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # from and for lib/workers.sh
# about: four guests with a segment each: isolation, doorbells, a word count with a guest killed in its midst, verified I/O on blkif over segments
# machine: host
# programs: segment-probe wordcount-worker sluice-perf
# timeout: 300

step "four guests, two of them with VFIO, try what segments promise"
segment-probe lead --workers 4 --segment 0x1000000 --vectors 4 --hook "$lab/host/check-qemus" \
	"$lab/host/guest" mixed run=segment-probe,worker >"$LAB_DIR/probe.log" 2>&1 3>&- ||
	fail "$(grep -m1 -E '^(check-qemus|segment-probe):' "$LAB_DIR/probe.log")"
while IFS= read -r line; do
	story "$line"
done <"$LAB_DIR/probe.log"

step "a word count in four guests, one of which is killed in its midst"
texts=$LAB_DIR/texts
mkdir "$texts"
for copy in 1 2 3 4 5 6 7 8 9 10 11 12; do
	mkdir "$texts/$copy"
	cp -r "$lab"/../{doc,include,lab,lib,man,src,tests} "$texts/$copy/"
done
items=$(find "$texts" -type f | wc -l)
sivshm distribute --guests --workers 4 --machine q35,accel=tcg --viommu --kernel "$LAB_IMAGES/vmlinux" \
	--initrd "$LAB_INITRD" --append "quiet vfio run=wordcount-worker" --sum --progress \
	"$texts" >"$LAB_DIR/words" 2>"$LAB_DIR/distribute.log" 3>&- &
distribute=$!

gathered() { # prints how many items have been
	sed -n 's/.*, \([0-9]*\) items, .*/\1/p' "$LAB_DIR/distribute.log" | tail -n1
}

# A guest has four items at most, so each has some.
all_have_items() {
	[ "$(sed -n 's/.* \([0-9]*\) in flight$/\1/p' "$LAB_DIR/distribute.log" | tail -n1)" -gt 12 ]
}

four_in_order() {
	mapfile -t qemus < <(pgrep -P $distribute)
	[ ${#qemus[@]} = 4 ] && "$lab/host/check-qemus" "${qemus[@]}"
}

wait_for 20 "four QEMUs that hold what they should, and not more" four_in_order
victim=${qemus[1]}
segment=$(stat -L -c %i "$(find "/proc/$victim/fd" -lname '/memfd:*')")
memory_is_held "$segment" || fail "the memory of the guest to be killed cannot be seen"
wait_for 90 "all guests to count words" all_have_items
# Stopped first, so that it has items it will not answer.
kill -STOP "$victim"
sleep 0.5
before=$(gathered)
kill -KILL "$victim"
memory_is_free() {
	! memory_is_held "$segment"
}
wait_for 10 "the killed guest's memory to be freed" memory_is_free
kill -0 $distribute || fail "sivshm distribute had ended before its memory was looked at"
wait $distribute || fail "sivshm distribute ended with status $?: $(tail -n1 "$LAB_DIR/distribute.log")"
[ "$before" -lt "$items" ] || fail "the guest was killed when all was done"
grep -q -E ' [1-9][0-9]* items go to others' "$LAB_DIR/distribute.log" || fail "the killed guest had no items"
# The reference. Lines are made whole first, so that no word goes on in the next file.
find "$texts" -type f -exec grep -a -h '' {} + | tr '[:upper:]' '[:lower:]' |
	tr -c -s '[:lower:]' '\n' |
	awk 'NF { count[$0]++ } END { for (word in count) print word "\t" count[word] }' |
	sort >"$LAB_DIR/reference"
sort "$LAB_DIR/words" | cmp -s - "$LAB_DIR/reference" ||
	fail "the guests count otherwise than awk: compare words and reference"
story "a guest was killed when $before of $items files had been counted: its memory was freed, others" \
	"took its files over, and all $(wc -l <"$LAB_DIR/reference") words are counted as awk does it"
rm -r "$texts"

step "blkif over segments: verified load by a process and two guests"
# Whole, so that writes wait for the host's disk only, and not for its file system as well.
must dd if=/dev/zero of="$LAB_DIR/disk.img" bs=1M count=32 conv=fsync
start_sluiced
must lab_sluice bdev create null nothing --size 1G
must lab_sluice bdev create ram memory --size 64M
must lab_sluice bdev create uring file "$LAB_DIR/disk.img"
for bdev in nothing memory file; do
	must lab_sluice sivshm create "$bdev" "$bdev"
done

# The value of a number in sluice-perf's JSON on a console, the first of that name.
number() { # KEY FILE
	tr -d '\r' <"$2" | sed -n "s/.*\"$1\": \([0-9.]*\),*\$/\1/p" | head -n1
}

# What was verified is told, if all was well.
tell_load() { # WHO FILE
	local kind
	for kind in lost stale torn misplaced corrupt; do
		[ "$(number $kind "$2")" = 0 ] || fail "$1 has found $(number $kind "$2") $kind blocks"
	done
	[ "$(number reads "$2")" -gt 0 ] || fail "$1 has verified nothing"
	story "$1 verified $(number reads "$2") reads of 4 KiB in $(number seconds "$2") s," \
		"$(number passes "$2") passes"
}

# A guest that loads a worker's disk, with the arguments that sluice says.
start_guest() { # WORKER vfio|sysfs ARGUMENT...
	local worker=$1 kind=$2 shown
	shift 2
	shown=$(lab_sluice sivshm show "$worker") || fail "sluice sivshm show $worker fails"
	SEGMENT_PATH=$(sed -n 's/.*-chardev socket,.*path=\([^ ,]*\)$/\1/p' <<<"$shown") \
		SEGMENT_VECTORS=$(sed -n 's/.*-device ivshmem-doorbell,.*vectors=\([0-9]*\).*/\1/p' <<<"$shown") \
		SEGMENT_INDEX=$worker "$lab/host/guest" "$kind" "$@" 3>&- &
}

await_guest() { # WORKER SECONDS
	wait_for "$2" "the guest of worker $1" grep -q '@status' "$LAB_DIR/guest-$1.log"
	grep -q '@status 0' "$LAB_DIR/guest-$1.log" ||
		fail "sluice-perf in the guest of worker $1: $(grep -m1 'sluice-perf:' "$LAB_DIR/guest-$1.log")"
}

load=sluice-perf,--verify,--rw,randrw,--depth,8,--time,3,--json
start_guest memory vfio "run=$load,--sleep"
start_guest file sysfs "run=$load,--poll"
must sluice-perf --socket "$run/nothing.sock" --rw randrw --time 1 --json >"$LAB_DIR/process.log"
story "a process made $(number iops "$LAB_DIR/process.log") reads a second of nothing"
await_guest memory 60
tell_load "a guest with interrupts, on memory," "$LAB_DIR/guest-memory.log"
await_guest file 60
tell_load "a guest that polls, on a file," "$LAB_DIR/guest-file.log"
wait_for 20 "guests to have left" sh -c "! pgrep -P $$ qemu-system"
must sluice-perf --socket "$run/file.sock" --verify --rw randrw --sleep --time 1 --json \
	>"$LAB_DIR/process.log"
tell_load "a process, on the guest's file," "$LAB_DIR/process.log"
lab_sluice --json stat >"$LAB_DIR/stat.json" || fail "sluice stat fails"
[ "$(sed -n '/"copy"/,/}/s/.*"requests": \([0-9]*\).*/\1/p' "$LAB_DIR/stat.json" | sort -u)" = 0 ] ||
	fail "sluiced has copied data: see stat.json"
story "sluiced copied none of it"
rm "$LAB_DIR/disk.img"
stop_sluiced
pass

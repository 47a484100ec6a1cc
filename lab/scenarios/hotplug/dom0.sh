# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2154 # from lib/dom0.sh
# about: a second disk comes and goes ten times beside a busy one; then bad input, refused cleanly
# timeout: 300

disk=$(drive data)
start_sluiced
must sluice bdev create uring disk "$disk"
must sluice bdev create ram extra --size 32M
step "creating the guest"
create_guest guest pv hotplug "$(sluice_disk xvda disk)"
await_result guest 60 up

# ---- ten times ----

backend_of() { # VDEV-NUMBER
	xenstore-exists "/local/domain/0/backend/vbd/$(xl domid guest)/$1"
}

no_backend_of() {
	! backend_of "$1"
}

xvdb=51728 busy=0
for round in 1 2 3 4 5 6 7 8 9 10; do
	step "round $round of 10: attach, verified load, detach"
	must sluice attach guest xvdb extra
	xl block-list guest | grep -q "^$xvdb " || fail "xl does not know the attached disk"
	await_result guest 60 "busy$round"
	was_busy=$busy busy=$(guest_result guest "busy$round")
	[ "${busy:-0}" -gt "$was_busy" ] || fail "the load on xvda stood still in round $round"
	must sluice detach guest xvdb
	wait_for 15 "the backend of xvdb to be gone" no_backend_of $xvdb
	if xl block-list guest | grep -q "^$xvdb "; then
		fail "xl still knows the detached disk"
	fi
done
story "ten times a second disk was attached, verified under load, and detached, beside a busy first"

# ---- another instance ----

step "a disk of a second sluiced beside the first"
start_sluiced other
must sluice --name other bdev create ram fast --size 32M
must sluice --name other attach guest xvdb fast
await_result guest 60 busy11
if sluice list | grep -q xvdb; then
	fail "the first sluiced lists the second's disk"
fi
must sluice --name other detach guest xvdb
wait_for 15 "the backend of xvdb to be gone" no_backend_of $xvdb
stop_sluiced other
story "a second instance served the same guest beside the first, and left"

# ---- dom0's own disk ----

step "attaching a disk to dom0 itself"
must sluice attach 0 xvda extra
wait_for 10 "/dev/xvda in dom0" test -b /dev/xvda
own=$(blkload --verify --length 8M --block 512-64k --requests 300 --seed 5 /dev/xvda) ||
	fail "blkload found errors on dom0's own disk: $own"
must sluice detach 0 xvda
wait_for 10 "/dev/xvda to leave dom0" test ! -b /dev/xvda
story "dom0 itself was given the disk, $(echo "$own" | json total_requests) verified requests" \
	"on it, and it was taken away"

# ---- bad input ----

# What may change by itself while a guest runs is left out.
snapshot() {
	xenstore-ls -f | grep -v -E '/memory/|/data/|/tool/|/control/' | sort
}

# A refusal has to leave xenstore as it was.
refused_cleanly() { # WORDS COMMAND...
	snapshot >/run/before
	refused "$@"
	snapshot >/run/after
	shift
	cmp -s /run/before /run/after || fail "$* was refused, but left in xenstore:" \
		"$(diff /run/before /run/after | grep '^[+-][^+-]' | head -n3 | xargs)"
}

step "bad input"
refused_cleanly "no bdev 'nosuch'" sluice attach guest xvdc nosuch
refused_cleanly "no domain nosuch" sluice attach nosuch xvdc extra
refused_cleanly "no domain 77" sluice attach 77 xvdc extra
refused_cleanly "has xvda already" sluice attach guest xvda extra
refused_cleanly "nonsense" sluice attach guest nonsense extra
refused_cleanly "in use" sluice attach guest xvdc disk
refused_cleanly "in use" sluice attach guest xvdc disk --shared
refused_cleanly "no xvdq" sluice detach guest xvdq
refused_cleanly "no domain nosuch" sluice detach nosuch xvda
refused_cleanly "in use" sluice bdev delete disk
refused_cleanly "no bdev 'nosuch'" sluice bdev delete nosuch
refused_cleanly "already" sluice bdev create ram extra --size 32M
refused_cleanly "/run/nosuch does not exist" sluice bdev create uring missing /run/nosuch
refused_cleanly "in use" sluice bdev create uring busy "$disk"
head -c 1000 /dev/zero >/run/odd
refused_cleanly "no multiple of 512" sluice bdev create uring odd /run/odd
refused_cleanly "no JSON" sluice rpc bdev_get_bdevs '{"name":'
refused_cleanly "no method 'no_such_method'" sluice rpc no_such_method
refused_cleanly "cannot reach sluiced" sluice --name nosuch list
refused_cleanly "already running" sluiced
story "$(grep -c '(to be refused)$' "$logs/dom0.log") bad commands were refused with a line each," \
	"and xenstore was as before"

# xl create with a bdev that does not exist: the guest must not come to be.
snapshot >/run/before
sed 's/name="guest"/name="second"/; s/target=disk/target=nosuch/' /run/guest.cfg >/run/second.cfg
if xl create /run/second.cfg >/run/second.out 2>&1; then
	fail "xl create accepted a disk whose bdev does not exist"
fi
cat /run/second.out
grep -q 'script: .*nosuch' /run/second.out || fail "xl create does not say what block-sluice said"
wait_for 10 "the refused guest to be gone" guest_gone second
snapshot >/run/after
cmp -s /run/before /run/after || fail "the refused guest left in xenstore:" \
	"$(diff /run/before /run/after | grep '^[+-][^+-]' | head -n3 | xargs)"

# ---- the first disk, after all that ----

must xl shutdown guest
await_result guest 60 load
load=$(guest_result guest load)
[ "$(echo "$load" | json errors)" = 0 ] || fail "the load on xvda found errors: $load"
story "through it all the first disk did $(echo "$load" | json total_requests) requests," \
	"$(echo "$load" | json checked_sectors) sectors verified, none wrong"
await_end guest 30

# ---- a guest that goes without a word ----

step "destroying a guest in the midst of its work"
create_guest victim pv hotplug "$(sluice_disk xvda disk)"
await_result victim 60 loading
sleep 1
destroy_guest victim
story "a busy guest was destroyed, and nothing is left of it"

must sluice bdev delete disk
must sluice bdev delete extra
stop_sluiced
pass

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: two guests at full depth get equal shares of a slow drive, and a limit on one is the other's gain
# timeout: 180
# drive: data size=1G iops=300

# The drive is slow, so that it is what the guests compete for: two guests that want a processor
# would share that, and Xen's scheduler would be measured.  What each gets is what sluiced counts.

disk=$(drive data)
start_sluiced
must sluice bdev create uring disk "$disk" --shared

step "creating two guests"
guest_memory=192
create_guest first pv first "$(sluice_disk xvda disk,shared)"
await_result first 60 loading
create_guest second pv second "$(sluice_disk xvda disk,shared)"
await_result second 60 loading

at_depth() { # GUEST
	[ "$(vbd_stat "$1" '.in_flight >= 16 and .read.requests >= 100')" = true ]
}

# What each guest has been served so far.
served() {
	sluice --json stat | jq -r 'map({(.domain): (.read.requests + .write.requests)}) | add |
		"\(.first) \(.second)"'
}

# What each guest is served in some seconds: requests a second in $first and $second, and the second's
# share of all, in percent.
compete() { # SECONDS
	start=$(now) before=$(served)
	sleep "$1"
	took=$(($(now) - start)) after=$(served)
	first=$(((${after% *} - ${before% *}) * 1000 / took))
	second=$(((${after#* } - ${before#* }) * 1000 / took))
	[ $((first + second)) -gt 0 ] || fail "neither guest was served at all"
	share=$((second * 100 / (first + second)))
}

fair() {
	if [ "$share" -lt 35 ] || [ "$share" -gt 65 ]; then
		fail "the second guest's share was $share%"
	fi
}

step "both guests at full depth"
wait_for 60 "the first guest's load" at_depth first
wait_for 60 "the second guest's load" at_depth second
compete 8
story "of $((first + second)) requests a second the first guest got $first, the second $second: $share%"
fair
unlimited=$second

step "a limit for the first"
must sluice limit first xvda --iops 50
sleep 2
compete 8
story "with a limit of 50 a second the first guest got $first, the second $second: $share%"
[ "$first" -le 60 ] || fail "the first guest's limit is 50 requests a second, but it got $first"
[ "$first" -ge 35 ] || fail "the first guest may have 50 requests a second, but got $first"
[ $((second * 2)) -ge $((unlimited * 3)) ] || fail "the second guest got $second requests a second," \
	"$unlimited before the first was limited"

step "no limit any more"
must sluice limit first xvda --iops 0
sleep 2
compete 5
story "without it the first guest got $first again, the second $second: $share%"
fair

for guest in first second; do
	must xl shutdown $guest
	await_end $guest 30
done
must sluice bdev delete disk
stop_sluiced
pass

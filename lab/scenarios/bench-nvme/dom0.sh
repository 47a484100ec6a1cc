# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154,SC3045 # from and for lib/dom0.sh; busybox knows read -t
# about: the user-space NVMe driver and its ways of sharing against the kernel's blkback and driver
# timeout: 1140
# drive: kernel null=1G namespaces=2
# drive: sluice null=1G namespaces=4
# drive: alone null=1G

# Drives of nothing, all alike: what takes time is what is between a guest and its drive.  The
# results are raw, one line a measurement; lab/bench-nvme makes a table of them.

results=$logs/results
: >"$results"

claim_drive() { # SERIAL, leaves the address in $address
	address=$(drive_address "$1")
	must sluice nvme claim "$address"
}

cp /lab/scenarios/bench-nvme/block-kernel /etc/xen/scripts/
# Everything takes some twenty times as long here as on a processor of its own, the pause between two
# requests of a guest as well: as much longer is an idle queue polled.
start_sluiced sluice --poll-us 10000
claim_drive alone
alone=$address
claim_drive sluice
must sluice bdev create nvme drive "$address"
must sluice bdev create null nothing --size 1G
step "creating the guest"
create_guest guest pv bench \
	"vdev=xvda,format=raw,access=rw,script=block-kernel,target=$(drive kernel 1)" \
	"$(sluice_disk xvdb driven1,sharing=copy)" \
	"$(sluice_disk xvdc driven2,sharing=dma)" \
	"$(sluice_disk xvdd driven3,sharing=dma,persistent=no)" \
	"$(sluice_disk xvde driven4,sharing=auto)" \
	"$(sluice_disk xvdf nothing,sharing=copy)"
await_result guest 60 up
domid=$(xl domid guest)
# Who serves the first disk: a thread of the kernel's.
blkback=
for comm in /proc/[0-9]*/comm; do
	read -r name <"$comm"
	case $name in
	"$domid.xvda"* | "blkback.$domid.xvd"*)
		blkback=${comm%/comm}
		;;
	esac
done
[ -n "$blkback" ] || fail "no thread of the kernel's serves xvda"

# Nanoseconds of processor time of a process's threads.  No program is started for it.
used() { # /proc/PID
	used=0
	for used_task in "$1"/task/*/schedstat; do
		read -r used_ns used_rest <"$used_task"
		used=$((used + used_ns))
	done
}

# The processor time so far: guest's and dom0's seconds, blkback's and sluiced's nanoseconds, and
# of the last those that were work.  The guest waits a moment for it: few programs are started.
counters() {
	used "$blkback"
	of_blkback=$used
	used "/proc/$(sluiced_pid)"
	echo "$(xl list | awk '$1 == "guest" { guest = $NF } $1 == "Domain-0" { dom0 = $NF }
		END { print guest, dom0 }') $of_blkback $used" \
		"$(sluice --json rpc framework_get_reactors | tr ',{}' '\n' |
			awk -F: '/"busy_ns"/ { sum += $2 } END { printf "%.0f", sum }')"
}

# Follows the guest's console without a process of its own; `read` from a pipe that nobody writes to
# is a sleep that starts no program either.
follow_guest() {
	mkfifo /run/tick
	exec 8<>/run/tick 9<"$console/guest-guest.log"
	of_round='' ticks=0
	while :; do
		if ! IFS= read -r line <&9; then
			IFS= read -r -t 0.3 tick <&8
			ticks=$((ticks + 1))
			[ $((ticks % 100)) != 0 ] || ! guest_gone guest >/dev/null || fail "the guest has died:" \
				"$(last_words guest)"
			continue
		fi
		case $line in
		"@measured "*)
			line=${line%?} # a carriage return
			echo "${line#@measured } $(counters)" >>"$results"
			# shellcheck disable=SC2086 # the words of the line
			set -- $line
			[ "$2" = "$of_round" ] || step "round $2 of 3"
			of_round=$2
			;;
		"@finished "* | "@failed "*) break ;;
		esac
	done
	exec 8>&- 9>&-
}

follow_guest
check_guest guest
await_end guest 30
must sluice stat

# The driver alone: the kernel's and ours, both from dom0, turn and turn about.
step "the drivers alone"
alone() { # ROUND DRIVER LOAD COMMAND...
	alone_what="$1 $2 $3"
	shift 3
	echo "+ $*"
	alone_out=$("$@") || fail "$* ended with status $?: $alone_out"
	echo "$alone_what $alone_out" >>"$results"
}

for round in 1 2 3; do
	for depth in 1 32; do
		batch=$(((depth + 1) / 2))
		alone $round kernel "alone-depth-$depth" blkload --block 4k --read 100 --depth $depth \
			--batch $batch --seconds 2 "$(drive kernel 2)"
		alone $round sluice "alone-depth-$depth" drive-load --depth $depth --seconds 2 "$alone" bench
	done
done
stop_sluiced
pass

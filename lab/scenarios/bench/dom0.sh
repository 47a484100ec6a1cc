# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154,SC3045 # from and for lib/dom0.sh; busybox knows read -t
# about: no test: the same loads on sluiced, blkback and QEMU's xen-block, by a plan (make bench-lab)
# timeout: 2400
# bring: qemu.cpio
# drive: kernel null=1G namespaces=10
# drive: sluice null=1G namespaces=7
# drive: alone null=1G

# Drives of nothing, all alike: what takes time is what is between a guest and its drive.  What came
# out is raw: tests/bench/benchlib/lab.py makes results of it, and the plan that it follows.
[ -s /lab/plan ] || fail "no plan of what to measure: this scenario is started by make bench-lab"

claim_drive() { # SERIAL, leaves the address in $address
	address=$(drive_address "$1")
	must sluice nvme claim "$address"
}

# A disk that the kernel's blkback serves, and one that QEMU does.
kernel_disk() { # VDEV NAMESPACE
	echo "vdev=$1,format=raw,access=rw,script=block-kernel,target=$(drive kernel "$2")"
}

qemu_disk() { # VDEV NAMESPACE
	echo "vdev=$1,format=raw,access=rw,backendtype=qdisk,target=$(drive kernel "$2")"
}

cp /lab/scenarios/bench/block-kernel /etc/xen/scripts/
(cd / && cpio -i -d -u </guest/qemu.cpio) || fail "QEMU cannot be unpacked"
rm /guest/qemu.cpio

# Everything takes some twenty times as long here as on a processor of its own, the pause between
# two requests of a guest as well: as much longer is an idle queue polled.
start_sluiced sluice --poll-us 10000
claim_drive alone
alone=$address
claim_drive sluice
# Linux gives a drive with a single queue a scheduler.  A dom0 of one processor uses one queue of any
# drive, but elsewhere they have several: blkback, xen-block and dom0 itself are not to pay for that.
for scheduler in /sys/block/nvme*/queue/scheduler; do
	echo none >"$scheduler" || fail "$scheduler does not take none"
done
must sluice bdev create nvme drive "$address"
must sluice bdev create uring file "$(drive kernel 9)"
must sluice bdev create null nothing --size 1G
step "creating the guest"
create_guest guest pv bench \
	"$(sluice_disk xvda driven1)" "$(sluice_disk xvdb driven2)" \
	"$(sluice_disk xvdc driven3)" "$(sluice_disk xvdd driven4)" \
	"$(kernel_disk xvde 1)" "$(kernel_disk xvdf 2)" "$(kernel_disk xvdg 3)" "$(kernel_disk xvdh 4)" \
	"$(qemu_disk xvdi 5)" "$(qemu_disk xvdj 6)" "$(qemu_disk xvdk 7)" "$(qemu_disk xvdl 8)" \
	"$(sluice_disk xvdm driven5,sharing=dma,persistent=no)" \
	"$(sluice_disk xvdn driven6,sharing=copy)" \
	"$(sluice_disk xvdo file)" "$(sluice_disk xvdp nothing,sharing=map)" \
	"$(sluice_disk xvdq driven7,persistent=no)"
await_result guest 60 up
domid=$(xl domid guest)

# Who serves: threads of the kernel's, a process of QEMU's.
pids_of() { # PATTERN, of the names of threads
	pids=
	for comm in /proc/[0-9]*/comm; do
		read -r name 2>/dev/null <"$comm" || continue
		# shellcheck disable=SC2254 # a pattern
		case $name in
		$1)
			comm=${comm%/comm}
			pids=${pids:+$pids,}${comm#/proc/}
			;;
		esac
	done
	[ -n "$pids" ] || fail "there is no process or thread named $1"
}

pids_of "$domid.xvd*"
blkback=$pids
pids_of "xen-qemu-system*"
qemu=$pids
{
	echo "xen $(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)$(cat \
		/sys/hypervisor/version/extra)"
	echo "linux $(uname -r)"
	echo "qemu $(/usr/libexec/xen-qemu-system-i386 --version | head -n1)"
	sluiced --version
} >"$logs/versions"
cp /lab/plan "$logs/plan"

: >/run/own
own_results=$logs/dom0-results
: >"$own_results"
bench-counters --socket /run/sluice/sluice.sock --process "blkback=$blkback" \
	--process "qemu=$qemu" --process "sluiced=$(sluiced_pid)" --interrupts blkif-backend --interrupts evtchn:xen-qemu \
	--interrupts evtchn:sluiced "$domid" "$console/guest-guest.log" /run/own >"$logs/counters" &
counters=$!

# What this domain measures itself: the kernel's driver and ours, without a guest.
own_turn() { # ROUND JOB WAY ARGUMENT...
	own_name="$1 $2 $3"
	own_way=$3
	shift 3
	case $own_way in
	dom0)
		blkload --announce "$own_name" --histogram "$@" "$(drive kernel 10)" 2>>/run/own \
			>>"$own_results" || fail "$own_name: blkload $*: $(tail -n1 /run/own)"
		;;
	driver)
		own_out=$(drive-load "$@" "$alone" bench) || fail "$own_name: drive-load $*: $own_out"
		echo "{\"announced\":\"$own_name\",${own_out#\{}" >>"$own_results"
		;;
	esac
}

# Follows the guest's console without a process of its own; `read` from a pipe that nobody writes to
# is a sleep that starts no program either.
mkfifo /run/tick
exec 8<>/run/tick 9<"$console/guest-guest.log"
of_round='' ticks=0
while :; do
	if ! IFS= read -r line <&9; then
		IFS= read -r -t 0.5 _ <&8
		ticks=$((ticks + 1))
		kill -0 "$counters" 2>/dev/null || fail "bench-counters has ended"
		[ $((ticks % 60)) != 0 ] || ! guest_gone guest >/dev/null || fail "the guest has died:" \
			"$(last_words guest)"
		continue
	fi
	line=${line%?} # a carriage return
	# shellcheck disable=SC2086 # the words of the line
	set -- $line
	case ${1:-} in
	@turn)
		turn="$2 $3 $4"
		while read -r round job way arguments; do
			# shellcheck disable=SC2086 # the words of the line
			[ "$round $job $way" != "$turn" ] || own_turn $round $job $way $arguments
		done </lab/plan
		echo >"$(xenstore-read "/local/domain/$domid/console/tty")"
		;;
	@begin)
		[ "$2" = "$of_round" ] || step "round $2"
		of_round=$2
		;;
	@measured | @finished | @failed) break ;;
	esac
done
exec 8>&- 9>&-
await_end guest 120
must sluice stat
kill "$counters"
stop_sluiced
pass

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2013,SC2162 # names without blanks or backslashes
# The guest's side of the benchmark: goes through the plan, a line a measurement: the round, the
# job, the way (who serves the disk), and arguments for blkload.  Lines of dom0's own it leaves to
# dom0, which says on this guest's console when it is done.  Results stay here until all is measured: a
# console is slow.

: >/run/results

flush() { # ARGUMENT..., of which some are disks
	for flush_disk; do
		case $flush_disk in
		/dev/*) must sync "$flush_disk" ;;
		esac
	done
}

for disk in $(grep -o 'xvd[a-z]$' /proc/partitions); do
	# As Linux has it by itself on disks with several queues, which a guest of one processor has not.
	echo none >"/sys/block/$disk/queue/scheduler"
	# What is done for the first time is not what is measured.
	blkload --block 4k-128k --depth 32 --requests 500 --length 64M "/dev/$disk" >/dev/null ||
		fail "blkload on $disk"
done

while read round job way arguments; do
	case $way in
	dom0 | driver)
		result turn "$round $job $way"
		read _ </dev/console
		;;
	none) # what nothing costs
		result begin "$round $job $way"
		sleep 2
		result end "$round $job $way"
		sleep 0.3
		;;
	*)
		# shellcheck disable=SC2086 # the words of the line
		blkload --announce "$round $job $way" --interrupts blkif --histogram $arguments \
			>>/run/results || fail "$round $job $way: blkload $arguments"
		# What a server still keeps in memory shall not be written while the next one is measured.
		# shellcheck disable=SC2086
		flush $arguments
		;;
	esac
done </lab/plan
sed 's/^/@measured /' /run/results

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of reboot.  One partition holds the data, another the table of what each sector
# of the data has to hold: the last life of the guest hands it to the next.

wait_for 20 "/dev/xvda" test -b /dev/xvda

case $(role) in
first) # makes the partitions and fills the first
	must sfdisk -q /dev/xvda <<-EOF
		label: gpt
		size=32MiB, type=linux, name=data
		size=4MiB, type=linux, name=table
	EOF
	wait_for 5 "the partitions" test -b /dev/xvda2
	load load --verify --block 512-64k --depth 8 --batch 4 --requests 1000 --seed 9 \
		--save /dev/xvda2 /dev/xvda1
	;;
next) # holds the disk to what the last life was told, and writes more
	load load --verify --block 512-64k --depth 8 --batch 4 --requests 1000 --load /dev/xvda2 \
		--save /dev/xvda2 /dev/xvda1
	;;
busy) # the same without end, until dom0 says so; then idle
	start_load load --verify --block 512-64k --depth 8 --batch 4 --flush 200 --progress 1 \
		--load /dev/xvda2 --save /dev/xvda2 /dev/xvda1
	while ! asked_to_stop; do
		sleep 1
		result busy "$(load_progress load)"
	done
	stop_load load
	finish_load load
	result idle yes
	sleep 600
	;;
esac

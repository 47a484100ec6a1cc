# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034 # for lib/guest.sh
# The guest's side of multiqueue: on each processor a verified load of its own, on a part of the
# disk of its own, and so one on each queue.

wait_for 20 "/dev/xvda" test -b /dev/xvda
result vcpus "$(grep -c '^processor' /proc/cpuinfo)"
set -- /sys/block/xvda/mq/*
result queues $#

load_retries=3
for load_cpu in 0 1 2 3; do
	start_load "load$load_cpu" --verify --offset "$((load_cpu * 8))M" --length 8M --block 512-64k \
		--depth 16 --batch 4 --flush 200 --seconds 8 --seed "1$load_cpu" /dev/xvda
done
for cpu in 0 1 2 3; do
	finish_load "load$cpu"
done
result counts "$(disk_counts xvda)"
result worked yes
wait_for 60 "the end of dom0's questions" asked_to_stop

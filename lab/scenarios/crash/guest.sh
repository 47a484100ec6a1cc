# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of crash: as much in flight as its disks take, large and small, until the end that
# comes without notice.

wait_for 20 "/dev/xvda" test -b /dev/xvda
wait_for 20 "/dev/xvdb" test -b /dev/xvdb
start_load first --block 4k-128k --length 64M --depth 64 --batch 8 --seed 5 /dev/xvda
start_load second --block 4k-128k --offset 64M --length 64M --depth 64 --batch 8 --seed 5 /dev/xvdb
while :; do
	sleep 60
done

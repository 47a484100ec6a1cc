# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of crash: as much in flight as its disk takes, large and small, until the end that
# comes without notice.

wait_for 20 "/dev/xvda" test -b /dev/xvda
start_load load --block 4k-128k --depth 64 --batch 8 --seed 5 /dev/xvda
while :; do
	sleep 60
done

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of save-restore and migrate: verified load without end, until dom0 asks to stop.

wait_for 20 "/dev/xvda" test -b /dev/xvda
start_load load --verify --length 16M --block 512-64k --depth 16 --batch 4 --flush 200 --progress 1 \
	--seed 21 /dev/xvda
while ! asked_to_stop; do
	sleep 0.5
	result busy "$(load_progress load)"
done
stop_load load
finish_load load

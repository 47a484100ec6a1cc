# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of hotplug: constant verified load on xvda; whenever xvdb appears, verified load
# on it, and then waiting until it is taken away.

wait_for 20 "/dev/xvda" test -b /dev/xvda
start_load load --verify --length 32M --block 512-64k --depth 8 --batch 4 --flush 200 --seed 3 \
	--progress 1 /dev/xvda
result loading yes

round=0
while ! asked_to_stop; do
	if [ ! -b /dev/xvdb ]; then
		sleep 0.1
		continue
	fi
	round=$((round + 1))
	load "round$round" --verify --length 8M --block 512-64k --depth 8 --batch 4 --seed "1$round" \
		--requests 300 /dev/xvdb
	result "busy$round" "$(load_progress load)"
	wait_for 60 "xvdb to be taken away" gone /dev/xvdb
done

stop_load load
finish_load load

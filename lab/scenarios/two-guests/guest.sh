# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of two-guests: small requests at random, as many at once as its disk takes.  Each
# guest has its half of the disk.

wait_for 20 "/dev/xvda" test -b /dev/xvda
offset=0
[ "$(role)" = first ] || offset=64M
start_load load --block 4k --offset $offset --length 64M --depth 64 --batch 8 --seed 31 /dev/xvda
result loading yes
while ! asked_to_stop; do
	sleep 0.5
done
stop_load load
finish_load load

# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of nvme-strict: verified load on disks whose pages the drive reaches, mapped for
# each request and mapped to stay, before the guard's test and after it.

for disk in xvda xvdb; do
	wait_for 20 "/dev/$disk" test -b /dev/$disk
	load "before_$disk" --verify --length 32M --block 512-128k --depth 16 --batch 4 --flush 100 \
		--requests 1500 --seed 11 --save "/run/$disk" /dev/$disk
done
result ready yes
wait_for 120 "dom0 to have aimed at this guest" test -b /dev/xvdc
for disk in xvda xvdb; do
	load "after_$disk" --verify --length 32M --block 512-128k --depth 16 --batch 4 --flush 100 \
		--requests 500 --seed 11 --load "/run/$disk" /dev/$disk
done

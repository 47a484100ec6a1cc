# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of nvme and nvme-4k: one disk whose pages are copied, one whose pages the drive
# reaches, and how they compare.

for disk in xvda xvdb; do
	prove_disk $disk 6
done
wait_for 120 "dom0 to have looked" asked_to_stop

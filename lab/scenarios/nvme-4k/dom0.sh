# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034 # for nvme
# about: the same as nvme with a PV guest on a drive with blocks of 4096 bytes
# timeout: 300
# drive: data size=1G block=4096
# guest: nvme

# What is no whole number of blocks is read, changed and written by sluiced, from a copy.
nvme_guests=pv nvme_dma_least=30
# shellcheck source=../nvme/dom0.sh
. /lab/scenarios/nvme/dom0.sh

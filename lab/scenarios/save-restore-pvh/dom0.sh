# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034 # for save-restore
# about: the same as save-restore with a PVH guest
# timeout: 240
# machine: pvh
# guest: save-restore

save_type=pvh
# shellcheck source=../save-restore/dom0.sh
. /lab/scenarios/save-restore/dom0.sh

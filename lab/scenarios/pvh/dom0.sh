# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034 # for demo
# about: the same as demo with a PVH guest, whose grants Xen handles in another way
# timeout: 240
# machine: pvh
# guest: demo

demo_type=pvh
# shellcheck source=../demo/dom0.sh
. /lab/scenarios/demo/dom0.sh

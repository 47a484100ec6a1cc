# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034 # for multiqueue
# about: the same as multiqueue with a PVH guest
# timeout: 560
# machine: pvh
# guest: multiqueue

multiqueue_type=pvh
multiqueue_patience=240
# shellcheck source=../multiqueue/dom0.sh
. /lab/scenarios/multiqueue/dom0.sh

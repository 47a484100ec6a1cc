# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
# The guest's side of demo and pvh.

prove_disk xvda

# Stay connected and idle, until dom0 has measured what that costs.
result idle yes
wait_for 60 "the end of dom0's measurement" asked_to_stop

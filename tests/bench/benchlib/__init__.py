# SPDX-License-Identifier: BSD-2-Clause
"""What tests/bench/bench is made of: see each module."""

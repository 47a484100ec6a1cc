# SPDX-License-Identifier: BSD-2-Clause
"""Tests of tests/bench/benchlib, by figures that are made up."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

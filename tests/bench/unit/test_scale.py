# SPDX-License-Identifier: BSD-2-Clause
"""What the scale part makes of what its program prints."""
import pathlib
import stat
import tempfile
import types
import unittest

from . import made_up  # noqa: F401 (sets the path)
from benchlib import scale
from benchlib.machine import Failure

# A daemon with 1 MiB of its own, whose disks take 10000 bytes each when idle, 12000 allocated.
PROGRAM = """#!/bin/sh
name=$1 options=$*
disks=1
while [ $# -gt 1 ]; do
    [ "$1" != --disks ] || disks=$2
    shift
done
case $name in
idle)
    echo resident_fresh $((1048576 + disks * 1000))
    echo resident_busy $((1048576 + disks * 90000))
    echo resident_used $((1048576 + disks * 10000))
    echo allocated_used $((1048576 + disks * 12000))
    echo cpu_ns ${CPU_NS:-0}
    echo passes 0 ;;
busy) echo "ns 1000
p50_ns 900
p99_ns 2000" ;;
fair) echo "mean 1000
least 930
most 1050
deviation ${OFF:-0.07}
looked_in_vain 0.6
p50_ns 5000
deep 9000" ;;
churn) echo "attach_ns 400000
detach_ns 300000
busy_before_p50_ns 500
busy_meanwhile_p50_ns 600
more_allocated 0
more_descriptors 0
more_mapped 0
more_nodes 0" ;;
esac
"""


class Scale(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = pathlib.Path(folder.name)
        self.program = self.build / "tests/bench/scale/bench-scale"
        self.program.parent.mkdir(parents=True)

    def run_part(self, program=PROGRAM, only=None):
        self.program.write_text(program)
        self.program.chmod(stat.S_IRWXU)
        results = scale.run(types.SimpleNamespace(build=self.build, only=only, rounds=2))
        results.machine["cores"] = 4
        return results

    def goals(self, **options):
        return {goal.name: goal for goal in scale.goals(self.run_part(**options))}

    def test_a_disk_more_is_what_the_daemon_itself_is_not(self):
        goals = self.goals()
        # The worse of both.
        self.assertEqual(goals["scale-idle-memory"].measured, 12000)
        self.assertEqual(goals["scale-idle-cpu"].measured, 0)
        self.assertAlmostEqual(goals["scale-fairness-128"].measured, 0.07)
        self.assertTrue(all(goal.met for goal in goals.values()))

    def test_goals_can_be_missed(self):
        worse = (PROGRAM.replace("disks * 10000", "disks * 70000").replace(":-0}", ":-250000}")
                 .replace("0.07", "0.11"))
        goals = self.goals(program=worse)
        self.assertEqual(goals["scale-idle-memory"].measured, 70000)
        self.assertEqual(goals["scale-idle-cpu"].measured, 250)
        self.assertFalse(any(goal.met for goal in goals.values()))

    def test_threads_without_a_processor_are_not_judged(self):
        worse = PROGRAM.replace("${OFF:-0.07}", "$(case \"$options\" in *reactors*) echo 0.3 ;; *) echo 0.05 ;; esac)")
        for cores, told in (2, 0.05), (3, 0.3):
            results = self.run_part(program=worse, only=["fair"])
            results.machine["cores"] = cores
            self.assertAlmostEqual(scale.goals(results)[0].measured, told)
            left_out = scale.not_judged(results)
            self.assertEqual(len(left_out), cores == 2)
            self.assertTrue(all("0.30 off" in line for line in left_out))

    def test_as_many_rounds_as_were_asked_for(self):
        results = self.run_part(only=["busy", "fair"])
        for job, way in ("busy-depth-1", "alone"), ("fair-128", "null, 1 queue, 1 reactor"):
            self.assertEqual(len(results.values(job, way, "p50_us")), 2)

    def test_only_what_was_picked_is_measured_and_judged(self):
        self.assertEqual(list(self.goals(only=["fair"])), ["scale-fairness-128"])
        self.assertRaisesRegex(Failure, "no job 'nothing'", self.run_part, only=["nothing"])

    def test_the_section_tells_all(self):
        markdown, plots = scale.section(self.run_part())
        for words in ("**11.7**", "| 4 | idle since then |", "0.07", "beside 127 idle", "| 1000 | 0 | 0 |"):
            self.assertIn(words, markdown)
        self.assertEqual([plot.name for plot in plots], ["scale-memory"])

    def test_what_fails_is_said(self):
        failing = "#!/bin/sh\necho 'bench-scale: a ring is full' >&2\nexit 1\n"
        self.assertRaisesRegex(Failure, "a ring is full", self.run_part, program=failing)
        self.program.unlink()
        self.assertRaisesRegex(Failure, "build it first", scale.run,
                               types.SimpleNamespace(build=self.build, only=None, rounds=2))

# SPDX-License-Identifier: BSD-2-Clause
"""The native part: which jobs are picked, what its goals ask for, what callgrind's profiles say."""
import pathlib
import tempfile
import unittest
from unittest import mock

from . import made_up  # noqa: F401 (sets the path)
from benchlib import callgrind, native
from benchlib.machine import Failure
from benchlib.results import Results

PROFILE = """\
version: 1
creator: callgrind
positions: line
events: Ir Dr Dw I1mr D1mr D1mw
desc: Trigger: Client Request: work

fl=../src/queue.c
fn=poll
10 100 1 1 0 3 1
cfi=../src/engine.c
cfn=route
calls=4 20
11 60 0 0 0 0 1
fi=../src/list.h
+3 20 0 0 0 1 0

fl=../src/engine.c
fn=route
20 60 0 0 0 0 1

fl=../src/ram.c
fn=submit
30 4 0 0 0 0 0
fi=../src/base/copy.h
31 512 0 0 0 0 0
fe=../src/ram.c
32 4 0 0 0 0 0

fl=???
fn=__memset_avx2_unaligned_erms
0 4096 0 64 0 0 64
"""


class Instructions(unittest.TestCase):
    def costs(self, text):
        return callgrind.Costs(text)

    def test_own_and_inclusive_costs(self):
        costs = self.costs(PROFILE)
        self.assertEqual(costs.trigger, "work")
        # What is inlined belongs to the function into which it is.
        self.assertEqual(costs.own["queue.c:poll"], (120, 5))
        self.assertEqual(costs.inclusive["queue.c:poll"], (180, 6))
        self.assertEqual(costs.own["engine.c:route"], (60, 1))

    def test_copying_inlined_stands_apart(self):
        costs = self.costs(PROFILE)
        self.assertEqual(costs.own["ram.c:submit"], (8, 0))
        self.assertEqual(costs.own["copy.h:copy_bulk"], (512, 0))
        self.assertEqual(costs.inclusive["ram.c:submit"], (520, 0))

    def test_turns_in_vain_are_taken_off(self):
        work = self.costs(PROFILE)
        vain = self.costs("events: Ir\ndesc: Trigger: Client Request: vain\n"
                          "fl=queue.c\nfn=poll\n10 50\nfn=arm\n12 10\n")
        profile = callgrind.Profile(work, vain, {"requests": 4, "turns": 2, "vain": 5, "hypercalls": 6})
        self.assertEqual(profile.own["queue.c:poll"][0], (120 - 50 * 2 / 5) / 4)
        self.assertEqual(profile.own["queue.c:arm"][0], -10 * 2 / 5 / 4)
        # 4096 bytes that were cleared are no 4096 instructions, nor what was copied.
        self.assertEqual(profile.instructions, (120 - 20 + 60 + 8 - 4) / 4)
        self.assertEqual(profile.hypercalls, 1.5)
        self.assertEqual(profile.rows(3), [["__memset_avx2_unaligned_erms", 1024, 1024],
                                           ["copy.h:copy_bulk", 128, 128], ["queue.c:poll", 25, 40]])


class Jobs(unittest.TestCase):
    def test_names_beginnings_and_patterns_pick(self):
        names = [job.name for job in native.load_jobs()]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(native.pick(names, None), set(names))
        # A name is itself, though others begin with it.
        self.assertEqual(native.pick(names, ["null-4k-randread-depth-32"]), {"null-4k-randread-depth-32"})
        self.assertEqual(native.pick(names, ["null-4k-randwrite-depth"]),
                         {name for name in names if name.startswith("null-4k-randwrite-depth-")})
        self.assertEqual(native.pick(names, ["ram"]), {name for name in names if name.startswith("ram-")})
        self.assertEqual(native.pick(names, ["*-queues-?"]), {name for name in names if "queues" in name})
        with self.assertRaisesRegex(Failure, "no job 'nul'"):
            native.pick(names, ["ram", "nul"])

    def test_goals_are_of_jobs_that_there_are(self):
        names = {job.name for job in native.load_jobs()}
        self.assertLessEqual({job for _, job, _ in native.LIMITS_OF_R} | {native.COPY_JOB}, names)
        footprints = {job.name: job.footprint for job in native.load_jobs()}
        self.assertTrue(footprints[native.COPY_JOB])


class Goals(unittest.TestCase):
    def goals(self, r_ns, ratio):
        results = Results("native")
        for _, job, _ in native.LIMITS_OF_R:
            results.add(job, "R", 1, {"ns": r_ns})
            results.add(job, "sluice", 1, {"ratio_r": ratio})
        results.add(native.COPY_JOB, "sluice", 1, {"of_memcpy": 0.95})
        return {goal.name: goal for goal in native.goals(results)}

    def test_far_cores_ask_for_ratios(self):
        goals = self.goals(400, 1)
        self.assertEqual(goals["native-null-depth-32-of-r"].wanted, 1.05)
        self.assertTrue(goals["native-null-depth-32-of-r"].met)
        self.assertFalse(goals["native-null-depth-128-of-r"].met)
        self.assertTrue(goals["native-ram-1m-of-memcpy"].met)

    def test_near_cores_ask_for_150_ns_at_least(self):
        goals = self.goals(100, 1.4)
        self.assertEqual(goals["native-null-depth-1-of-r"].wanted, 3.5)
        self.assertEqual(goals["native-null-depth-128-of-r"].wanted, 1.5)
        self.assertTrue(goals["native-null-depth-128-of-r"].met)
        # Of requests that copy it is said for no cores.
        self.assertEqual(self.goals(50, 2)["native-ram-4k-depth-32-of-r"].wanted, 1.75)

    def test_what_was_not_measured_is_not_judged(self):
        results = Results("native")
        results.add(native.COPY_JOB, "sluice", 1, {"of_memcpy": 0.85})
        self.assertEqual([(goal.name, goal.met) for goal in native.goals(results)],
                         [("native-ram-1m-of-memcpy", False)])


class Files(unittest.TestCase):
    def test_a_file_is_where_there_is_room(self):
        place = tempfile.TemporaryDirectory(dir="/var/tmp")  # tmpfs may have no direct I/O
        self.addCleanup(place.cleanup)
        build = pathlib.Path(place.name)
        with mock.patch.object(native.os, "posix_fallocate", side_effect=[OSError(28, "full"), None]):
            path, kind = native.file_place(build)
        self.assertEqual((pathlib.Path(path).parent, kind), (build, "disk"))
        with mock.patch.object(native, "FILE_SIZE", 1 << 60), self.assertRaisesRegex(Failure, "make room"):
            native.file_place(build)
        self.assertEqual([str(left) for left in build.iterdir()], [path])


if __name__ == "__main__":
    unittest.main()

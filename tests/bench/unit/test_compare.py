# SPDX-License-Identifier: BSD-2-Clause
"""Comparing: two runs of the same are told to be the same, a change is found, a worse machine
is not taken for a change."""
import itertools
import math
import unittest

from . import made_up
from benchlib import compare


def flagged(before, after):
    """What is flagged: worse, better, each as {(job, way, metric)}; and how much was compared."""
    found, better, worse, _ = compare.judge(before, after)
    names = [{(one.job, one.way, one.metric) for one in group} for group in (worse, better)]
    return names[0], names[1], len(found)


class Interval(unittest.TestCase):
    def test_same_as_counting_all_orders(self):
        for a, b in ((4, 5), (5, 5), (5, 6), (7, 4), (6, 6)):
            turned = []
            for places in itertools.combinations(range(a + b), a):
                others = [place for place in range(a + b) if place not in places]
                turned.append(sum(one > other for one in places for other in others))
            fits = [u for u in range(a * b)
                    if 2 * sum(one <= u for one in turned) <= 0.01 * len(turned)]
            self.assertEqual(compare.left_out(a, b), max(fits, default=None))

    def test_too_few_rounds(self):
        self.assertIsNone(compare.left_out(4, 4))
        self.assertEqual(compare.left_out(5, 5), 0)


class Judgement(unittest.TestCase):
    def test_the_same_is_the_same(self):
        for noise in 0.01, 0.03, 0.1:
            wrong = compared = 0
            for seed in range(10):
                worse, better, count = flagged(made_up.results(2 * seed, noise),
                                               made_up.results(2 * seed + 1, noise))
                wrong += len(worse) + len(better)
                compared += count
            self.assertLess(wrong, compared / 100, f"noise {noise}")

    def test_a_fifth_is_found(self):
        # Where it stands out of the noise, always; else mostly, and never as its contrary.
        for noise, least in (0.01, 1), (0.03, 0.9):
            wanted = found = 0
            for seed, factor in itertools.product(range(10), (1.2, 0.8)):
                planted = {("job-3", "dma"): factor, ("job-8", "uring"): factor}
                worse, better, _ = flagged(made_up.results(100 + seed, noise),
                                           made_up.results(200 + seed, noise, faster=planted))
                names = {(job, way, metric) for job, way in planted
                         for metric in ("iops", "p50_us", "dom0_us")}
                wanted += len(names)
                found += len(names & (better if factor > 1 else worse))
                self.assertFalse(names & (worse if factor > 1 else better))
            self.assertGreaterEqual(found, least * wanted, f"noise {noise}")

    def test_less_than_it_is_worth_is_not_told(self):
        planted = {(job, way): 1.02 for job in made_up.JOBS for way in made_up.OURS}
        worse, better, _ = flagged(made_up.results(1, noise=1e-4),
                                   made_up.results(2, noise=1e-4, faster=planted))
        self.assertFalse(worse | better)

    def test_what_controls_do_is_the_machine(self):
        slow = made_up.results(2, drift=0.75)
        worse, better, count = flagged(made_up.results(1), slow)
        self.assertLess(len(worse | better), count / 50)
        # Without controls nobody could know.
        slow.settings = {}
        worse, better, _ = flagged(made_up.results(1), slow)
        self.assertGreater(len(worse), 100)
        self.assertFalse(better)

    def test_a_jobs_own_controls_count(self):
        # R went to four times what it was; fio, in another job, stayed where it was.
        runs = []
        for r_ns, ours in (100, 1000), (400, 400):
            run = made_up.Results("native", {"controls": ["R", "fio"]})
            for round_nr in range(1, 6):
                run.add("null", "sluice", round_nr, {"iops": ours + round_nr, "ratio_r": 2})
                run.add("null", "R", round_nr, {"ns": r_ns})
                run.add("file", "sluice", round_nr, {"iops": ours + round_nr})
                run.add("file", "fio", round_nr, {"iops": 5000 + round_nr})
            runs.append(run)
        self.assertEqual(flagged(*runs)[:2], ({("file", "sluice", "iops")}, set()))

    def test_too_few_rounds_are_not_judged(self):
        text = compare.tell({"lab": made_up.results(1, rounds=3)},
                            {"lab": made_up.results(2, rounds=3, drift=2)})
        self.assertIn("0 worse, 0 better", text)
        self.assertIn("too few rounds", text)

    def change(self, metric, before, after):
        return compare.Change("job", "way", metric, dict(enumerate(before)), dict(enumerate(after)))

    def test_as_far_as_controls(self):
        change = self.change("iops", [100] * 5, [120] * 5)
        self.assertTrue(change.beyond(together=0.1, each=0.15))
        self.assertFalse(change.beyond(together=0.1, each=0.25))
        self.assertFalse(change.beyond(together=0.25, each=0.1))

    def test_controls_go_one_way_whatever_is_measured(self):
        found = [compare.Change("job", "fio", metric, {1: before}, {1: after})
                 for metric, before, after in (("iops", 100, 80), ("p50_us", 8, 10))]
        machine = compare.Machine(found, {"fio"})
        self.assertAlmostEqual(machine.moved("ns", "job")[0], math.log(1.25))
        self.assertEqual(machine.moved("p99_us", "job"), (0, 0))

    def test_controls_are_never_flagged(self):
        planted = {("job-6", "blkback"): 3, ("job-7", "dma"): 3}
        _, better, _ = flagged(made_up.results(1), made_up.results(2, faster=planted))
        self.assertEqual({way for _, way, _ in better}, {"dma"})

    def test_from_nothing_to_something(self):
        self.assertTrue(self.change("cpu_us", [0] * 5, [40, 50, 60, 70, 80]).beyond())
        self.assertFalse(self.change("cpu_us", [0] * 5, [0, 50, 60, 70, 80]).beyond())
        self.assertFalse(self.change("cpu_us", [0] * 5, [0] * 5).beyond())

    def test_counted_needs_no_rounds(self):
        self.assertTrue(self.change("instructions", [1000], [1020]).beyond())
        self.assertFalse(self.change("instructions", [1000], [1005]).beyond())
        self.assertTrue(self.change("d1_misses", [0], [0.2]).beyond())
        self.assertFalse(self.change("d1_misses", [0.0005], [0]).beyond())

    def test_which_way_is_better(self):
        self.assertTrue(self.change("iops", [1], [2]).better)
        self.assertFalse(self.change("iops", [2], [1]).better)
        self.assertTrue(self.change("p99_us", [2], [1]).better)
        self.assertFalse(self.change("bytes", [1], [2]).better)


class Text(unittest.TestCase):
    def test_apart_and_the_largest_first(self):
        planted = {("job-1", "dma"): 2, ("job-2", "dma"): 4, ("job-4", "copy"): 0.5}
        text = compare.tell({"lab": made_up.results(1)},
                            {"lab": made_up.results(2, faster=planted)})
        worse, better = text.index("## Worse"), text.index("## Better")
        self.assertTrue(worse < text.index("| job-4 | copy | iops") < better)
        self.assertTrue(better < text.index("| job-2 | dma | iops")
                        < text.index("| job-1 | dma | iops"))
        self.assertNotIn("In the noise", text)
        self.assertIn("(nine in ten): iops 3.8 %, p50_us 3.8 %, dom0_us 4.8 %.", text)
        self.assertIn("| job-2 | dma | iops (/s) | 1976 | 7895 | +299.5 % | 7.81 % |", text)

    def test_all_on_demand(self):
        run = {"lab": made_up.results(1)}
        self.assertIn("| job-7 | dma | iops", compare.tell(run, run, everything=True))
        self.assertIn("0 worse, 0 better", compare.tell(run, run))

    def test_what_only_one_has(self):
        before, after = made_up.results(1), made_up.results(2)
        after.samples = [one for one in after.samples if one["job"] != "job-5"]
        after.machine = {**after.machine, "cpu": "another"}
        text = compare.tell({"lab": before, "native": before}, {"lab": after})
        self.assertIn("Only in A: job-5 (dma), job-5 (copy)", text)
        self.assertIn("two machines", text)
        self.assertIn("# native: only in A", text)

# SPDX-License-Identifier: BSD-2-Clause
"""Medians, ratios by round, turns, goals."""
import unittest

from . import made_up
from benchlib import stats


class Numbers(unittest.TestCase):
    def test_median_of_few_and_none(self):
        self.assertEqual(stats.median([3, 1, 2]), 2)
        self.assertEqual(stats.median({1: 4, 2: 6}.values()), 5)
        self.assertIsNone(stats.median([]))

    def test_spread(self):
        self.assertEqual(stats.spread([3, 1, 2]), (1, 3))
        self.assertAlmostEqual(stats.relative_spread([90, 100, 120]), 0.15)
        self.assertEqual(stats.relative_spread([0, 0]), 0)
        self.assertIsNone(stats.spread([]))

    def test_ratios_are_those_of_one_round(self):
        # Round 3 is one's only, and in round 2 nothing came on the other side.
        self.assertEqual(stats.ratios({1: 6, 2: 9, 3: 1}, {1: 3, 2: 0, 4: 7}), [2])

    def test_figures_keep_three_digits(self):
        for number, text in ((None, "-"), (12345.6, "12346"), (99.96, "100.0"), (12.34, "12.3"),
                             (1.234, "1.23"), (0.0123, "0.012"), (0, "0"), (0.0, "0"),
                             (32, "32"), (1.0, "1.00")):
            self.assertEqual(stats.figure(number), text)

    def test_median_with_spread(self):
        self.assertEqual(stats.of([200, 150, 300]), "200 (150 to 300)")
        self.assertEqual(stats.of([7]), "7")
        self.assertEqual(stats.of([]), "-")


class Curves(unittest.TestCase):
    def test_no_more_points_than_one_sees(self):
        kept = stats.thinned(made_up.CURVE)
        self.assertLess(len(kept), stats.CURVE_POINTS + 3)
        self.assertGreater(len(kept), stats.CURVE_POINTS / 2)
        self.assertEqual((kept[0], kept[-1]), (made_up.CURVE[0], made_up.CURVE[-2]))

    def test_what_is_too_rare_says_nothing(self):
        self.assertLessEqual(stats.thinned(made_up.CURVE, 10000)[-1][1], 0.99)
        self.assertGreater(stats.thinned(made_up.CURVE, 10000)[-1][1], 0.98)
        self.assertEqual(stats.thinned(made_up.CURVE, 50), [])
        self.assertEqual(stats.thinned([[0, 0.1], [1, 0.2], [2, 1]]), [[1, 0.2]])


class Turns(unittest.TestCase):
    def test_each_way_is_at_each_place_once(self):
        for count in range(1, 9):
            ways = list("abcdefgh")[:count]
            rounds = [stats.in_turns(number, ways) for number in range(1, count + 1)]
            for order in rounds:
                self.assertEqual(sorted(order), ways)
            for place in zip(*rounds):
                self.assertEqual(sorted(place), ways)

    def test_none_comes_more_often_after_the_same(self):
        for count in range(2, 9):
            squares = 2 if count % 2 else 1
            after = {}
            for number in range(1, squares * count + 1):
                order = stats.in_turns(number, list(range(count)))
                for pair in zip(order, order[1:]):
                    after[pair] = after.get(pair, 0) + 1
            self.assertEqual(len(after), count * (count - 1))
            self.assertEqual(set(after.values()), {squares})


class Goals(unittest.TestCase):
    def test_lines(self):
        self.assertEqual(str(stats.Goal("a", 1.5, 1.5)), "goal a measured 1.5 wanted >=1.5 met")
        self.assertTrue(stats.Goal("b", 1.5, 1.5, most=True).met)
        self.assertEqual(str(stats.Goal("b", 1.51, 1.5, most=True)),
                         "goal b measured 1.51 wanted <=1.5 missed")
        self.assertEqual(str(stats.Goal("c", 70000, 65536, most=True, unit=" B")),
                         "goal c measured 70000 B wanted <=65536 B missed")
        self.assertEqual(str(stats.Goal("d", None, 2)), "goal d measured nothing wanted >=2 missed")

    def test_what_was_not_measured_is_not_met(self):
        self.assertFalse(stats.Goal("a", None, 2, most=True).met)

# SPDX-License-Identifier: BSD-2-Clause
"""Few numbers from many: medians, spread, ratios by round, and goals.

Machines change from minute to minute, and virtual ones most.  So ways that are compared take turns
within a round, in an order that differs from round to round; what counts is the ratio within a
round; and of all rounds' ratios the median, which one bad minute does not move.
"""
import math
import statistics

BEYOND = 100  # so many requests have to be slower than a percentile, or it says nothing
CURVE_POINTS = 100  # more of them nobody sees


def median(values):
    """The median, or None of nothing."""
    values = list(values)
    return statistics.median(values) if values else None


def spread(values):
    """The least and the greatest, or None of nothing."""
    values = list(values)
    return (min(values), max(values)) if values else None


def relative_spread(values):
    """Half of what lies between the least and the greatest, as a part of the median, or 0."""
    values = list(values)
    mid = median(values)
    return (max(values) - min(values)) / 2 / abs(mid) if mid else 0.0


def ratios(above, below):
    """The ratios of two {round: value}, round by round; rounds that only one has, have none."""
    return [above[number] / below[number] for number in sorted(above)
            if below.get(number)]


def in_turns(round_nr, ways):
    """The ways in the order of round ROUND_NR (from 1): over as many rounds as there are ways each
    has been at each place once, and none always comes after the same other.

    A Latin square: the first round goes 0, 1, n-1, 2, n-2, ..., each next one is shifted by one.
    For an odd number of ways the rounds of a second square go backwards.
    """
    count = len(ways)
    first = [(place + 1) // 2 if place % 2 else (count - place // 2) % count
             for place in range(count)]
    turn = round_nr - 1
    order = [ways[(place + turn) % count] for place in first]
    return order[::-1] if count % 2 and turn // count % 2 else order


def nines(fraction):
    """1 for 0.9, 2 for 0.99, ...: the scale on which distributions of latencies are looked at."""
    return -math.log10(1 - fraction)


def thinned(points, requests=None):
    """A curve of [value, fraction] with no more points than one sees: those that lie well apart,
    and its ends.  Of so many REQUESTS points that fewer than BEYOND lie beyond say nothing and are
    left out, as is the last, of all."""
    highest = 1 - BEYOND / requests if requests else 1
    points = [point for point in points if point[0] > 0 and point[1] <= highest and point[1] < 1]
    if len(points) < 3:
        return points
    height = nines(points[-1][1]) - nines(points[0][1]) or 1
    width = math.log(points[-1][0] / points[0][0]) or 1
    kept = points[:1]
    for point in points[1:-1]:
        apart = ((nines(point[1]) - nines(kept[-1][1])) / height
                 + math.log(point[0] / kept[-1][0]) / width)
        if apart >= 2 / CURVE_POINTS:
            kept.append(point)
    return kept + points[-1:]


def figure(number):
    """A number as a person reads it: three digits that mean something; '-' of nothing."""
    if number is None:
        return "-"
    size = abs(number)
    if size >= 100 or number == 0 or isinstance(number, int):
        return f"{number:.0f}"
    return f"{number:.1f}" if size >= 10 else f"{number:.2f}" if size >= 0.095 else f"{number:.2g}"


def exact(number):
    """A number of a goal: near it, three digits do not say whether it was met."""
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def of(values):
    """The median, and in brackets the least and the greatest; '-' of nothing."""
    values = list(values)
    if not values:
        return "-"
    if len(values) == 1:
        return figure(values[0])
    low, high = spread(values)
    return f"{figure(median(values))} ({figure(low)} to {figure(high)})"


class Goal:
    """What was to be reached: at least WANTED, or at MOST; MEASURED is None where it was not."""

    def __init__(self, name, measured, wanted, most=False, unit=""):
        self.name, self.measured, self.wanted = name, measured, wanted
        self.most, self.unit = most, unit

    @property
    def met(self):
        if self.measured is None:
            return False
        return self.measured <= self.wanted if self.most else self.measured >= self.wanted

    @property
    def limit(self):
        return f"{'<=' if self.most else '>='}{exact(self.wanted)}{self.unit}"

    @property
    def got(self):
        return "nothing" if self.measured is None else f"{exact(self.measured)}{self.unit}"

    def __str__(self):
        return (f"goal {self.name} measured {self.got} wanted {self.limit} "
                f"{'met' if self.met else 'missed'}")

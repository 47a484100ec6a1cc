# SPDX-License-Identifier: BSD-2-Clause
"""`bench compare A B`: what changed from A to B, told from what only moved.

Two runs of the same build differ, and a table that flags each difference is soon read by nobody.
What is known about noise comes from the runs themselves, in three ways:

- Within a run: each has rounds.  The change is told with its interval, without any assumption about
  how figures are distributed: take the ratios of every round of B to every round of A; the interval
  leaves out as many at both ends as Mann and Whitney's test allows at one in a hundred.  With five
  rounds on both sides that is all of them: no round of one run reaches into the other's.
  With fewer nothing can be told at this level, and nothing is flagged.
- Between runs: ways that are no part of Sluice (`settings["controls"]`: blkback, fio, memcpy)
  cannot have changed.  How far they did is what the machine did meanwhile; of several, what counts
  are those that the job itself has, by all their jobs.
- And a change under 3 % is not worth a line, whatever it is.

Flagged is what lies beyond all three: it is greater than that of nine in ten of the controls, and
the near end of its interval is farther from 1 than their median.  Instructions are counted, not
timed: they are flagged from 1 % on, rounds or not, and cache misses of a simulated cache from 5 %.
"""
import math

from .results import METRICS, PARTS
from . import stats
from .page import table

CHANCE = 0.01
LEAST_CHANGE = 0.03
# What is counted: the part, and the amount, from which on a change is one.
COUNTED = {"instructions": (0.01, 1), "hypercalls": (0.01, 0.001), "d1_misses": (0.05, 0.1)}
CONTROLS_KEPT = 0.9
SPEEDS = ("iops", "mb_s", "ns", "p50_us")  # where one goes, all go


def left_out(count_a, count_b, chance=CHANCE):
    """How many of the count_a * count_b ratios lie outside of the interval at each end: Mann and
    Whitney's greatest U that comes about, at either end, in at most CHANCE of all cases.  None
    where even 0 does so more often, since there are too few rounds.
    """
    ways = [[0] * (count_a * count_b + 1) for _ in range(count_a + 1)]
    ways[0][0] = 1
    # ways[n][u]: of how many orders of n of A's and so many of B's values u pairs are turned round.
    # Each step puts in the next of all places, whose value may be one of A's.
    for place in range(1, count_a + count_b + 1):
        for taken in range(min(count_a, place), 0, -1):
            before = place - taken  # of B's values
            if before > count_b:
                continue
            for turned in range(count_a * count_b, before - 1, -1):
                ways[taken][turned] += ways[taken - 1][turned - before]
    total = math.comb(count_a + count_b, count_a)
    so_far, fewest = 0, None
    for turned, count in enumerate(ways[count_a]):
        so_far += count
        # Both sides together, a hair allowed for what floating point makes of equal numbers.
        if 2 * so_far / total > chance + 1e-12:
            break
        fewest = turned
    return fewest


class Change:
    """A metric of a job done one way in two runs, A's and B's {round: value}."""

    def __init__(self, job, way, metric, before, after):
        self.job, self.way, self.metric = job, way, metric
        self.before, self.after = list(before.values()), list(after.values())
        self.old, self.new = stats.median(self.before), stats.median(self.after)
        self.log = None
        if self.old > 0 and self.new > 0:
            self.log = math.log(self.new / self.old)

    def size(self):
        """How large the change is, for sorting: one from or to 0 is the largest."""
        return math.inf if self.log is None else abs(self.log)

    @property
    def better(self):
        return (self.new > self.old) == METRICS[self.metric][0]

    def interval(self):
        """Where the change lies: logarithms of ratios, or differences where a value is 0; None
        where it cannot be told."""
        outside = left_out(len(self.before), len(self.after))
        if outside is None:
            return None
        if min(self.before + self.after) > 0:
            every = sorted(math.log(b / a) for a in self.before for b in self.after)
        else:
            every = sorted(b - a for a in self.before for b in self.after)
        return every[outside], every[len(every) - 1 - outside]

    def noise(self):
        """Half of the interval's width, as a part of the value; None where it cannot be told."""
        ends = self.interval()
        if ends is None or min(self.before + self.after) <= 0:
            return None
        return math.expm1((ends[1] - ends[0]) / 2)

    def beyond(self, together=0.0, each=0.0):
        """Whether it is more than noise, where controls went so far (see Machine.moved())."""
        if self.metric in COUNTED:
            part, amount = COUNTED[self.metric]
            return (abs(self.new - self.old) >= amount
                    and (self.log is None or abs(self.log) > math.log1p(part)))
        ends = self.interval()
        if ends is None:
            return False
        least = math.log1p(LEAST_CHANGE)
        if self.log is not None and abs(self.log) <= max(each, least):
            return False
        if min(self.before + self.after) <= 0:
            return ends[0] > 0 or ends[1] < 0  # differences, which are no logarithms
        return ends[0] > max(together, least) or ends[1] < -max(together, least)

    def row(self):
        percent = "-" if self.log is None else f"{math.expm1(self.log) * 100:+.1f} %"
        noise = self.noise()
        counted = "counted" if self.metric in COUNTED else "-"
        unit = METRICS[self.metric][1]
        return [self.job, self.way, f"{self.metric}{f' ({unit})' if unit else ''}",
                stats.figure(self.old), stats.figure(self.new), percent,
                counted if noise is None else f"{stats.figure(noise * 100)} %"]


def series(results):
    """{(job, way, metric): {round: value}}, of a round's slices the median."""
    found = {}
    for sample in results.samples:
        for metric, value in sample["v"].items():
            rounds = found.setdefault((sample["job"], sample["way"], metric), {})
            rounds.setdefault(sample["round"], []).append(value)
    return {key: {number: stats.median(values) for number, values in rounds.items()}
            for key, rounds in found.items()}


def changes(before, after):
    """All that both runs of a part have measured."""
    new = series(after)
    return [Change(*key, old, new[key]) for key, old in series(before).items() if key in new]


class Machine:
    """What the machine did between two runs, by what the CONTROLS of a part did in all CHANGES."""

    def __init__(self, found, controls):
        self.controls = controls
        self.went = {}  # by way and metric, for the better above 0
        self.ways = {}  # controls of a job
        for change in found:
            if change.way in controls and change.log is not None:
                self.ways.setdefault(change.job, set()).add(change.way)
                gain = change.log if METRICS[change.metric][0] else -change.log
                for metric in {change.metric, *(SPEEDS if change.metric in SPEEDS else ())}:
                    self.went.setdefault((change.way, metric), []).append(gain)

    def moved(self, metric, job=None):
        """How far controls went, those of JOB if it has some, as logarithms: all of them together,
        by their median, and nine in ten of them, whichever way."""
        went = [gain for way in self.ways.get(job, self.controls)
                for gain in self.went.get((way, metric), [])]
        if not went:
            return 0.0, 0.0
        each = sorted(map(abs, went))
        return abs(stats.median(went)), each[math.ceil(CONTROLS_KEPT * len(each)) - 1]


def missing(before, after):
    """What only one run has, in words."""
    lines = []
    for one, other, where in (before, after, "A"), (after, before, "B"):
        only = [f"{job} ({way})" for job in one.jobs() for way in one.ways(job)
                if way not in other.ways(job)]
        if only:
            lines.append(f"Only in {where}: {', '.join(only)}.")
    return lines


def judge(before, after):
    """Of a part: all changes, those for the better and for the worse, and what the machine did."""
    found = changes(before, after)
    controls = set(before.settings.get("controls", [])) & set(after.settings.get("controls", []))
    machine = Machine(found, controls)
    flagged = [change for change in found if change.way not in controls
               and change.beyond(*machine.moved(change.metric, change.job))]
    better = [one for one in flagged if one.better]
    return found, better, [one for one in flagged if not one.better], machine


def tell_part(part, before, after, everything=False):
    """A part's comparison, as lines of Markdown."""
    found, better, worse, machine = judge(before, after)
    lines = [f"# {part}: {before.commit} ({before.made}) to {after.commit} ({after.made})"]
    if before.machine != after.machine:
        lines.append("**These are two machines**, or one that was changed: little of this is "
                     "Sluice's.")
    unknown = sum(change.interval() is None and change.metric not in COUNTED for change in found)
    lines.append(f"{len(found)} figures compared: {len(worse)} worse, {len(better)} better, beyond "
                 "their noise; by chance it is about one in a hundred.")
    if unknown:
        lines.append(f"Of {unknown} the noise is unknown, since there are too few rounds (five on "
                     "both sides are enough): they are not judged.")
    drift = [f"{metric} {math.expm1(machine.moved(metric)[1]) * 100:.1f} %"
             for metric in dict.fromkeys(change.metric for change in found)
             if machine.moved(metric)[1]]
    if drift:
        lines.append("What is not Sluice's went this far by itself (nine in ten): "
                     + ", ".join(drift) + ".")
    lines += missing(before, after)
    heads = ["job", "way", "metric", "A", "B", "change", "noise"]
    groups = [("Worse", worse), ("Better", better)]
    if everything:
        flagged = set(map(id, worse + better))
        groups.append(("In the noise", [one for one in found if id(one) not in flagged]))
    for name, group in groups:
        if group:
            group.sort(key=Change.size, reverse=True)
            lines += ["", f"## {name}", table(heads, [change.row() for change in group]).rstrip()]
    return "\n".join(lines).rstrip() + "\n"


def tell(before, after, everything=False):
    """Compares what both have, {part: Results}; the text to show."""
    texts = [tell_part(part, before[part], after[part], everything)
             for part in PARTS if part in before and part in after]
    for part in PARTS:
        if (part in before) != (part in after):
            texts.append(f"# {part}: only in {'A' if part in before else 'B'}\n")
    return "\n".join(texts).rstrip()

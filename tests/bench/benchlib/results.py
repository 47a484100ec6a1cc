# SPDX-License-Identifier: BSD-2-Clause
"""Raw figures of a part (native, scale, lab): a JSON file, of which all else is made.

A sample is what one round measured of one job done one way: `job` is the work
("4k-randread-batch32"), `way` who does it ("dma", "blkback"), `round` counts from 1, `v` holds
values by metric.  What was measured in slices of a round is several samples of that round.
Nothing is averaged before it is written: whoever doubts a table finds what it was made of, and
`bench compare` the noise.

Beside samples there are curves (a job's latencies done one way, as points of the distribution: up
to so many microseconds, this fraction of requests) and tables (what fits neither, as heads and
rows).
"""
import datetime
import json
import math
import os
import pathlib

from .machine import Failure, commit, machine, versions
from . import stats

FORMAT = 1
PARTS = ["native", "scale", "lab"]

# Metrics: whether more is better, the unit, and what it is.
METRICS = {
    "iops": (True, "/s", "requests a second"),
    "mb_s": (True, "MB/s", "megabytes (10^6) a second"),
    "p50_us": (False, "us", "median latency"),
    "p99_us": (False, "us", "latency that 99 of 100 requests stay below"),
    "p99_9_us": (False, "us", "latency that 999 of 1000 requests stay below"),
    "guest_us": (False, "us", "run time of the guest a request"),
    "dom0_us": (False, "us", "run time of dom0 a request"),
    "server_us": (False, "us", "in dom0, of the threads that serve the disk, a request"),
    "work_us": (False, "us", "of that, what found work to do"),
    "run_us": (False, "us", "time that CPUs were busy beyond what rest costs, a request"),
    "busy_us": (False, "us", "time that CPUs were busy, a request"),
    "notifications": (False, "", "interrupts of the guest a request"),
    "kicks": (False, "", "interrupts of dom0 by the guest a request"),
    "ns": (False, "ns", "time a request"),
    "ratio_r": (False, "R", "time a request, in round trips of a cache line"),
    "of_memcpy": (True, "", "speed, as a part of memcpy's on the same core"),
    "hypercalls": (False, "", "calls to the hypervisor a request"),
    "d1_misses": (False, "", "misses of the first-level data cache a request, simulated"),
    "instructions": (False, "", "instructions a request"),
    "bytes": (False, "B", "memory"),
    "cpu_us": (False, "us", "processor time"),
    "passes": (False, "", "rounds of a reactor over its pollers"),
    "off_fair": (False, "", "how far from the mean the furthest is, as a part of it"),
    "in_vain": (True, "", "the part of the load's looks at a ring that found nothing"),
}


class Results:
    """The figures of one part.  `settings["controls"]` names ways that are not ours: what moved
    there between two runs was the machine (see compare.py)."""

    def __init__(self, part, settings=None):
        self.part = part
        self.made = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.commit = commit()
        self.machine = dict(machine())
        self.versions = dict(versions())
        self.settings = dict(settings or {})
        self.samples = []
        self.curves = {}
        self.tables = {}

    def add(self, job, way, round_nr, values):
        """Notes a sample; values that are None were not measured and are left out."""
        known = {name: value for name, value in values.items() if value is not None}
        sample = {"job": job, "way": way, "round": round_nr, "v": known}
        problem = problem_of_sample(sample)
        if problem:
            raise Failure(f"{self.part}: {problem}")
        self.samples.append(sample)

    def curve(self, job, way, points, requests=None):
        """Notes a distribution of latencies: [microseconds, fraction of requests], rising.

        Of REQUESTS all told; what says nothing, or is not seen, is left out (see stats.thinned()).
        """
        points = [list(point) for point in points]
        problem = problem_of_curve(points)
        if problem:
            raise Failure(f"{self.part}: curve of {job}, {way}: {problem}")
        points = stats.thinned(points, requests)
        if points:
            self.curves[f"{job}|{way}"] = [[float(f"{us:.5g}"), round(fraction, 6)]
                                           for us, fraction in points]

    def table(self, name, heads, rows):
        """Notes a table that is shown as it is."""
        self.tables[name] = {"heads": list(heads), "rows": [list(row) for row in rows]}

    def jobs(self):
        """Jobs in the order in which they were first measured."""
        return list(dict.fromkeys(sample["job"] for sample in self.samples))

    def ways(self, job=None):
        """Ways, of a job or of all, in the order in which they were first measured."""
        return list(dict.fromkeys(sample["way"] for sample in self.samples
                                  if job is None or sample["job"] == job))

    def rounds(self):
        """How many rounds there were at most."""
        return max((sample["round"] for sample in self.samples), default=0)

    def values(self, job, way, metric):
        """All values of a metric, in the order in which they were measured."""
        return [sample["v"][metric] for sample in self.samples
                if sample["job"] == job and sample["way"] == way and metric in sample["v"]]

    def by_round(self, job, way, metric):
        """{round: value} of a metric; of a round's slices the median."""
        rounds = {}
        for sample in self.samples:
            if sample["job"] == job and sample["way"] == way and metric in sample["v"]:
                rounds.setdefault(sample["round"], []).append(sample["v"][metric])
        return {number: stats.median(values) for number, values in rounds.items()}

    def median(self, job, way, metric):
        """The median over the rounds, None where nothing was measured."""
        return stats.median(self.by_round(job, way, metric).values())

    def ratio(self, job, way, other, metric):
        """How many times OTHER's value WAY's is: the median of the rounds' ratios, or None."""
        return stats.median(stats.ratios(self.by_round(job, way, metric),
                                         self.by_round(job, other, metric)))

    def points(self, job, way):
        """A curve's points, or None."""
        return self.curves.get(f"{job}|{way}")

    def save(self, folder):
        """Writes FOLDER/PART.json at once, so that no reader sees half of it; returns its path."""
        folder = pathlib.Path(folder)
        path = folder / f"{self.part}.json"
        head = {"format": FORMAT, "part": self.part, "made": self.made, "commit": self.commit,
                "machine": self.machine, "versions": self.versions, "settings": self.settings}
        # A sample a line: such a file can be read, and compared, by a person too.
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        lines.append('"samples": [\n' + ",\n".join(json.dumps(one) for one in self.samples) + "\n]")
        for key, group in ("curves", self.curves), ("tables", self.tables):
            inner = ",\n".join(f"{json.dumps(name)}: {json.dumps(one)}"
                               for name, one in group.items())
            lines.append(f'"{key}": {{\n{inner}\n}}')
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
        return path

    @classmethod
    def load(cls, path):
        """Reads a file of results; fails with what is wrong in it."""
        path = pathlib.Path(path)
        try:
            data = json.loads(path.read_text())
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise Failure(f"{path} is no JSON: {error}") from None
        problem = problem_of(data)
        if problem:
            raise Failure(f"{path}: {problem}")
        results = cls.__new__(cls)
        for key in "part", "made", "commit", "machine", "versions", "settings", "samples":
            setattr(results, key, data[key])
        results.curves = data.get("curves", {})
        results.tables = data.get("tables", {})
        return results


def write_text(path, text):
    """Writes a file at once: under another name first, which then takes the place of the old."""
    path = pathlib.Path(path)
    other = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        other.write_text(text)
        os.replace(other, path)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def problem_of_sample(sample):
    if not isinstance(sample, dict):
        return "a sample is no object"
    for key in "job", "way":
        name = sample.get(key)
        if not isinstance(name, str) or not name or "|" in name:
            return f"a sample's {key} is a name without '|', not {name!r}"
    what = f"sample of {sample['job']}, {sample['way']}"
    number = sample.get("round")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        return f"{what}: rounds count from 1, not {number!r}"
    values = sample.get("v")
    if not isinstance(values, dict):
        return f"{what}: no values"
    for name, value in values.items():
        if name not in METRICS:
            return f"{what}: no metric '{name}': they are {', '.join(METRICS)}"
        if not is_number(value):
            return f"{what}: {name} is {value!r}, no number"
    return None


def problem_of_curve(points):
    last_us, last_fraction = 0, 0
    if not isinstance(points, list) or not points:
        return "no points"
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(map(is_number, point)):
            return "a point is [microseconds, fraction]"
        if point[0] < last_us or not last_fraction <= point[1] <= 1:
            return "points do not rise, to a fraction of at most 1"
        last_us, last_fraction = point
    return None


def problem_of(data):
    """What keeps DATA from being a file of results, or None."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return f"no results of format {FORMAT}: measure again"
    if data.get("part") not in PARTS:
        return f"part is one of {', '.join(PARTS)}, not {data.get('part')!r}"
    for key, kind in (("made", str), ("commit", str), ("machine", dict), ("versions", dict),
                      ("settings", dict), ("samples", list)):
        if not isinstance(data.get(key), kind):
            return f"no '{key}': measure again"
    for sample in data["samples"]:
        problem = problem_of_sample(sample)
        if problem:
            return problem
    for group in "curves", "tables":
        if not isinstance(data.get(group, {}), dict):
            return f"'{group}' is no object"
    for name, points in data.get("curves", {}).items():
        problem = problem_of_curve(points)
        if problem:
            return f"curve {name}: {problem}"
    for name, table in data.get("tables", {}).items():
        if not isinstance(table, dict) or not all(isinstance(table.get(key), list)
                                                  for key in ("heads", "rows")):
            return f"table {name} has no heads and rows"
    return None


def find(where):
    """The results at WHERE, a file or a folder of them: {part: Results}."""
    where = pathlib.Path(where)
    paths = [where]
    if where.is_dir():
        paths = [where / f"{part}.json" for part in PARTS if (where / f"{part}.json").exists()]
        if not paths:
            raise Failure(f"{where} has no results: bench native, scale and lab make "
                          + ", ".join(f"{part}.json" for part in PARTS))
    found = [Results.load(path) for path in paths]
    return {results.part: results for results in found}

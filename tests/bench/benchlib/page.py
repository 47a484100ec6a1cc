# SPDX-License-Identifier: BSD-2-Clause
"""The report, doc/bench/README.md and its pictures, made of the raw files alone.

A part's module says what its figures mean (its section) and what was wanted (its goals); the page
puts them in one order and frame.  Below a line of its own the page holds what people wrote about
it; that stays.
"""
import pathlib

from .machine import Failure
from .results import METRICS, PARTS, Results, write_text
from . import plots, stats

KEEP = "<!-- Below this line tests/bench/bench changes nothing. -->"
HEADS = {"lab": "Lab: one guest on real Xen, beside blkback and xen-block",
         "native": "Native: over a segment at full speed, beside the machine's limits",
         "scale": "Scale: many disks, over the hosted double"}
ORDER = ["lab", "native", "scale"]  # as a reader asks
WORDS = {"cpu": "{}", "cores": "{} cores", "memory_gib": "{} GiB", "kernel": "Linux {}"}


INTRODUCTION = """\
# Where Sluice stands

Made by `make bench`, which measures, and `tests/bench/bench report`, which makes this page of the
raw figures beside it. Ways of doing the same work take turns within a round, in an order that
differs from round to round. Figures are medians of the rounds with the least and the greatest in
brackets; ratios, in bold, are medians of the rounds' ratios. Percentiles stand only where at
least 100 requests were slower. `-` was not measured.
""".splitlines() + [""]

REPRODUCTION = """\
## How to measure again

    make bench-lab          # at most 40 minutes; JOBS=a,b picks jobs, into build/bench
    make bench-native       # at most 10 minutes
    make bench-scale        # at most 3 minutes
    make bench              # all of them, and this page
    tests/bench/bench compare BEFORE AFTER      # two files of raw figures, or folders of them

Leave the machine alone meanwhile: what else runs is measured too. The figures of one machine mean
little on another; ratios mean more. `bench compare` tells changes from noise.
""".splitlines()


def table(heads, rows):
    """A table in Markdown, with an empty line before and after it."""
    lines = [row_of(heads), "| " + " | ".join(["---"] * len(heads)) + " |", *map(row_of, rows)]
    return "\n".join(["", *lines, ""])


def row_of(cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def bold(number):
    return "-" if number is None else f"**{stats.figure(number)}**"


def compared(results, job, ways, metric, base=None):
    """The cells of a job's row: of each way the median, least and greatest; and in bold how many
    times BASE's it is, the median of the rounds' ratios."""
    cells = []
    for way in ways:
        cell = stats.of(results.by_round(job, way, metric).values())
        times = results.ratio(job, way, base, metric) if base and way != base else None
        cells.append(cell if times is None else f"{cell} {bold(times)}")
    return cells


def machine_line(results):
    known = results.machine
    words = [form.format(known[key]) for key, form in WORDS.items() if key in known]
    if known.get("virtual"):
        words.append("a virtual machine")
    return ", ".join(words)


def versions_line(results):
    return ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))


def goals_table(goals):
    """What was wanted: what was missed first, since one looks for that."""
    if not goals:
        return "None."
    heads = ["goal", "measured", "wanted"]
    missed, met = ([[goal.name, goal.got, goal.limit] for goal in goals if goal.met == wanted]
                   for wanted in (False, True))
    text = [f"{len(met)} of {len(goals)} goals are met."]
    if missed:
        text += ["", "Missed:", table(heads, missed)]
    if met:
        text += ["<details><summary>Met</summary>", table(heads, met), "</details>"]
    return "\n".join(text)


def frame(found):
    """What was measured, where, with what."""
    lines = []
    for part in ORDER:
        if part not in found:
            lines.append(f"- {part}: not measured.")
            continue
        one = found[part]
        lines.append(f"- [{part}](#{anchor(HEADS[part])}): commit {one.commit}, at "
                     f"{one.made.replace('T', ' ').rstrip('Z')} UTC, {one.rounds()} rounds; "
                     f"{versions_line(one)}; raw figures: [{part}.json]({part}.json).")
    machines = {machine_line(results) for results in found.values()}
    if len(machines) == 1:
        return "\n".join([f"On {machines.pop()}:", "", *lines])
    lines += ["", "On several machines:", "",
              *(f"- {part}: {machine_line(found[part])}." for part in ORDER if part in found)]
    return "\n".join(lines)


def anchor(head):
    """The name that Markdown's readers give a heading."""
    return "".join(letter for letter in head.lower().replace(" ", "-")
                   if letter.isalnum() or letter in "-_")


def make(folder, module_of):
    """Makes FOLDER/README.md and the pictures of the results there; MODULE_OF gives a module.

    Returns the goals, the lab's first.
    """
    folder = pathlib.Path(folder)
    found = {part: Results.load(folder / f"{part}.json") for part in PARTS
             if (folder / f"{part}.json").exists()}
    if not found:
        raise Failure(f"{folder} has no results: measure first (bench native, scale, lab)")
    goals, left_out, sections, drawn = [], [], [], set()
    for part in ORDER:
        if part not in found:
            continue
        module = module_of(part)
        plots.start_section()
        try:
            markdown, pictures = module.section(found[part])
            goals += module.goals(found[part])
            left_out += module.not_judged(found[part]) if hasattr(module, "not_judged") else []
        except (AttributeError, LookupError, TypeError) as error:
            raise Failure(f"{part}.json lacks what the report shows of it ({error!r}): "
                          f"measure all of it again (bench {part})") from error
        sections += [f"## {HEADS[part]}", "", markdown.strip(), ""]
        for picture in pictures:
            if not picture.name.startswith(f"{part}-"):
                raise Failure(f"{picture.name}.svg: pictures of {part} are named {part}-...")
            picture.render(folder)
            drawn.add(f"{picture.name}.svg")
    for old in (path for part in PARTS for path in folder.glob(f"{part}-*.svg")):
        if old.name not in drawn:
            old.unlink()
    text = "\n".join([*INTRODUCTION, frame(found).strip(), "", "## Goals", "",
                      goals_table(goals).strip(), "", *left_out, "", *sections,
                      *REPRODUCTION, *words(found), "", KEEP, ""])
    page = folder / "README.md"
    write_text(page, text + written_below(page))
    return goals


def written_below(page):
    """What people wrote below the line."""
    try:
        return page.read_text().partition(f"{KEEP}\n")[2]
    except OSError:
        return ""


def words(found):
    """What the metrics are that occur."""
    used = {name for results in found.values() for sample in results.samples
            for name in sample["v"]}
    lines = [f"- `{name}`: {meaning}{f', {unit}' if unit else ''}; "
             f"{'more' if more else 'less'} is better"
             for name, (more, unit, meaning) in METRICS.items() if name in used]
    return ["", "Metrics in the raw files:", "", *lines]

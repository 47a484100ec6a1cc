# SPDX-License-Identifier: BSD-2-Clause
"""Pictures of figures: SVG, by gnuplot.

They stand in the tree, so the same figures must give the same file: fixed size, no dates, nothing
at random.  Whoever does not tell red from green tells lines by their points and by colours that
were chosen to differ for all (Okabe and Ito's); a way has one colour in all pictures of a section.
Latencies are drawn as a distribution whose upper end is stretched: as far from 90 to 99 percent as
from 99 to 99.9, since the slow ones are what one looks for.
"""
import math
import pathlib
import re
import subprocess

from .machine import Failure, need
from .results import write_text
from .stats import nines, thinned

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31"]
POINTS = [7, 5, 9, 13, 11, 4, 6, 8]
NINES = [("0", 0), ("50", 0.5), ("90", 0.9), ("99", 0.99), ("99.9", 0.999), ("99.99", 0.9999)]
WIDTH, HEIGHT = 860, 440

_styles = {}


def start_section():
    """Forgets which way has which colour."""
    _styles.clear()


def style_of(way):
    return _styles.setdefault(way, len(_styles)) % len(COLOURS)


class Plot:
    """A picture to be: its file's name without .svg, its title, and gnuplot's script."""

    def __init__(self, name, title, script):
        self.name, self.title, self.script = name, title, script

    def markdown(self):
        return f"![{self.title}]({self.name}.svg)"

    def render(self, folder):
        """Writes FOLDER/NAME.svg; fails where gnuplot does."""
        need("gnuplot")
        try:
            done = subprocess.run(["gnuplot", "-d"], input=self.script, capture_output=True,
                                  timeout=60, text=True, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            raise Failure(f"gnuplot, for {self.name}.svg: {error}") from None
        if done.returncode or "</svg>" not in done.stdout:
            why = (done.stderr.strip().splitlines() or ["no picture came"])[-1]
            raise Failure(f"gnuplot, for {self.name}.svg: {why.strip()}")
        write_text(pathlib.Path(folder) / f"{self.name}.svg", done.stdout)


def quoted(text):
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def number(value):
    return f"{value:.6g}"


def head(name, title, x_label, y_label):
    return [f'set terminal svg size {WIDTH},{HEIGHT} noenhanced '
            f'font "DejaVu Sans,Helvetica,sans-serif,13" background "#ffffff" '
            f'name {quoted(re.sub(r"[^A-Za-z0-9]", "_", name))} linewidth 1.4',
            "set encoding utf8",
            f"set title {quoted(title)}",
            f"set xlabel {quoted(x_label)}", f"set ylabel {quoted(y_label)}",
            'set border 3 linecolor rgb "#606060"', "set tics nomirror out",
            'set grid linecolor rgb "#dddddd" linewidth 0.7 dashtype 1',
            "set key outside right top vertical Left reverse samplen 2 spacing 1.2"]


def block(name, rows):
    """Data that a script brings along."""
    return [f"${name} << END", *(" ".join(map(number, row)) for row in rows), "END"]


def tics(axis, places):
    """PLACES are labels with where they stand."""
    return f"set {axis}tics (" + ", ".join(f"{quoted(label)} {number(at)}"
                                           for label, at in places) + ")"


def logarithmic(axis, least, most):
    """An axis from about LEAST to about MOST, with marks at 1, 2, 5, 10, ... as far as they fit."""
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    digits = (1, 2, 5) if len(decades) <= 5 else (1,)
    marks = [digit * 10.0**power for power in decades for digit in digits]
    return [f"set logscale {axis} 10",
            f"set {axis}range [{number(least * 0.9)}:{number(most * 1.1)}]",
            tics(axis, [(f"{mark:g}", mark) for mark in marks])]


def finish(lines, commands):
    return "\n".join([*lines, "plot " + ", \\\n     ".join(commands)]) + "\n"


def look(way):
    style = style_of(way)
    return f'linecolor rgb "{COLOURS[style]}" pointtype {POINTS[style]} pointsize 0.6'


def unit_for(greatest):
    for unit, word in ((1e9, "billions of "), (1e6, "millions of "), (1e3, "thousands of ")):
        if greatest >= 2 * unit:
            return unit, word
    return 1, ""


def lines(name, title, x_label, y_label, series, log_x=True, log_y=False):
    """A line a way over what was varied: SERIES is {way: [(x, y) or (x, y, low, high), ...]}.

    With least and greatest, they are drawn as bars.  Where LOG_Y, 0 has no place and is left out.
    """
    series = {way: [point for point in points if not log_y or min(point[1:]) > 0]
              for way, points in series.items()}
    series = {way: points for way, points in series.items() if points}
    if not series:
        raise Failure(f"{name}.svg: nothing to draw")
    values = [value for points in series.values() for point in points for value in point[1:]]
    unit, word = (1, "") if log_y else unit_for(max(values))
    script = head(name, title, x_label, word + y_label)
    places = sorted({point[0] for points in series.values() for point in points})
    if log_x:
        script.append("set logscale x 2")
        script.append(f"set xrange [{number(places[0] / 1.15)}:{number(places[-1] * 1.15)}]")
    # What was varied is named where it was measured, as far as it fits.
    shown = places if len(places) <= 14 else places[::math.ceil(len(places) / 14)]
    script.append(tics("x", [(label_of(x), x) for x in shown]))
    script += logarithmic("y", min(values), max(values)) if log_y else ["set yrange [0:*]"]
    commands = []
    for index, (way, points) in enumerate(series.items()):
        script += block(f"d{index}", [[x, *(value / unit for value in rest)]
                                      for x, *rest in points])
        kind = "yerrorlines" if all(len(point) == 4 for point in points) else "linespoints"
        commands.append(f"$d{index} with {kind} {look(way)} title {quoted(way)}")
    return Plot(name, title, finish(script, commands))


def label_of(x):
    """256 as it is, 4096 as 4 Ki: what is varied are depths, numbers and sizes."""
    for unit, word in ((2**20, " Mi"), (2**10, " Ki")):
        if x >= unit and x % unit == 0:
            return f"{x // unit:.0f}{word}"
    return f"{x:g}"


def cdf(name, title, curves):
    """Distributions of latencies: CURVES is {way: [[microseconds, fraction], ...]}.

    The last point, of all requests, lies infinitely high, and is left out.
    """
    curves = {way: thinned(points) for way, points in curves.items()}
    curves = {way: points for way, points in curves.items() if points}
    if not curves:
        raise Failure(f"{name}.svg: nothing to draw")
    top = max(nines(points[-1][1]) for points in curves.values())
    script = head(name, title, "microseconds, no more than", "percent of requests")
    heights = [(word, nines(fraction)) for word, fraction in NINES if nines(fraction) <= top + 0.3]
    least = min(points[0][0] for points in curves.values())
    most = max(points[-1][0] for points in curves.values())
    script += [*logarithmic("x", least, most),
               f"set yrange [0:{number(max(top, heights[-1][1]) * 1.02 + 0.01)}]",
               tics("y", heights)]
    commands = []
    for index, (way, points) in enumerate(curves.items()):
        script += block(f"d{index}", [[us, nines(fraction)] for us, fraction in points])
        style = style_of(way)
        commands.append(f"$d{index} with lines linewidth 1.6 dashtype {style // 2 % 4 + 1} "
                        f"linecolor rgb \"{COLOURS[style]}\" title {quoted(way)}")
    return Plot(name, title, finish(script, commands))


def bars(name, title, y_label, groups):
    """Stacked bars: GROUPS is {job: {way: {piece: value}}}.

    A job is a panel with a scale of its own, as one may cost ten times the other; a way is a bar.
    """
    groups = {job: {way: pieces for way, pieces in ways.items() if pieces}
              for job, ways in groups.items()}
    groups = {job: ways for job, ways in groups.items() if ways}
    if not groups:
        raise Failure(f"{name}.svg: nothing to draw")
    kinds = list(dict.fromkeys(piece for ways in groups.values() for pieces in ways.values()
                               for piece in pieces))
    script = head(name, title, "", y_label)
    script += ["unset title", f"set multiplot layout 1,{len(groups)} title {quoted(title)}",
               "set style fill solid 1 noborder", "set bmargin 7", "set rmargin 1",
               "set grid noxtics", "set xtics rotate by 40 right",
               "set key at screen 0.5, screen 0.03 center center horizontal"]
    for panel, (job, ways) in enumerate(groups.items()):
        highest = max(sum(pieces.values()) for pieces in ways.values())
        script += [f"set title {quoted(job)}", f"set xrange [-0.7:{len(ways) - 0.3:g}]",
                   f"set yrange [0:{number(highest * 1.08 or 1)}]",
                   tics("x", [(way, place) for place, way in enumerate(ways)])]
        commands = []
        for index, piece in enumerate(kinds):
            rows = []
            for place, pieces in enumerate(ways.values()):
                base = sum(pieces.get(below, 0) for below in kinds[:index])
                rows.append([place, base, place - 0.4, place + 0.4, base,
                             base + pieces.get(piece, 0)])
            script += block(f"d{panel}_{index}", rows)
            commands.append(f"$d{panel}_{index} with boxxyerror title {quoted(piece)} "
                            f"linecolor rgb \"{COLOURS[index % len(COLOURS)]}\"")
        script += ["plot " + ", ".join(commands), "unset key", "unset ylabel"]
    return Plot(name, title, "\n".join([*script, "unset multiplot"]) + "\n")

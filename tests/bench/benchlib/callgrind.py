# SPDX-License-Identifier: BSD-2-Clause
"""Instructions of a request, function by function: runs tests/bench/instructions under callgrind and
reads the two profiles that it dumps, of turns with requests and of turns in vain.

What a turn in vain costs is taken off, as often as there were turns, function by function: what is
left is what the requests cost, and a reactor that polls pays the rest with or without them.
"""
import os
import pathlib
import re
import subprocess
import tempfile

from .machine import Failure

TIMEOUT = 300
# Of what moves data in bulk callgrind counts each step as an instruction: it stands beside the rest.
# Ours is inlined, and known by its file.
COPY = "copy.h"
BULK = re.compile(r"(__)?mem(set|cpy|move)\b|__mem(set|cpy|move)_|copy\.h:")
ZERO = (0, 0)  # instructions, misses of the first-level data cache


def add(one, other, times=1):
    return tuple(a + b * times for a, b in zip(one, other))


class Costs:
    """A profile's costs by function: its own, and with what it calls."""

    def __init__(self, text):
        self.trigger, self.own, self.inclusive = "", {}, {}
        events, function, file, inlined, called = [], None, "", "", False
        for line in text.splitlines():
            if line.startswith("desc: Trigger: "):
                self.trigger = line.rsplit(" ", 1)[-1]
            elif line.startswith("events: "):
                events = line.split()[1:]
            elif line.startswith("fl="):
                file = inlined = os.path.basename(line[3:])
            elif line.startswith(("fi=", "fe=")):
                inlined = os.path.basename(line[3:])
            elif line.startswith("fn="):
                function = f"{file}:{line[3:]}" if file.endswith(".c") else line[3:]
            elif line.startswith("calls="):
                called = True
            elif re.match(r"[+*\d-]", line) and function:
                numbers = dict(zip(events, map(int, line.split()[1:])))
                cost = (numbers.get("Ir", 0), numbers.get("D1mr", 0) + numbers.get("D1mw", 0))
                if not called:
                    owner = f"{COPY}:copy_bulk" if inlined == COPY else function
                    self.own[owner] = add(self.own.get(owner, ZERO), cost)
                self.inclusive[function] = add(self.inclusive.get(function, ZERO), cost)
                called = False


class Profile:
    """What a request costs: instructions, misses, hypercalls, and the costs of each function."""

    def __init__(self, work, vain, counts):
        self.own = self.net(work.own, vain.own, counts)
        self.inclusive = self.net(work.inclusive, vain.inclusive, counts)
        self.instructions = sum(cost[0] for name, cost in self.own.items() if not BULK.match(name))
        self.misses = max(0, sum(cost[1] for cost in self.own.values()))
        self.hypercalls = counts["hypercalls"] / counts["requests"]

    @staticmethod
    def net(work, vain, counts):
        share = counts["turns"] / counts["vain"]
        return {function: tuple(value / counts["requests"]
                                for value in add(work.get(function, ZERO), vain.get(function, ZERO), -share))
                for function in {**work, **vain}}

    def rows(self, most):
        """The functions that take most: name, instructions of their own, with what they call."""
        names = sorted(self.own, key=lambda name: (-self.own[name][0], name))[:most]
        return [[name, round(self.own[name][0], 1), round(self.inclusive.get(name, self.own[name])[0], 1)]
                for name in names if self.own[name][0] >= 0.5]

    @classmethod
    def measure(cls, program, disk, way, depth, pages=1):
        """Runs the program under callgrind, which is slow: some seconds."""
        what = f"{disk} {way} {depth} {pages}"
        with tempfile.TemporaryDirectory(prefix="bench-callgrind-") as folder:
            command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--instr-atstart=no",
                       "--cache-sim=yes", "--compress-strings=no", "--compress-pos=no",
                       f"--callgrind-out-file={folder}/out", str(program), disk, way, str(depth), str(pages)]
            try:
                done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, text=True,
                                      check=False, stdin=subprocess.DEVNULL)
            except (OSError, subprocess.SubprocessError) as error:
                raise Failure(f"instructions of {what}: {error}") from None
            if done.returncode:
                # The program's own word comes before valgrind's many.
                words = done.stderr.strip().splitlines() or ["no word"]
                why = next((word for word in words if word.startswith("instructions: ")), words[-1])
                raise Failure(f"instructions of {what}: {why.removeprefix('instructions: ')}")
            costs = {one.trigger: one for one in
                     (Costs(path.read_text()) for path in pathlib.Path(folder).iterdir())}
        counts = {name: int(value) for name, value in
                  (line.split() for line in done.stdout.splitlines())}
        if not {"work", "vain"} <= costs.keys() or not costs["work"].own:
            raise Failure(f"instructions of {what}: valgrind has left no profiles")
        return cls(costs["work"], costs["vain"], counts)

# SPDX-License-Identifier: BSD-2-Clause
"""What a figure is worth depends on where it was taken: the machine, and the versions of what ran.

Nothing here tells whose machine it was: no host name, no path.  What cannot be found out is left
out, never guessed.
"""
import functools
import os
import pathlib
import re
import shutil
import subprocess

REPO = pathlib.Path(__file__).resolve().parents[3]

# The command that tells a program's version, and the Debian package that brings it.
PROGRAMS = {
    "gcc": ("gcc --version", "gcc"),
    "fio": ("fio --version", "fio"),
    "qemu": ("qemu-system-x86_64 --version", "qemu-system-x86"),
    "valgrind": ("valgrind --version", "valgrind"),
}
PICTURES = {"gnuplot": ("gnuplot --version", "gnuplot-nox")}  # no figure depends on it


class Failure(Exception):
    """What ends a benchmark, in one line that names cause and remedy."""


def need(*programs):
    """Fails, and says what to install, unless all of PROGRAMS are there."""
    for program in programs:
        command, package = {**PROGRAMS, **PICTURES}.get(program, (program, program))
        if not shutil.which(command.split()[0]):
            raise Failure(f"{program} is not installed: apt-get install {package}, "
                          "or tools/deps bench for all that benchmarks need")


def output_of(command):
    """What a command prints, or nothing where it cannot be run."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              stdin=subprocess.DEVNULL, timeout=20, check=True, text=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@functools.cache
def machine():
    """The machine: its processor, cores that may be used, memory, kernel, whether it is virtual."""
    known = {}
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    model = re.search(r"^model name\s*: (.+)$", text, re.M)
    if model:
        known["cpu"] = model.group(1).strip()
    known["cores"] = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    known["memory_gib"] = round(memory / 2**30, 1)
    known["kernel"] = re.match(r"[\d.]*\d|", os.uname().release).group() or os.uname().release
    known["virtual"] = bool(re.search(r"^flags\s*:.*\bhypervisor\b", text, re.M))
    return known


@functools.cache
def versions():
    """Versions of what runs here; a part adds those of what it boots itself."""
    known = {}
    xen = "/sys/hypervisor/version"
    if os.path.exists(f"{xen}/major"):
        known["xen"] = "".join(pathlib.Path(f"{xen}/{piece}").read_text().strip() + dot
                               for piece, dot in (("major", "."), ("minor", ""), ("extra", "")))
    for name, (command, _) in PROGRAMS.items():
        # A version is what looks like one: the words around it differ from program to program.
        text = output_of(command.split())
        found = re.search(r"\d+(\.\d+)+", re.sub(r"\([^)]*\)", "", text))
        if found:
            known[name] = found.group()
    return known


@functools.cache
def commit():
    """The commit that is measured, with -dirty where the sources differ from it.

    Reports of benchmarks are no sources: that a page was made anew changes nothing.
    """
    name = output_of(["git", "-C", str(REPO), "rev-parse", "--short=7", "HEAD"])
    if not name:
        return "unknown"
    changed = output_of(["git", "-C", str(REPO), "status", "--porcelain", "--untracked-files=no",
                         "--", ".", ":!doc"])
    return f"{name}-dirty" if changed else name

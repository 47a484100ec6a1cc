# SPDX-License-Identifier: BSD-2-Clause
"""Scale: what many disks cost, over the hosted double of Xen (tests/bench/scale).

Sluice's own Xen backend, queues and reactors run with real threads and in real time, but there is
no hypervisor: the double's grants and events are cheaper than Xen's.  What is asked here does not
depend on that: how memory and CPU time grow with disks, who gets how much of a reactor, and
whether anything is left when disks have gone.
"""
import os
import subprocess

from .machine import Failure
from .page import compared, table
from .plots import lines
from .results import Results
from .stats import Goal, figure, in_turns, median, of

MEMORY_MAX = 65536
OFF_FAIR_MAX = 0.10
COUNTS = [1, 8, 32, 128]
BASE, MOST = COUNTS[1], COUNTS[-1]
QUEUES = [4, 1]  # as Linux asks for; and as few as there can be
FAIR_SECONDS = 3
DEEP_SECONDS = 2
CPU_SECONDS = 5
TIMES = 1000
TIMEOUT = 120

# All disks at full depth: name, and how it is asked for.  The requests are large, so that it is the
# reactors that have too much to do, and not the one thread that plays all guests.
LARGE = ["--segments", "8"]
FAIR = {
    "null, 4 queues, 1 reactor": LARGE,
    "null, 1 queue, 1 reactor": [*LARGE, "--queues", "1"],
    "ram, 4 queues, 1 reactor": [*LARGE, "--ram"],
    "ram, 4 queues, 2 reactors": [*LARGE, "--ram", "--reactors", "2"],
}
# How many of a machine's processors these keep busy: reactors, and the thread that plays all guests.
BUSY_THREADS = {"ram, 4 queues, 2 reactors": 3}
# What is told of memory, for all disks of a daemon together.
MEMORY = {
    "resident_fresh": "before its first request",
    "resident_busy": "right after all were busy at once",
    "resident_used": "idle since then",
    "allocated_used": "the same, allocated",
}
BUSY = {"alone": 1, f"beside {MOST - 1} idle": MOST}
DEPTHS = [1, 32]


def begin(program, bench, *options):
    """Starts one measurement."""
    # Without caches of threads malloc's own account is exact to the byte.
    env = dict(os.environ, GLIBC_TUNABLES="glibc.malloc.tcache_count=0")
    try:
        return subprocess.Popen([program, bench, *map(str, options)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=env)
    except FileNotFoundError:
        raise Failure(f"{program} is not there: build it first (make)") from None


def end(running):
    """What it measured: {name: number}."""
    try:
        out, errors = running.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
        raise Failure(f"bench-scale does not end within {TIMEOUT} s: {running.args[1:]}") from None
    if running.returncode:
        words = errors.strip().splitlines() or ["it said nothing"]
        raise Failure(f"bench-scale {running.args[1]} failed: {words[-1]}")
    return {name: float(value) for name, value in map(str.split, out.splitlines())}


def measure(program, bench, *options):
    return end(begin(program, bench, *options))


def microseconds(got, name):
    return got[name] / 1000 if name in got else None


def measure_idle(results, program, _rounds):
    """Memory does not vary from round to round, so there is one; nor does what is zero.

    All worlds wait for their idle hours together, as who is idle disturbs nobody.
    """
    running = [(queues, count, begin(program, "idle", "--disks", count, "--queues", queues,
                                     "--seconds", CPU_SECONDS))
               for queues in QUEUES for count in COUNTS]
    try:
        found = {(queues, count): end(one) for queues, count, one in running}
    finally:
        for _, _, one in running:
            with one:
                one.kill()
    for (queues, count), got in found.items():
        results.add(f"idle-cpu-{queues}q", disks(count), 1,
                    {"cpu_us": got["cpu_ns"] / 1000, "passes": got["passes"]})
        for kind in MEMORY:
            results.add(f"memory-{queues}q-{kind.replace('_', '-')}", disks(count), 1,
                        {"bytes": got[kind]})


def measure_busy(results, program, rounds):
    for number in range(1, rounds + 1):
        for depth in DEPTHS:
            for way in in_turns(number, list(BUSY)):
                got = measure(program, "busy", "--disks", BUSY[way], "--depth", depth,
                              "--seconds", 1)
                results.add(f"busy-depth-{depth}", way, number,
                            {"ns": got["ns"], "p50_us": microseconds(got, "p50_ns"),
                             "p99_us": microseconds(got, "p99_ns"),
                             "p99_9_us": microseconds(got, "p99_9_ns")})


def measure_fair(results, program, rounds):
    for number in range(1, rounds + 1):
        for way, options in FAIR.items():
            got = measure(program, "fair", "--disks", MOST, "--seconds", FAIR_SECONDS,
                          *options)
            results.add("fair-128", way, number, {
                "off_fair": got["deviation"], "in_vain": got["looked_in_vain"],
                "iops": got["mean"] * MOST / FAIR_SECONDS,
                "p50_us": microseconds(got, "p50_ns"), "p99_us": microseconds(got, "p99_ns")})
        got = measure(program, "fair", "--disks", MOST, "--seconds", DEEP_SECONDS, "--depth", 1)
        results.add("fair-deep", "127 of depth 1", number, {
            "off_fair": got["deviation"], "iops": got["mean"] / DEEP_SECONDS,
            "p50_us": microseconds(got, "p50_ns"), "p99_us": microseconds(got, "p99_ns")})
        results.add("fair-deep", "1 of depth 128", number, {"iops": got["deep"] / DEEP_SECONDS})


def measure_churn(results, program, _rounds):
    got = measure(program, "churn", "--times", TIMES)
    for way in "attach", "detach":
        results.add("come-and-go", way, 1, {"p50_us": microseconds(got, f"{way}_ns")})
    for way in "before", "meanwhile":
        results.add("come-and-go-busy", way, 1,
                    {f"p{part}_us": microseconds(got, f"busy_{way}_p{part}_ns")
                     for part in ("50", "99", "99_9")})
    results.add("come-and-go", "left over", 1, {"bytes": got["more_allocated"]})
    results.table("left-over", ["after so many", "bytes", "descriptors", "mapped grants",
                                "nodes in xenstore"],
                  [[TIMES] + [int(got[f"more_{what}"])
                              for what in ("allocated", "descriptors", "mapped", "nodes")]])


GROUPS = {"idle": measure_idle, "busy": measure_busy, "fair": measure_fair, "churn": measure_churn}


def run(args):
    results = Results("scale", {"disks": COUNTS, "seconds": CPU_SECONDS, "times": TIMES})
    for name in args.only or GROUPS:
        if name not in GROUPS:
            raise Failure(f"scale has no job '{name}': they are {', '.join(GROUPS)}")
        GROUPS[name](results, args.build / "tests/bench/scale/bench-scale", args.rounds)
    return results


def disks(count):
    return f"{count} disk{'s' * (count > 1)}"


def memory_of_one(results, job):
    """What one disk more takes, or None."""
    few, many = (results.median(job, disks(count), "bytes") for count in (BASE, MOST))
    return None if many is None else (many - few) / (MOST - BASE)


def has_room(results, way):
    """Whether each thread of a way has a processor: else the kernel shares those out, not Sluice."""
    return BUSY_THREADS.get(way, 2) <= results.machine["cores"]


def goals(results):
    found = []
    cpu = [value for queues in QUEUES
           for value in results.values(f"idle-cpu-{queues}q", disks(MOST), "cpu_us")]
    # What is allocated need not be touched, and what was freed need not have gone: the worse counts.
    memory = [memory_of_one(results, f"memory-4q-{kind}-used")
              for kind in ("resident", "allocated")]
    off = [results.median("fair-128", way, "off_fair") for way in results.ways("fair-128")
           if has_room(results, way)]
    if cpu:
        found.append(Goal("scale-idle-cpu", max(cpu), 0, most=True, unit=" us"))
    if None not in memory:
        found.append(Goal("scale-idle-memory", max(memory), MEMORY_MAX, most=True, unit=" B"))
    if off:
        found.append(Goal("scale-fairness-128", max(off), OFF_FAIR_MAX, most=True))
    return found


def not_judged(results):
    """What a goal leaves out, and why."""
    return [f"Of scale-fairness-128 '{way}' is left out, which is "
            f"{figure(results.median('fair-128', way, 'off_fair'))} off: it keeps {BUSY_THREADS[way]} threads busy, for "
            f"which there are {results.machine['cores']} processors."
            for way in results.ways("fair-128") if not has_room(results, way)]


def memory_rows(results):
    rows = []
    for queues in QUEUES:
        for kind, words in MEMORY.items():
            job = f"memory-{queues}q-{kind.replace('_', '-')}"
            totals = [results.median(job, disks(count), "bytes") for count in COUNTS]
            rows.append([queues, words, *[f"{total / 2**20:.2f}" for total in totals],
                         f"**{memory_of_one(results, job) / 1024:.1f}**"])
    return rows


def idle_section(results):
    cpu = max(results.values(f"idle-cpu-{queues}q", disks(MOST), "cpu_us")[0]
              for queues in QUEUES)
    return f"""
### Idle disks

{MOST} idle disks took {figure(cpu)} us of reactors' and control's time in {results.settings['seconds']} s. Memory in MiB is \
what the daemon gives back when it ends while its guests stay; of one disk more, in KiB, what {MOST} disks have over {BASE}, whose reactor \
keeps its first 1 MiB of bounce pages already. Allocated is what malloc() has given out, touched or not. The disks are of null: on a drive of the \
daemon's own each queue has 1 MiB of device memory beside, idle or not.
""" + table(["queues", "", *map(disks, COUNTS), "one disk more"], memory_rows(results))


def busy_section(results):
    rows = []
    for depth in DEPTHS:
        job = f"busy-depth-{depth}"
        for metric, words in (("ns", "ns a request"), ("p50_us", "p50, us"), ("p99_us", "p99, us")):
            rows.append([depth, words] + compared(results, job, list(BUSY), metric, "alone"))
    return """
### One busy disk beside idle ones

4 KiB on null, one queue.
""" + table(["depth", "", *BUSY], rows)


def fair_section(results):
    rows = []
    starred = [way for way in results.ways("fair-128") if not has_room(results, way)]
    note = ("(*) Not judged where there are fewer processors than busy threads: the kernel has shared "
            "those out then.\n" if starred else "")
    for way in results.ways("fair-128"):
        rows.append([f"{way} (*)" if way in starred else way] + [of(results.by_round("fair-128", way, metric).values())
                             for metric in ("off_fair", "in_vain", "iops", "p50_us")])
    deep = [median(results.by_round("fair-deep", way, "iops").values())
            for way in ("1 of depth 128", "127 of depth 1")]
    return f"""
### {MOST} busy disks

All at full depth, requests of 32 KiB; how far the one that is furthest from the mean is off it, as a part of the mean, and what they did \
together. One thread plays all guests: most of its looks at a ring must be in vain, or it is that thread that has shared out.
""" + table(["", "off", "looks in vain", "requests a second", "p50, us"], rows) + f"""
{note}
A disk of depth 128 beside 127 of depth 1, 4 KiB on null: {figure(deep[0])} requests a second, and {figure(deep[1])} each of the others, of which \
the furthest from their mean is {of(results.by_round('fair-deep', '127 of depth 1', 'off_fair').values())} off it; \
a request of theirs takes {of(results.by_round('fair-deep', '127 of depth 1', 'p50_us').values())} us.
"""


def churn_section(results):
    times = results.settings["times"]
    left = results.tables["left-over"]
    busy = [[way] + [of(results.by_round("come-and-go-busy", way, metric).values())
                     for metric in ("p50_us", "p99_us", "p99_9_us")]
            for way in ("before", "meanwhile")]
    return f"""
### Disks that come and go

A disk of 4 queues, {times} times beside a busy one: {of(results.by_round('come-and-go', 'attach', 'p50_us').values())} us to attach, up to Connected, \
and {of(results.by_round('come-and-go', 'detach', 'p50_us').values())} us to detach, of which the double's xenstore and the guest have their part. \
What was left over \
(the busy disk's histogram takes 128 bytes for each power of two of nanoseconds that a request took first meanwhile):
""" + table(left["heads"], left["rows"]) + """
The busy disk's requests, depth 1, in us:
""" + table(["", "p50", "p99", "p99.9"], busy)


def section(results):
    text = """\
Over the hosted double: the daemon's backend, queues and reactors with real threads in real time, but no hypervisor, whose grants and events \
cost more than the double's. So times here tell one disk from many, not what a guest sees; memory and shares are as they are on Xen.
"""
    text += idle_section(results) + busy_section(results) + fair_section(results)
    text += churn_section(results)
    series = {f"{queues} queue{'s' * (queues > 1)}":
              [(count, results.median(f"memory-{queues}q-resident-used", disks(count), "bytes")
                / 2**20) for count in COUNTS]
              for queues in QUEUES}
    plot = lines("scale-memory", "Memory of idle disks", "disks", "MiB", series)
    return f"{text}\n{plot.markdown()}\n", [plot]

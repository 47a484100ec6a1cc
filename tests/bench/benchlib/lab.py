# SPDX-License-Identifier: BSD-2-Clause
"""Lab: the same loads of one unmodified guest on Sluice, blkback and QEMU's xen-block.

All of it is one boot of an emulated machine with real Xen, Debian's kernel, and NVMe drives behind
which nothing takes time.  This file makes the plan, a line a measurement; the scenario `bench`
(lab/scenarios/bench) goes through it; and this file makes results of what came out.  All ways do a
job one after the other, in another order each time, so that a ratio is of one minute.

Latencies come as histograms.  Those of all rounds are added up for percentiles and curves, since
99.9 of 100 needs a hundred thousand requests, which no round has.  A round's own percentiles are
kept as well, where they may be, as the spread.
"""
import collections
import json
import math
import os
import pathlib
import re
import subprocess
import tempfile

from .machine import REPO, Failure, commit
from .page import compared, table
from .plots import bars, cdf
from .results import Results
from .stats import Goal, figure, in_turns, median, ratios, relative_spread

SECONDS = 1
OURS = "auto"  # what a user gets who asks for nothing
OTHERS = ["blkback", "xen-block"]  # what a user would run instead
BEYOND = 100  # requests that are slower than a percentile
ADDS_UP = 0.9  # the part of processors' time that domains' run times must account for

# The guest's disks of each way, as the scenario makes them; and the loads without a guest.
DISKS = {"auto": "abcd", "auto, not persistent": "q", "blkback": "efgh", "xen-block": "ijkl",
         "dma, not persistent": "m", "copy": "n", "uring": "o", "null": "p"}
WORDS = {"auto": "user-space NVMe as sluiced serves it if nothing is asked for but the polling above: the guest's pages are mapped "
         "for the drive and kept, and the guest copies into them and out of them (as it does for "
         "blkback)",
         "auto, not persistent": "the same with persistent=no: small requests are copied, large ones "
         "mapped for their time, and the guest copies nothing",
         "blkback": "the kernel's",
         "xen-block": "QEMU's, backendtype=qdisk; Debian builds it without libaio and io_uring, so "
         "that it goes through dom0's page cache: what it has read once, or been given to write, "
         "costs it no drive",
         "dma, not persistent": "guest's pages mapped for the drive for each request",
         "copy": "user-space NVMe, data copied",
         "uring": "the kernel's drive by io_uring, data copied",
         "null": "no drive at all, guest's pages mapped for the daemon and kept: the most that a ring "
         "can give",
         "dom0": "the kernel's drive in dom0 itself, no guest",
         "driver": "our driver alone in dom0, no guest"}
SERVERS = {"blkback": "blkback_ns", "xen-block": "qemu_ns"}
KICKS = {"blkback": "blkif-backend", "xen-block": "evtchn:xen-qemu"}

BATCH = "--depth 32 --batch 16"
LIBAIO = "--engine libaio --jobs 4 --depth 8 --submit 1"
KINDS = {"randread": "--read 100", "randwrite": "--read 0", "read": "--read 100 --sequential",
         "write": "--read 0 --sequential"}


class Job:
    """A load: blkload's arguments, how many disks it uses, and whether dom0 does it, too."""

    def __init__(self, arguments, disks=1, alone=True, size=4096):
        self.arguments, self.disks, self.alone, self.size = arguments, disks, alone, size


def all_jobs():
    jobs = {}
    for shape, options in (("batch32", BATCH), ("4x8", LIBAIO)):
        for kind, share in KINDS.items():
            jobs[f"4k-{kind}-{shape}"] = Job(f"--block 4k {share} {options}")
    for kind in "randread", "randwrite":
        jobs[f"4k-{kind}-depth1"] = Job(f"--block 4k {KINDS[kind]} --depth 1")
    jobs["4k-mix70-batch32"] = Job(f"--block 4k --read 70 {BATCH}")
    for kind, share in KINDS.items():
        jobs[f"1m-{kind}-4jobs"] = Job(f"--block 1M {share} --jobs 4 --depth 1", size=2**20)
    for disks in 2, 4:
        jobs[f"4k-randread-batch32-{disks}disks"] = Job(f"--block 4k --read 100 {BATCH}",
                                                        disks=disks, alone=False)
    return jobs


JOBS = all_jobs()
# Our driver without anything around it: what drive-load knows.
DRIVER = {"4k-randread-depth1": 1, "4k-randread-batch32": 32}


def ways_of(name):
    job = JOBS[name]
    ways = [way for way, disks in DISKS.items() if len(disks) >= job.disks]
    return ways + ["dom0"] * job.alone + ["driver"] * (name in DRIVER)


def plan(jobs, rounds):
    """The lines that guest and dom0 go through: round, job, way without blanks, arguments."""
    lines = []
    for number in range(1, rounds + 1):
        lines.append(f"{number} idle none")
        for index, name in enumerate(jobs):
            job = JOBS[name]
            for way in in_turns(number + index, ways_of(name)):
                common = f"{job.arguments} --seconds {SECONDS} --seed {number}"
                if way == "driver":
                    common = f"--depth {DRIVER[name]} --seconds {SECONDS}"
                elif way != "dom0":
                    common += "".join(f" /dev/xvd{disk}" for disk in DISKS[way][:job.disks])
                lines.append(f"{number} {name} {token(way)} {common}")
    return lines


def token(way):
    return way.replace(", ", "-").replace(" ", "-")


WAYS = {token(way): way for way in WORDS}


def run(args):
    jobs = args.only or list(JOBS)
    for name in jobs:
        if name not in JOBS:
            raise Failure(f"lab has no job '{name}': they are {', '.join(JOBS)}")
    out = pathlib.Path(os.environ.get("LAB_OUT", REPO / "build/lab")) / "bench"
    commit()  # is what is measured, whatever is committed in the meantime
    with tempfile.TemporaryDirectory() as extra:
        lines = plan(jobs, args.rounds)
        (pathlib.Path(extra) / "plan").write_text("\n".join(lines) + "\n")
        env = dict(os.environ, LAB_EXTRA=extra, BUILD=str(pathlib.Path(args.build).resolve()))
        with subprocess.Popen([REPO / "lab/run", "bench"], env=env) as running:
            try:
                status = running.wait()
            except BaseException:
                running.terminate()  # and not killed: it has a machine to end
                running.wait()
                raise
    if status:
        raise Failure(f"the lab's scenario failed: see {out}")
    return read(out)


def lines_of(path, start=""):
    """The lines of a file that begin with START, without it."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    return [line[len(start):] for line in text.splitlines() if line.startswith(start)]


def objects(path, start=""):
    for line in lines_of(path, start):
        try:
            yield json.loads(line)
        except ValueError:
            raise Failure(f"{path}: a line is no JSON: {line[:60]}") from None


def spent(counters):
    """{(round, job, way): {counter: how much it grew over the load}}, and its wall time in it."""
    grown, begun = {}, {}
    for one in counters:
        kind, _, name = one.pop("at").partition(" ")
        if kind == "begin":
            begun[name] = one
        elif name in begun:
            grown[tuple(name.split())] = {key: value - begun[name][key] for key, value
                                          in one.items() if key != "cpus"} | {"cpus": one["cpus"]}
    return grown


def busy_ns(used):
    """How long processors were not idle."""
    return used["wall_ns"] * used["cpus"] - used["idle_ns"]


def adds_up(used):
    """Whether what domains ran is what processors were not idle, as it should be.  In an emulated
    machine a domain's account now and then lacks much of what it ran."""
    return used["guest_ns"] + used["dom0_ns"] >= ADDS_UP * busy_ns(used)


def costs(way, used, idle, requests):
    """What a load cost a request: values of a sample.  IDLE is what rest costs."""
    values = {}
    wall = used["wall_ns"]

    def a_request(ran, at_rest):
        beyond = ran - (at_rest / idle["wall_ns"] * wall if idle else 0)
        return max(beyond, 0) / 1000 / requests

    domains = ["dom0"] if way == "dom0" else ["dom0", "guest"]
    if adds_up(used):
        for domain in domains:
            name = f"{domain}_ns"
            values[f"{domain}_us"] = a_request(used[name], idle[name] if idle else 0)
    values["run_us"] = a_request(busy_ns(used), busy_ns(idle) if idle else 0)
    values["busy_us"] = busy_ns(used) / 1000 / requests
    if way == "dom0":
        return values
    values["server_us"] = used[SERVERS.get(way, "sluiced_ns")] / 1000 / requests
    if way not in SERVERS:
        values["work_us"] = used["work_ns"] / 1000 / requests
    values["kicks"] = used[KICKS.get(way, "evtchn:sluiced")] / requests
    return values


def points_of(histogram):
    """Points of a histogram, with bounds that are the same for all: 32 to each power of two."""
    for us, count in zip(histogram[::2], histogram[1::2]):
        yield round(2 ** (math.ceil(math.log2(max(us, 0.01)) * 32) / 32), 2), count


def percentile(counts, percent):
    """Of {microseconds: requests}, or None where too few are beyond it."""
    total, seen = sum(counts.values()), 0
    if total * (100 - percent) / 100 < BEYOND:
        return None
    for us in sorted(counts):
        seen += counts[us]
        if seen > total * percent / 100:
            return us
    return None


def curve(counts):
    total, seen, points = sum(counts.values()), 0, []
    for us in sorted(counts):
        seen += counts[us]
        points.append([us, round(seen / total, 6)])
    return points


def read(folder):
    """The results of what the scenario left in FOLDER."""
    results = Results("lab", {"seconds": SECONDS, "controls": OTHERS + ["dom0"],
                              "poll_us": 10000, "scheduler": "none", "unsteady_clock": [],
                              "account_short": []})
    for line in lines_of(folder / "versions"):
        name, _, version = line.partition(" ")
        found = re.search(r"\d+(\.\d+)+[-\w.]*", version)
        results.versions["xen-block (QEMU)" if name == "qemu" else name] = \
            found.group() if found else version
    grown = spent(objects(folder / "counters"))
    idle = {key[0]: value for key, value in grown.items() if key[1] == "idle"}
    merged = collections.defaultdict(collections.Counter)
    measured = [*objects(folder / "guest-guest.log", "@measured "),
                *objects(folder / "dom0-results")]
    for one in measured:
        number, job, short = one["announced"].split()
        way, seconds = WAYS[short], one["seconds"]
        if one.get("clock", "tsc") != "tsc" or not 0.7 < one.get("pace", 1) < 1.3:
            results.settings["unsteady_clock"].append(one["announced"])
            continue
        values = {"iops": one["requests"] / seconds, "p50_us": one.get("p50_us"),
                  "p99_us": one.get("p99_us"), "p99_9_us": one.get("p99_9_us")}
        if JOBS[job].size >= 2**20:
            values["mb_s"] = one["requests"] * JOBS[job].size / 1e6 / seconds
        used = grown.get((number, job, short))
        if used and one["requests"]:
            values |= costs(way, used, idle.get(number), one["requests"])
            if not adds_up(used):
                results.settings["account_short"].append(one["announced"])
        if "interrupts" in one and way != "dom0":
            values["notifications"] = one["interrupts"] / one["requests"]
        results.add(job, way, int(number), values)
        for us, count in points_of(one.get("histogram", [])):
            merged[job, way][us] += count
    rows = []
    for (job, way), counts in merged.items():
        requests = sum(counts.values())
        results.curve(job, way, curve(counts), requests)
        rows.append([job, way, requests,
                     *(percentile(counts, percent) for percent in (50, 99, 99.9))])
    results.table("percentiles", ["job", "way", "requests", "p50_us", "p99_us", "p99_9_us"], rows)
    if not results.samples:
        raise Failure(f"{folder} has no measurements")
    return results


def percentiles(results):
    """{(job, way): {p50_us: ..., p99_us: ..., p99_9_us: ...}} over all rounds."""
    shown = results.tables["percentiles"]
    return {(row[0], row[1]): dict(zip(shown["heads"][3:], row[3:])) for row in shown["rows"]}


def of_best(ours, others, best):
    """How many times the best of the others' our value is, all {round: value}: the median of the
    ratios of rounds that all have.  An other that has none at all was not measured."""
    others = [other for other in others if other]
    if not others:
        return None
    return median(ratios(ours, {number: best(other[number] for other in others) for number in ours
                                if all(number in other for other in others)}))


def wanted_of(name):
    """What a job's rate should be, in those of the better of the others."""
    if name.startswith("1m"):
        return 1.5
    return {"4x8": 1.2, "depth1": 2.0}.get(name.split("-")[2], 1.5)


def goals(results):
    found = []
    merged = percentiles(results)
    for job in (job for job in results.jobs() if job in JOBS):
        wanted = wanted_of(job)
        ours, *others = (results.by_round(job, way, "iops") for way in [OURS, *OTHERS])
        measured = of_best(ours, others, max)
        # In batches it is enough to come close to what one drive gives dom0 itself.
        if "-batch32" in job:
            drive = results.by_round(re.sub("-.disks$", "", job), "dom0", "iops")
            of_drive = median(ratios(ours, drive))
            if measured and of_drive:
                wanted = min(wanted, 0.85 * measured / of_drive)
        found.append(Goal(f"lab-{job}-of-best", measured, wanted))
        found += tail_goal(results, merged, job)
        if "depth1" not in job and "1m" not in job:
            ours, *others = (results.by_round(job, way, "run_us") for way in [OURS, *OTHERS])
            found.append(Goal(f"lab-{job}-run-time-of-least", of_best(ours, others, min), 1.0,
                              most=True))
    return found


def tail_goal(results, merged, job):
    """Our 99th percentile is no worse than the better one, within the spread of its rounds; no goal
    where too few requests tell one of them."""
    ours = merged.get((job, OURS), {}).get("p99_us")
    others = {way: merged.get((job, way), {}).get("p99_us") for way in OTHERS}
    others = {way: value for way, value in others.items() if value}
    if not ours or not others:
        return []
    best = min(others, key=others.get)
    spread = relative_spread(results.by_round(job, best, "p99_us").values())
    return [Goal(f"lab-{job}-p99-of-best", ours / others[best], 1 + spread, most=True)]


def rows_of(results, jobs, ways, metric):
    return [[job, *compared(results, job, ways, metric, "blkback")] for job in jobs]


def section(results):
    jobs = [job for job in results.jobs() if job in JOBS]
    small = [job for job in jobs if JOBS[job].size < 2**20]
    large = [job for job in jobs if job not in small]
    ways = [way for way in WORDS if way in results.ways() and way != "driver"]
    merged = percentiles(results)
    text = [
        "Every way serves an equal namespace of an NVMe drive behind which nothing takes time "
        "(QEMU's null-co), to the same unmodified guest with one processor; dom0 has the other. "
        "Figures of an emulated machine mean nothing by themselves: compare those of one line.", "",
        *conditions(results.settings), "",
        *(f"- **{way}**: {WORDS[way]}" for way in [*ways, "driver"] if way in results.ways()), "",
        "`batch32` are 32 requests in flight, handed over and awaited 16 at a time by io_uring; "
        "`4x8` four processes with 8 each and a system call of libaio for each request; `depth1` "
        "one request at a time; `4jobs` four processes with one each; `mix70` reads for 70 and "
        "writes for 30 of 100; `2disks` and `4disks` as many processes, each with a disk of its "
        "own. What is in order and handed over at once, the guest's kernel may send as one "
        "request. After each measurement the disk is flushed. Multiples are of blkback.", ""]
    if small:
        text += ["### Requests a second", table(["job", *ways],
                                                rows_of(results, small, ways, "iops"))]
    if large:
        text += ["### Megabytes a second", table(["job", *ways],
                                                 rows_of(results, large, ways, "mb_s"))]
    text += ["### Latency", "", "Microseconds of all rounds together: the median, 99 and 99.9 of "
             "100.", table(["job", *ways], [
                 [job, *(" / ".join(figure(merged.get((job, way), {}).get(name))
                                    for name in ("p50_us", "p99_us", "p99_9_us"))
                         for way in ways)] for job in jobs])]
    untold = [job for job in jobs if not tail_goal(results, merged, job)]
    if untold:
        text += ["No goal is told of 99 of 100 where ours, or all others, had fewer than 10,000 "
                 f"requests: {', '.join(untold)}.", ""]
    text += ["### Processor time a request", "",
             "Microseconds of run time, by Xen's account, beyond what rest costs: the guest's + dom0's; "
             "what the server's own was, and of that (for Sluice) what found work, the rest being "
             "polls in vain. Last, how long the machine's two processors were not idle. Of these two "
             "the cost of rest is not subtracted, so that the server's can be more than dom0's.",
             table(["job", *ways], [[job, *(cost_cell(results, job, way) for way in ways)]
                                    for job in jobs])]
    guests = [way for way in ways if way in DISKS]
    text += ["### Notifications a request", "", "Interrupts of the guest / of dom0 by the guest.",
             table(["job", *guests], [[job, *(" / ".join(
                 figure(results.median(job, way, name)) for name in ("notifications", "kicks"))
                 for way in guests)] for job in jobs])]
    driver = [job for job in jobs if results.median(job, "driver", "iops")]
    if driver:
        text += ["### The drivers alone, in dom0", "", "Requests a second without any guest.",
                 table(["job", "the kernel's", "Sluice's"],
                       [[job, *compared(results, job, ["dom0", "driver"], "iops", "dom0")]
                        for job in driver])]
    unsteady = results.settings["unsteady_clock"]
    if unsteady:
        text += ["", f"Not counted are {len(unsteady)} measurements in which the guest's clock and "
                 "the processor's time stamp counter did not agree."]
    short = results.settings.get("account_short")
    if short:
        text += ["", f"Of {len(short)} measurements guest's and dom0's run times are left out: by Xen's account, domains "
                 f"ran less than {ADDS_UP:.0%} of the time in which processors were not idle. Goals are judged by "
                 "the latter, beyond what rest costs, which is what both ran together."]
    plots = pictures(results, jobs)
    for plot in plots:
        text += ["", plot.markdown()]
    return "\n".join(text), plots


def conditions(settings):
    """What is not as it comes, in favour of whom it may be."""
    if settings.get("scheduler"):
        yield ("Disks and drives have the scheduler that Linux gives those with several queues: "
               f"{settings['scheduler']}.")
    yield (f"An idle queue is polled by sluiced for {settings['poll_us'] / 1000:g} ms, and not for 1 "
           "as it comes: all takes some twenty times as long here, a guest's pauses too.")


def cost_cell(results, job, way):
    guest, dom0, server, work, busy = (
        results.median(job, way, name)
        for name in ("guest_us", "dom0_us", "server_us", "work_us", "busy_us"))
    if dom0 is None:
        return "-"
    cell = f"{figure(guest)} + {figure(dom0)}" if guest is not None else figure(dom0)
    if server is not None:
        cell += f"; {figure(server)}" + (f" ({figure(work)})" if work is not None else "")
    return f"{cell}; {figure(busy)}"


def pictures(results, jobs):
    compared_ways = [OURS, "copy", "uring", *OTHERS]
    plots = []
    for job in ("4k-randread-batch32", "4k-randread-4x8", "4k-randread-depth1"):
        curves = {way: results.points(job, way) for way in compared_ways
                  if results.points(job, way)}
        if curves:
            plots.append(cdf(f"lab-cdf-{job}", f"Latency: {job}", curves))
    groups = {}
    for job in ("4k-randread-batch32", "4k-randwrite-batch32", "4k-randread-4x8",
                "4k-randread-depth1"):
        pieces = {way: {"guest": results.median(job, way, "guest_us"),
                        "dom0": results.median(job, way, "dom0_us")} for way in compared_ways}
        groups[job] = {way: piece for way, piece in pieces.items() if None not in piece.values()}
    if any(groups.values()):
        plots.append(bars("lab-cpu", "Run time a request", "microseconds", groups))
    return plots

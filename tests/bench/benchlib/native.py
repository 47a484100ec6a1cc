# SPDX-License-Identifier: BSD-2-Clause
"""How fast is the way of a request itself?  A frontend on one core and sluiced on another, over a
shared segment, without Xen, emulator or drive in between.

What two cores tell each other is bounded by R, the round trip of a cache line between them, and what
one of them copies by memcpy.  Both move on rented machines from minute to minute, by a factor of four
for R.  So nothing is held against what was measured earlier: sluice-perf measures load and limits in
turns, in slices of 50 ms, and it is the ratio within a slice that counts.

What no neighbour moves is the number of instructions: valgrind counts those of the backend alone
(tests/bench/instructions.c), of a request in the middle of many, function by function.
"""
import fnmatch
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from . import plots, stats
from .callgrind import Profile
from .machine import REPO, Failure, need
from .page import bold, table
from .results import Results

LOAD_CPU, BACKEND_CPU = 0, 1
SECONDS = 1  # of a measurement
KIB, MIB = 1 << 10, 1 << 20
QUEUES = 8
FLOOR_NS = 150  # no goal of the way alone, on null, asks for less

DEPTHS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
SIZES = [512, *(KIB << shift for shift in range(11))]
NULL_SIZE, RAM_SIZE, FILE_SIZE = "1T", 256 * MIB, 256 * MIB
SEGMENT = "512M"  # room for 8 queues, depth 256 and 32 MiB of data; what is not touched is not there
RAM_AREA, RAM_WIDE = 16 * MIB, 256 * MIB
COPY_DEPTHS = [2, 8, 32]  # of 1 MiB
ENGINES = {"fio io_uring": "io_uring", "fio libaio": "libaio"}
FILE_LOADS = [("4k", "randread", 1), ("4k", "randread", 32), ("1m", "read", 1), ("1m", "read", 32)]
FIO_PERCENTILES = [1, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99]

# What is counted: bdev, way, depth, pages of a request.
WAYS = ["copy", "map", "persistent", "dma", "dma persistent", "direct"]
COUNTED = [*(("null", way, depth, 1) for way in WAYS for depth in (1, 32)),
           *(("null", way, 8, 32) for way in WAYS),
           *(("ram", way, 32, 1) for way in ("copy", "map", "direct"))]
COUNTED_FUNCTIONS = 12
SHOWN_FUNCTIONS = [("null", "copy", 32, 1), ("null", "dma persistent", 32, 1), ("null", "direct", 32, 1)]


def size_name(size):
    """4096 as 4k, as it is typed."""
    for unit, letter in ((MIB, "m"), (KIB, "k")):
        if size >= unit:
            return f"{size // unit}{letter}"
    return str(size)


def size_of(name):
    return int(name[:-1]) * {"k": KIB, "m": MIB}[name[-1]] if name[-1] in "km" else int(name)


class Job:
    """What sluice-perf is to do; the ratios that come of it are to R, and with a footprint to
    memcpy."""

    def __init__(self, name, disk, block, rw, depth, queues=1, area=None, footprint=None):
        self.name, self.disk, self.block, self.rw, self.depth = name, disk, block, rw, depth
        self.queues, self.area, self.footprint = queues, area, footprint

    def words(self):
        words = ["--bs", self.block, "--rw", self.rw, "--depth", self.depth, "--queues", self.queues]
        if self.area:
            words += ["--area", self.area]
        if self.footprint:
            words += ["--footprint", self.footprint]
        return words


def load_jobs():
    """Jobs on null and ram, in the order in which they are measured."""
    jobs = [Job(f"null-4k-randread-depth-{depth}", "null", 4096, "randread", depth) for depth in DEPTHS]
    jobs += [Job(f"null-{size_name(size)}-randread-depth-32", "null", size, "randread", 32)
             for size in SIZES if size != 4096]
    jobs += [Job(f"null-4k-randread-depth-32-queues-{queues}", "null", 4096, "randread", 32, queues)
             for queues in (2, 4, QUEUES)]
    jobs += [Job(f"null-4k-randwrite-depth-{depth}", "null", 4096, "randwrite", depth)
             for depth in (1, 32, 128)]
    jobs += [Job(f"ram-4k-randread-depth-{depth}", "ram", 4096, "randread", depth, area=RAM_AREA)
             for depth in DEPTHS]
    jobs += [Job("ram-4k-randwrite-depth-32", "ram", 4096, "randwrite", 32, area=RAM_AREA),
             Job("ram-4k-randread-depth-32-wide", "ram", 4096, "randread", 32, area=RAM_WIDE)]
    jobs += [Job(f"ram-1m-read-depth-{depth}", "ram", MIB, "read", depth, area=depth * MIB,
                 footprint=2 * depth * MIB) for depth in COPY_DEPTHS]
    jobs += [Job(f"ram-{size_name(size)}-read-depth-32", "ram", size, "read", 32, area=32 * size,
                 footprint=64 * size) for size in (4 * KIB, 64 * KIB, 256 * KIB)]
    return jobs


def file_job(block, rw, depth):
    return f"file-{block}-{rw}-depth-{depth}"


def counted_job(disk, depth, pages):
    return f"instructions-{disk}-{size_name(pages * 4 * KIB)}-depth-{depth}"


def pick(names, wanted):
    """Those of NAMES that are wanted: by name, by how they begin (null), or by a pattern."""
    if not wanted:
        return set(names)
    picked = set()
    for want in wanted:
        found = {want} & set(names) or {name for name in names if name.startswith(f"{want}-")
                                        or fnmatch.fnmatchcase(name, want)}
        if not found:
            raise Failure(f"no job '{want}': they are {', '.join(names)}; what they begin with and "
                          "patterns will do, too")
        picked |= found
    return picked


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def call(command, timeout=120, **options):
    """What a program prints; its last complaint where it fails."""
    command = [str(word) for word in command]
    name = os.path.basename(command[0])
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, text=True, check=False,
                              stdin=subprocess.DEVNULL, **options)
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}: build first (make)") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(command)}: not done after {timeout} s") from None
    if done.returncode:
        why = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
        raise Failure(f"{name}: {why[-1].removeprefix(f'{name}: ')}")
    return done.stdout


class Daemon:
    """A sluiced of one's own on one core, with a worker a disk."""

    def __init__(self, build):
        self.build = build
        self.folder = tempfile.mkdtemp(prefix="bench-native-")
        self.socket = f"{self.folder}/rpc.sock"
        self.process = None

    def __enter__(self):
        try:
            with open(f"{self.folder}/log", "w", encoding="utf-8") as log:
                self.process = subprocess.Popen(
                    [str(self.build / "src/sluiced/sluiced"), "--name", os.path.basename(self.folder),
                     "--socket", self.socket, "--state", f"{self.folder}/state.json",
                     "--cpumask", f"{1 << BACKEND_CPU:x}", "--backend", "none"], stderr=log)
            self.wait_for(self.socket)
        except OSError as error:
            shutil.rmtree(self.folder)
            raise Failure(f"sluiced: {error.strerror}: build first (make)") from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_for(self, path):
        for _ in range(200):
            if os.path.exists(path):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        lines = pathlib.Path(f"{self.folder}/log").read_text().strip().splitlines() or ["no word"]
        raise Failure(f"sluiced does not serve: {lines[-1]}")

    def tell(self, *words):
        call([self.build / "src/sluice/sluice", "--socket", self.socket, *words])

    def add(self, name, *bdev):
        """A disk NAME, and the socket at which it is to be had."""
        self.tell("bdev", "create", bdev[0], name, *bdev[1:])
        self.tell("sivshm", "create", name, name, "--socket", self.worker(name), "--queues", QUEUES,
                  "--segment", SEGMENT)
        self.wait_for(self.worker(name))

    def worker(self, name):
        return f"{self.folder}/{name}.sock"

    def perf(self, name, *words):
        return json.loads(call([self.build / "src/perf/sluice-perf", "--json", "--socket",
                                self.worker(name), "--cpumask", f"{1 << LOAD_CPU:x}", *words]))

    def cpu_seconds(self):
        """Of all its threads, while they live."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        pathlib.Path(f"/run/sluice/{os.path.basename(self.folder)}.lock").unlink(missing_ok=True)
        shutil.rmtree(self.folder)


def latencies(got):
    return {f"{name}_us": got[name] / 1e3 if got[name] is not None else None
            for name in ("p50", "p99", "p99_9")}


def note_curve(results, job, way, points, requests):
    """Of the last round: one distribution is as good as another, and one is enough to look at."""
    if points:
        results.curve(job, way, points, requests)


# Load against limits

def measure_job(results, daemon, job, number):
    got = daemon.perf(job.disk, *job.words(), "--time", SECONDS, "--limits", BACKEND_CPU, "--cdf")
    kind, limits = got["write" if "write" in job.rw else "read"], got["limits"]
    if not kind["requests"] or kind["errors"]:
        raise Failure(f"{job.name}: {kind['requests']} requests, {kind['errors']} of them failed")
    ns = limits["request_ns"]
    values = {"ns": ns, "iops": 1e9 / ns, "mb_s": job.block * 1e3 / ns, "ratio_r": limits["ratio"],
              "of_memcpy": limits.get("of_copy"), **latencies(kind["latency_ns"])}
    results.add(job.name, "sluice", number, values)
    results.add(job.name, "R", number, {"ns": limits["round_trip_ns"]})
    if job.footprint:
        results.add(job.name, "memcpy", number, {"mb_s": limits["copy_bytes_per_second"] / 1e6})
    note_curve(results, job.name, "sluice",
               [[ns / 1e3, fraction] for ns, fraction in kind["latency_ns"]["cdf"]], kind["requests"])


def measure_jobs(results, build, jobs, rounds):
    with Daemon(build) as daemon:
        daemon.add("null", "null", "--size", NULL_SIZE)
        daemon.add("ram", "ram", "--size", RAM_SIZE)
        # Reads of what was never written would all bring the kernel's one page of zeroes.
        daemon.perf("ram", "--rw", "write", "--bs", "1M", "--depth", "8", "--size", RAM_SIZE)
        for number in range(1, rounds + 1):
            say(f"load and limits: round {number} of {rounds}")
            for job in jobs:
                measure_job(results, daemon, job, number)


# The same file by io_uring and libaio

def file_place(build):
    """Where the file is, and how large: in memory if there is room, and it can be read past the page
    cache there; else beside the build."""
    for folder, kind in (("/dev/shm", "tmpfs"), (str(build), "disk")):
        try:
            handle, path = tempfile.mkstemp(prefix="bench-native-", dir=folder)
        except OSError:
            continue
        try:
            os.posix_fallocate(handle, 0, FILE_SIZE)
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
            return path, kind
        except OSError:
            os.unlink(path)
        finally:
            os.close(handle)
    raise Failure(f"no file of {FILE_SIZE // MIB} MiB can be made, and read with O_DIRECT, in /dev/shm "
                  f"or {build}: make room, or build where one can")


def measure_file_sluice(results, daemon, load, number):
    block, rw, depth = load
    before = daemon.cpu_seconds()
    got = daemon.perf("file", "--bs", block, "--rw", rw, "--depth", depth, "--time", SECONDS, "--cdf")
    server = daemon.cpu_seconds() - before
    read = got["read"]
    if not read["requests"] or read["errors"]:
        raise Failure(f"{file_job(*load)}: {read['errors']} requests failed")
    results.add(file_job(*load), "sluice", number,
                {"iops": read["iops"], "mb_s": read["bytes_per_second"] / 1e6,
                 "ns": 1e9 / read["iops"], "server_us": server * 1e6 / read["requests"],
                 "cpu_us": (server + got["cpu_seconds"]) * 1e6 / read["requests"],
                 **latencies(read["latency_ns"])})
    note_curve(results, file_job(*load), "sluice",
               [[ns / 1e3, fraction] for ns, fraction in read["latency_ns"]["cdf"]], read["requests"])


def fio(path, engine, *words):
    """What fio found, and the processor time that it and the kernel's workers for it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    got = json.loads(call(
        ["fio", "--name=bench", f"--filename={path}", f"--ioengine={engine}", "--direct=1",
         f"--cpus_allowed={BACKEND_CPU}", "--output-format=json", "--clat_percentiles=0",
         "--lat_percentiles=1",  # with what submitting takes: libaio reads memory there
         "--percentile_list=" + ":".join(str(percent) for percent in FIO_PERCENTILES), *words]))["jobs"][0]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return got, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_file_fio(results, path, load, way, number):
    block, rw, depth = load
    engine = ENGINES[way]
    # One request tells what it takes to begin and to end.
    _, around = fio(path, engine, f"--bs={block}", "--number_ios=1")
    got, cpu = fio(path, engine, f"--bs={block}", f"--rw={rw}", f"--iodepth={depth}",
                   f"--runtime={SECONDS}", "--time_based")
    cpu = max(cpu - around, 0)
    read = got["read"]
    if got["error"] or not read["total_ios"]:
        raise Failure(f"{file_job(*load)}: fio read nothing by {ENGINES[way]} (error {got['error']})")
    points = {float(percent): ns / 1e3 for percent, ns in read["lat_ns"]["percentile"].items()
              if read["total_ios"] * (1 - float(percent) / 100) >= 100}
    results.add(file_job(*load), way, number,
                {"iops": read["iops"], "mb_s": read["bw_bytes"] / 1e6, "ns": 1e9 / read["iops"],
                 "cpu_us": cpu * 1e6 / read["total_ios"], "p50_us": points.get(50.0),
                 "p99_us": points.get(99.0), "p99_9_us": points.get(99.9)})
    note_curve(results, file_job(*load), way,
               [[us, percent / 100] for percent, us in sorted(points.items())], read["total_ios"])


def measure_files(results, build, loads, rounds):
    path, kind = file_place(build)
    results.settings["file"] = kind
    try:
        with open(path, "r+b") as out:
            for _ in range(FILE_SIZE // MIB):
                out.write(os.urandom(MIB))
            os.fsync(out.fileno())  # nobody else writes while it is read
        with Daemon(build) as daemon:
            daemon.add("file", "uring", path)
            for number in range(1, rounds + 1):
                say(f"the same file, on {kind}: round {number} of {rounds}")
                for load in loads:
                    for way in stats.in_turns(number, ["sluice", *ENGINES]):
                        if way == "sluice":
                            measure_file_sluice(results, daemon, load, number)
                        else:
                            measure_file_fio(results, path, load, way, number)
    finally:
        os.unlink(path)


# Instructions

def measure_instructions(results, build, counted):
    say("instructions")
    call(["ninja", "-C", build, "tests/bench/instructions"], timeout=600)
    for disk, way, depth, pages in counted:
        profile = Profile.measure(build / "tests/bench/instructions", disk, way, depth, pages)
        job = counted_job(disk, depth, pages)
        results.add(job, way, 1, {"instructions": profile.instructions, "hypercalls": profile.hypercalls,
                                  "d1_misses": profile.misses})
        results.table(f"functions {job} {way}", ["function", "instructions", "with what it calls"],
                      profile.rows(COUNTED_FUNCTIONS))


def run(args):
    build = pathlib.Path(args.build).resolve()
    if not {LOAD_CPU, BACKEND_CPU} <= os.sched_getaffinity(0):
        raise Failure(f"cores {LOAD_CPU} and {BACKEND_CPU} are needed: run where both may be used")
    jobs = load_jobs()
    picked = pick([job.name for job in jobs] + [file_job(*load) for load in FILE_LOADS]
                  + list(dict.fromkeys(counted_job(disk, *size) for disk, _, *size in COUNTED)), args.only)
    jobs = [job for job in jobs if job.name in picked]
    loads = [load for load in FILE_LOADS if file_job(*load) in picked]
    counted = [one for one in COUNTED if counted_job(one[0], *one[2:]) in picked]
    if loads:
        need("fio")
    if counted:
        need("valgrind")
    results = Results("native", {"rounds": args.rounds, "seconds": SECONDS, "load_cpu": LOAD_CPU,
                                 "backend_cpu": BACKEND_CPU, "buildtype": buildtype(build),
                                 "controls": ["R", "memcpy", *ENGINES]})
    # First, as what takes no rounds loses none if it fails.
    if counted:
        measure_instructions(results, build, counted)
    if jobs:
        measure_jobs(results, build, jobs, args.rounds)
    if loads:
        measure_files(results, build, loads, args.rounds)
    return results


def buildtype(build):
    try:
        options = json.loads((build / "meson-info/intro-buildoptions.json").read_text())
    except (OSError, ValueError):
        return "unknown"
    return next((one["value"] for one in options if one["name"] == "buildtype"), "unknown")


# Goals

LIMITS_OF_R = [("native-null-depth-1-of-r", "null-4k-randread-depth-1", 3.5),
               ("native-null-depth-32-of-r", "null-4k-randread-depth-32", 1.05),
               ("native-null-depth-128-of-r", "null-4k-randread-depth-128", 0.85),
               ("native-ram-4k-depth-32-of-r", "ram-4k-randread-depth-32", 1.75)]
COPY_JOB = "ram-1m-read-depth-8"


def goals(results):
    """On null nothing is asked to take less than FLOOR_NS: where lines are fast, processors are the
    limit."""
    found = []
    for name, job, most in LIMITS_OF_R:
        r_ns = results.median(job, "R", "ns")
        wanted = max(most, FLOOR_NS / r_ns) if r_ns and job.startswith("null-") else most
        found.append(stats.Goal(name, results.median(job, "sluice", "ratio_r"), wanted, most=True))
    found.append(stats.Goal("native-ram-1m-of-memcpy", results.median(COPY_JOB, "sluice", "of_memcpy"),
                            0.9))
    return [goal for goal in found if goal.measured is not None]


# The report

SECTION_TEXT = """\
sluice-perf on core {}, sluiced on core {}; each figure from {} s in slices of 50 ms, between which R, the round trip of a
cache line between the two cores, was measured. No goal asks a request of null to take less than {} ns: where the two cores
share a cache R is small, and the processor is the limit."""

DEPTH_TEXT = """\
Random reads of 4 KiB, one queue. Null clears what is read and does nothing else: that is the way alone. Ram reads from an
area of 16 MiB."""

QUEUES_TEXT = """\
Each of depth 32, all on the same two cores: one thread takes turns over them on each side."""

COPY_TEXT = """\
Ram against memcpy. A read copies from the area into the request's pages in the segment, on the backend's core. Area and
pages are equally large here, and memcpy copies blocks of the same size from one half of the same footprint to the other, on
the same core, in turns with the load. What is left out of memcpy is to bring the data to the frontend's core, and out of the
load, too: it does not look at the data."""

FILE_TEXT = """\
A file of {} MiB on {}, past the page cache: by sluice-perf through a segment and sluiced's uring bdev (two cores, both
polling), and by fio (one core, its own io_uring or libaio). What a guest pays for having a backend is the difference. CPU is
all processor time a request, sluiced's own beside it. On tmpfs a worker of the kernel's reads for io_uring, the submitting
call itself for libaio."""

INSTRUCTIONS_TEXT = """\
Of the backend's data path for a read, counted by callgrind: from ring to device and back, beyond what a pass in vain costs.
Over the double of Xen's libraries, whose own work is not counted, only how often it was called (hypercalls); `direct` is a
segment. What null clears and ram copies is not in the sums, since callgrind counts each step of it as an instruction. Misses
are those of a first-level data cache as callgrind simulates it."""

def cell(results, job, way, metric):
    return stats.of(results.by_round(job, way, metric).values())


def load_row(results, job, label):
    latency = [stats.figure(results.median(job, "sluice", metric))
               for metric in ("p50_us", "p99_us", "p99_9_us")]
    return [label, cell(results, job, "sluice", "iops"), cell(results, job, "sluice", "ns"),
            cell(results, job, "R", "ns"), bold(results.median(job, "sluice", "ratio_r")), *latency]


LOAD_HEADS = ["requests a second", "ns a request", "R, ns", "of R", "p50, us", "p99", "p99.9"]


def load_table(results, first, rows):
    rows = [load_row(results, job, label) for job, label in rows if job in results.jobs()]
    return [table([first, *LOAD_HEADS], rows)] if rows else []


def over(results, jobs, metric):
    """Points of a line: [x, median, least, greatest]."""
    points = []
    for x, job in jobs:
        values = results.by_round(job, "sluice", metric).values()
        if values:
            points.append((x, stats.median(values), *stats.spread(values)))
    return points


def depth_jobs(disk):
    return [(depth, f"{disk}-4k-randread-depth-{depth}") for depth in DEPTHS]


def show_depths(results, pictures):
    lines = {disk: over(results, depth_jobs(disk), "iops") for disk in ("null", "ram")}
    of_r = {disk: over(results, depth_jobs(disk), "ratio_r") for disk in ("null", "ram")}
    text = []
    if any(lines.values()):
        pictures.append(plots.lines("native-depth", "4 KiB random reads over depth", "depth",
                                    "requests a second", lines))
        pictures.append(plots.lines("native-of-r", "Time a request over depth, in round trips R", "depth",
                                    "R", of_r, log_y=True))
        text += ["### Depth", "", DEPTH_TEXT, "",
                 *(picture.markdown() for picture in pictures[-2:])]
    for disk in "null", "ram":
        text += load_table(results, f"{disk}, depth", [(job, depth) for depth, job in depth_jobs(disk)])
    text += load_table(results, "", [
        ("ram-4k-randread-depth-32-wide", f"ram, area of {RAM_WIDE // MIB} MiB, depth 32"),
        ("ram-4k-randwrite-depth-32", "ram, random writes, depth 32"),
        *((f"null-4k-randwrite-depth-{depth}", f"null, random writes, depth {depth}")
          for depth in (1, 32, 128))])
    return text


def show_curves(results, pictures):
    curves = {f"{disk}, depth {depth}": results.points(f"{disk}-4k-randread-depth-{depth}", "sluice")
              for disk in ("null", "ram") for depth in (1, 32)}
    curves = {way: points for way, points in curves.items() if points}
    if not curves:
        return []
    pictures.append(plots.cdf("native-latency", "Latency of 4 KiB random reads, load generator's part "
                              "included", curves))
    return [pictures[-1].markdown(), ""]


def show_queues(results, pictures):
    jobs = [(1, "null-4k-randread-depth-32"), *((queues, f"null-4k-randread-depth-32-queues-{queues}")
                                                for queues in (2, 4, QUEUES))]
    rows = load_table(results, "null, queues", [(job, queues) for queues, job in jobs])
    if len([job for _, job in jobs if job in results.jobs()]) < 2:
        return []
    return ["### Queues", "", QUEUES_TEXT, *rows]


def show_sizes(results, pictures):
    jobs = [(size, f"null-{size_name(size)}-randread-depth-32") for size in SIZES]
    copied = [(size, f"ram-{size_name(size)}-read-depth-32") for size in (4 * KIB, 64 * KIB, 256 * KIB, MIB)]
    text = load_table(results, "null, bytes", [(job, size_name(size)) for size, job in jobs])
    rows = []
    for job in dict.fromkeys([job for _, job in copied[:-1]]
                             + [f"ram-1m-read-depth-{depth}" for depth in COPY_DEPTHS]):
        if job not in results.jobs():
            continue
        size, depth = size_of(job.split("-")[1]), int(job.split("-")[-1])
        rows.append([size_name(size), depth, f"{size_name(2 * depth * size)}",
                     cell(results, job, "sluice", "mb_s"), cell(results, job, "memcpy", "mb_s"),
                     bold(results.median(job, "sluice", "of_memcpy"))])
    series = {"null": over(results, jobs, "mb_s"), "ram": over(results, copied, "mb_s"),
              "memcpy": [(size, results.median(job, "memcpy", "mb_s")) for size, job in copied
                         if results.median(job, "memcpy", "mb_s")]}
    if any(series.values()):
        pictures.append(plots.lines("native-size", "MB/s over bytes of a request, depth 32",
                                    "bytes of a request", "MB/s", series, log_y=True))
        text = ["### Size", "", pictures[-1].markdown(), *text]
    if rows:
        text += [COPY_TEXT,
                 table(["bytes", "depth", "footprint", "ram, MB/s", "memcpy, MB/s", "of memcpy"], rows)]
    return text


def show_files(results, pictures):
    ways = ["sluice", *ENGINES]
    rows, curves = [], {}
    for load in FILE_LOADS:
        job = file_job(*load)
        if job not in results.jobs():
            continue
        for way in ways:
            ratio = None if way == "sluice" else results.ratio(job, "sluice", way, "iops")
            rows.append([job.removeprefix("file-"), way, cell(results, job, way, "iops"),
                         cell(results, job, way, "mb_s"), bold(ratio),
                         *(stats.figure(results.median(job, way, metric))
                           for metric in ("p50_us", "p99_us", "p99_9_us", "cpu_us", "server_us"))])
    for way in ways:
        points = results.points("file-4k-randread-depth-1", way)
        if points:
            curves[way] = points
    if not rows:
        return []
    if curves:
        pictures.append(plots.cdf("native-file", "Latency of 4 KiB random reads of a file, depth 1", curves))
    return ["### A file", "",
            FILE_TEXT.format(FILE_SIZE // MIB, results.settings.get("file")),
            table(["load", "way", "requests a second", "MB/s", "sluice to it", "p50, us", "p99", "p99.9",
                   "CPU, us", "sluiced's"], rows),
            *([pictures[-1].markdown(), ""] if curves else [])]


def show_instructions(results, _):
    rows = []
    for disk, way, depth, pages in COUNTED:
        job = counted_job(disk, depth, pages)
        if results.median(job, way, "instructions") is None:
            continue
        rows.append([size_name(pages * 4 * KIB), disk, way, depth, *(stats.figure(results.median(job, way, metric))
                                         for metric in ("instructions", "hypercalls", "d1_misses"))])
    if not rows:
        return []
    text = ["### Instructions", "",
            INSTRUCTIONS_TEXT,
            table(["bytes", "bdev", "way", "depth", "instructions", "hypercalls", "cache misses"], rows)]
    for disk, way, depth, pages in SHOWN_FUNCTIONS:
        found = results.tables.get(f"functions {counted_job(disk, depth, pages)} {way}")
        if found:
            text += [f"Where they are: {disk}, {way}, depth {depth}, 4 KiB.",
                     table(found["heads"], [[f"`{name}`", *map(stats.figure, numbers)]
                                            for name, *numbers in found["rows"]])]
    return text


def section(results):
    """The part's section of the report, and its pictures."""
    pictures = []
    known = results.settings
    text = [SECTION_TEXT.format(known["load_cpu"], known["backend_cpu"], known["seconds"], FLOOR_NS), ""]
    for show in (show_depths, show_curves, show_queues, show_sizes, show_files, show_instructions):
        text += show(results, pictures)
    return "\n".join(text), pictures

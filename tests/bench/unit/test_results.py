# SPDX-License-Identifier: BSD-2-Clause
"""The raw file: what is written can be read, and what is wrong in one is said in a line."""
import json
import pathlib
import tempfile
import unittest

from . import made_up
from benchlib import machine, results
from benchlib.machine import Failure


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def small(self):
        run = results.Results("native", {"rounds": 2})
        run.add("4k", "null", 1, {"iops": 10.5, "p99_us": None})
        run.add("4k", "null", 1, {"iops": 12.5})
        run.add("4k", "null", 2, {"iops": 30})
        run.add("4k", "ram", 2, {"iops": 15})
        run.curve("4k", "null", [[1, 0.5], [2, 0.75], [3, 1]])
        run.table("functions", ["name", "instructions"], [["f", 3]])
        return run

    def test_what_was_written_is_read(self):
        run = self.small()
        path = run.save(self.folder / "new")
        self.assertEqual(path.name, "native.json")
        self.assertEqual(vars(results.Results.load(path)), vars(run))
        self.assertEqual([one.name for one in path.parent.iterdir()], ["native.json"])

    def test_values(self):
        run = self.small()
        self.assertEqual(run.values("4k", "null", "iops"), [10.5, 12.5, 30])
        self.assertEqual(run.by_round("4k", "null", "iops"), {1: 11.5, 2: 30})
        self.assertEqual(run.median("4k", "null", "iops"), 20.75)
        self.assertIsNone(run.median("4k", "null", "p99_us"))
        self.assertEqual(run.ratio("4k", "null", "ram", "iops"), 2)
        self.assertIsNone(run.ratio("4k", "null", "uring", "iops"))
        self.assertEqual((run.jobs(), run.ways(), run.rounds()), (["4k"], ["null", "ram"], 2))
        self.assertEqual(run.points("4k", "null"), [[1, 0.5], [2, 0.75]])
        self.assertIsNone(run.points("4k", "ram"))

    def test_wrong_samples_are_refused(self):
        run = self.small()
        for job, way, number, values, why in (
                ("", "null", 1, {}, "job is a name"), ("4k", "a|b", 1, {}, "way is a name"),
                ("4k", "null", 0, {}, "rounds count from 1"), ("4k", "null", True, {}, "rounds"),
                ("4k", "null", 1, {"speed": 1}, "no metric 'speed'"),
                ("4k", "null", 1, {"iops": "7"}, "no number"),
                ("4k", "null", 1, {"iops": float("nan")}, "no number")):
            with self.assertRaisesRegex(Failure, why):
                run.add(job, way, number, values)
        for points in ([], [[1, 0.5], [0.5, 0.6]], [[1, 0.5], [2, 0.4]], [[1, 1.5]], [[1]]):
            with self.assertRaises(Failure):
                run.curve("4k", "null", points)
        self.assertEqual(len(run.samples), 4)

    def test_wrong_files_are_told_in_a_line(self):
        path = self.small().save(self.folder)
        good = json.loads(path.read_text())
        cases = [("no JSON", "{"), ("format 1", "[]"),
                 ("format 1", json.dumps({**good, "format": 2})),
                 ("part is one of", json.dumps({**good, "part": "moon"})),
                 ("no 'machine'", json.dumps({**good, "machine": None})),
                 ("no metric 'x'", json.dumps({**good, "samples": [
                     {"job": "a", "way": "b", "round": 1, "v": {"x": 1}}]})),
                 ("curve a|b: no points", json.dumps({**good, "curves": {"a|b": []}})),
                 ("table t has no heads", json.dumps({**good, "tables": {"t": {"rows": []}}}))]
        for why, text in cases:
            path.write_text(text)
            with self.assertRaises(Failure) as caught:
                results.Results.load(path)
            self.assertIn(why, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))
        with self.assertRaisesRegex(Failure, "No such file"):
            results.Results.load(self.folder / "none.json")

    def test_a_folder_holds_parts(self):
        with self.assertRaisesRegex(Failure, "has no results"):
            results.find(self.folder)
        made_up.results(1, rounds=1).save(self.folder)
        self.small().save(self.folder)
        self.assertEqual(sorted(results.find(self.folder)), ["lab", "native"])
        self.assertEqual(list(results.find(self.folder / "lab.json")), ["lab"])

    def test_a_file_that_cannot_be_written(self):
        (self.folder / "file").write_text("")
        with self.assertRaisesRegex(Failure, "file"):
            self.small().save(self.folder / "file")


class Machine(unittest.TestCase):
    def test_no_machine_is_told_by_name(self):
        known = json.dumps([machine.machine(), machine.versions()])
        self.assertNotIn(machine.os.uname().nodename, known)
        self.assertNotIn("/", known)

    def test_what_is_missing_is_told_with_its_package(self):
        machine.need("gnuplot")
        machine.PROGRAMS["moon"] = ("moon-phase --version", "moon-tools")
        self.addCleanup(machine.PROGRAMS.pop, "moon")
        with self.assertRaisesRegex(Failure, "moon is not installed: apt-get install moon-tools"):
            machine.need("gnuplot", "moon")

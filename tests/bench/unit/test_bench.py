# SPDX-License-Identifier: BSD-2-Clause
"""The command: what it prints, and where results go."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

from . import made_up
from benchlib.machine import REPO


class Command(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def bench(self, *words):
        """Status, what was printed, what was complained of."""
        done = subprocess.run([sys.executable, REPO / "tests/bench/bench", *map(str, words)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False)
        return done.returncode, done.stdout, done.stderr

    def test_compare(self):
        made_up.results(1).save(self.folder / "a")
        made_up.results(2, faster={("job-2", "dma"): 4}).save(self.folder / "b")
        status, text, _ = self.bench("compare", self.folder / "a", self.folder / "b/lab.json")
        self.assertEqual(status, 0)
        self.assertIn("0 worse, 3 better", text)
        self.assertNotIn("job-7", text)
        status, text, _ = self.bench("compare", "--all", self.folder / "a", self.folder / "b")
        self.assertIn("job-7", text)

    def test_what_is_wrong_is_told_in_a_line(self):
        (self.folder / "lab.json").write_text("{}")
        for words, why in ((("compare", self.folder, self.folder), "no results of format"),
                           (("compare", self.folder / "none", self.folder), "No such file"),
                           (("report", "--out", self.folder / "none"), "measure first"),
                           (("native", "--rounds", "0"), "--rounds is at least 1"),
                           (("lab", "--only", "tea"), "no job 'tea'"),
                           (("scale", "--only", "tea"), "no job 'tea'")):
            status, text, complaint = self.bench(*words)
            self.assertEqual((status, text), (1, ""), words)
            self.assertRegex(complaint, r"^bench: [^\n]+\n$")
            self.assertIn(why, complaint)

    def test_who_stops_reading_hears_no_complaint(self):
        made_up.results(1).save(self.folder)
        command = [sys.executable, REPO / "tests/bench/bench", "compare", "--all",
                   self.folder, self.folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
            reader.stdout.close()
            self.assertEqual(reader.stderr.read(), b"")

# SPDX-License-Identifier: BSD-2-Clause
"""The page and its pictures: the same figures make the same files, and what people wrote stays."""
import pathlib
import tempfile
import unittest
import xml.etree.ElementTree

from . import made_up
from benchlib import page, plots
from benchlib.machine import Failure
from benchlib.stats import Goal

CURVE = made_up.CURVE


class Part:
    """A part as the page sees it."""

    @staticmethod
    def goals(got):
        return [Goal("lab-much", got.median("job-1", "dma", "iops"), 1),
                Goal("lab-more", 1, 2)]

    @staticmethod
    def section(got):
        picture = plots.lines("lab-lines", "Lines", "jobs", "requests a second",
                              {"dma": [(1, 5), (2, 6)]})
        rows = [[job, *page.compared(got, job, ["blkback", "dma"], "iops", "blkback")]
                for job in got.jobs()]
        return page.table(["job", "blkback", "dma"], rows) + "\n" + picture.markdown(), [picture]


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)


class Pages(Folder):
    def make(self, part=Part):
        return page.make(self.folder, lambda name: part)

    def text(self):
        return (self.folder / "README.md").read_text()

    def test_all_is_there(self):
        made_up.results(1).save(self.folder)
        goals = self.make()
        self.assertEqual([goal.met for goal in goals], [True, False])
        text = self.text()
        for piece in ("1 of 2 goals are met.", "Missed:\n\n| goal | measured | wanted |\n| --- "
                      "| --- | --- |\n| lab-more | 1 | >=2 |\n", "| lab-much | 1505 | >=1 |",
                      "- native: not measured.", "commit", "(lab.json)", "## " + page.HEADS["lab"],
                      "![Lines](lab-lines.svg)", "(lab.json)", page.KEEP,
                      "- `iops`: requests a second, /s; more is better"):
            self.assertIn(piece, text)
        self.assertIn("| job-1 | 1479 (1464 to 1592) | 1505 (1390 to 1560) **0.97** |", text)
        self.assertNotIn("## " + page.HEADS["native"], text)
        self.assertTrue((self.folder / "lab-lines.svg").exists())

    def test_what_is_not_judged_stands_below_the_goals(self):
        class Choosy(Part):
            @staticmethod
            def not_judged(_results):
                return ["Of lab-much 'odd' is left out."]

        made_up.results(1).save(self.folder)
        self.make(Choosy)
        goals, _, rest = self.text().partition("Of lab-much 'odd' is left out.\n")
        self.assertIn("of 2 goals are met.", goals)
        self.assertIn("## " + page.HEADS["lab"], rest)

    def test_what_people_wrote_stays_and_what_is_old_goes(self):
        made_up.results(1).save(self.folder)
        self.make()
        first = self.text()
        (self.folder / "README.md").write_text(first + "\n## By hand\n\nIt is so.\n")
        (self.folder / "lab-old.svg").write_text("old")
        (self.folder / "else.svg").write_text("another's")
        self.make()
        self.assertEqual(self.text(), first + "\n## By hand\n\nIt is so.\n")
        self.assertEqual(sorted(path.name for path in self.folder.glob("*.svg")),
                         ["else.svg", "lab-lines.svg"])

    def test_what_lacks_is_told(self):
        with self.assertRaisesRegex(Failure, "measure first"):
            self.make()
        made_up.results(1).save(self.folder)

        class Wanting(Part):
            @staticmethod
            def goals(got):
                return [got.settings["seconds"]]

        with self.assertRaisesRegex(Failure, "lab.json lacks .*'seconds'"):
            self.make(Wanting)

    def test_machines_are_told_apart(self):
        run = made_up.results(1)
        one, other = {"lab": run}, {"lab": run, "scale": made_up.results(1)}
        other["scale"].machine = {**run.machine, "cpu": "another one"}
        self.assertIn(f"On {run.machine['cpu']}, ", page.frame(one))
        self.assertNotIn("several machines", page.frame(one))
        self.assertIn("- scale: another one, ", page.frame(other))

    def test_headings_have_their_anchors(self):
        self.assertEqual(page.anchor("Scale: many disks, over it"), "scale-many-disks-over-it")

    def test_cells_do_not_break_tables(self):
        self.assertIn("| a\\|b | 1 |", page.table(["x", "y"], [["a|b", 1]]))


class Pictures(Folder):
    def picture(self, plot):
        """Renders twice; the same both times, and XML of a fixed size."""
        texts = []
        for _ in range(2):
            plot.render(self.folder)
            texts.append((self.folder / f"{plot.name}.svg").read_text())
        self.assertEqual(*texts)
        root = xml.etree.ElementTree.fromstring(texts[0])
        self.assertEqual((root.get("width"), root.get("height")),
                         (str(plots.WIDTH), str(plots.HEIGHT)))
        return texts[0]

    def setUp(self):
        super().setUp()
        plots.start_section()

    def test_lines(self):
        text = self.picture(plots.lines(
            "native-a", 'A "title"', "depth", "requests a second",
            {"null_1": [(1, 1e6, 9e5, 2e6), (256, 3e6, 2e6, 4e6)], "none": [], "ram": [(1, 5e5)]}))
        for piece in ('A "title"', "null_1", "ram", "256", "millions of requests a second"):
            self.assertTrue(f">{piece}<" in text, piece)
        self.assertFalse(">none<" in text)
        self.assertTrue("rgb(  0, 114, 178)" in text and "rgb(213,  94,   0)" in text)

    def test_logarithms_leave_out_nothing_but_zero(self):
        plot = plots.lines("native-g", "", "", "", {"null": [(1, 0), (2, 0.3), (4, 40)]}, log_y=True)
        self.assertNotIn("\n1 0\n", plot.script)
        self.assertIn('"0.5" 0.5, "1" 1, "2" 2, "5" 5, "10" 10, "20" 20', plot.script)
        self.picture(plot)
        wide = plots.lines("native-g", "", "", "", {"null": [(1, 0.3), (4, 1e5)]}, log_y=True)
        self.assertIn('"1" 1, "10" 10, "100" 100', wide.script)

    def test_cdf_is_without_the_last(self):
        text = self.picture(plots.cdf("lab-b", "Latency", {"dma": CURVE, "gone": [[5, 1]]}))
        for piece in "dma", "99.9", "microseconds":
            self.assertTrue(piece in text, piece)
        self.assertFalse("gone" in text or ">5000<" in text)

    def test_bars_are_stacked(self):
        plot = plots.bars("lab-c", "Time", "microseconds", {"one": {
            "dma": {"guest": 10.0, "dom0": 20.0}, "copy": {"dom0": 5.0}, "none": {}}, "two": {}})
        self.assertIn("0 10 -0.4 0.4 10 30", plot.script)
        self.assertIn("1 0 0.6 1.4 0 5", plot.script)
        self.assertEqual(plot.script.count("\nplot "), 1)
        text = self.picture(plot)
        for piece in "dma", "copy", "guest", "dom0", "one":
            self.assertTrue(f">{piece}<" in text, piece)

    def test_ways_keep_their_colours(self):
        plots.lines("lab-d", "", "", "", {"a": [(1, 1)], "b": [(1, 1)]})
        colour = plots.COLOURS[1]
        self.assertIn(colour, plots.cdf("lab-e", "", {"b": CURVE}).script)
        plots.start_section()
        self.assertNotIn(colour, plots.cdf("lab-e", "", {"b": CURVE}).script)

    def test_nothing_to_draw(self):
        for draw in (lambda: plots.lines("a", "", "", "", {"x": []}),
                     lambda: plots.cdf("a", "", {}),
                     lambda: plots.bars("a", "", "", {"x": {}})):
            with self.assertRaisesRegex(Failure, "nothing to draw"):
                draw()

    def test_gnuplots_complaint_is_passed_on(self):
        with self.assertRaisesRegex(Failure, "gnuplot, for lab-f.svg: .+"):
            plots.Plot("lab-f", "", "plot nonsense(\n").render(self.folder)
        self.assertFalse((self.folder / "lab-f.svg").exists())

# SPDX-License-Identifier: BSD-2-Clause
"""`ebb bench trackers --quick`: its JSON is whole and holds what must be true whatever the
machine does meanwhile. No time is compared with anything."""
import json
import os
import sys
import tempfile

import e2e

TRACES = os.path.abspath(os.path.join(e2e.HERE, "..", "..", "lab", "traces"))
TRACKERS = ["rotation", "membrane", "boundary", "bitmap"]
SHAPES = ["unreported", "head", "mixed", "shuffled"]
PATHS = ["pair0", "pair1", "alloc0", "free0", "pair9", "alloc9", "free9"]


class Bench(e2e.Case):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory(prefix="ebb-e2e-bench-")
        cls.addClassCleanup(cls.dir.cleanup)
        cls.path = os.path.join(cls.dir.name, "bench.json")
        run = e2e.Run("bench", "trackers", "--quick", "--json", cls.path, "--traces", TRACES)
        try:
            run.wait(600)
            cls.rc, cls.what = run.rc, run.describe()
            cls.left, cls.out, cls.err = run.leftovers(), run.out, run.err
        finally:
            run.close()
        if cls.rc == 0:
            with open(cls.path) as f:
                cls.json = json.load(f)

    def setUp(self):
        self.assertEqual(self.rc, 0, self.what)

    def rows(self):
        return self.json["trackers"] + self.json["policies"]

    def passes(self, row):
        return {(p["shape"], p["gib"]): p for p in row["passes"]}

    def assert_samples(self, samples):
        self.assertLessEqual(samples["min"], samples["median"])
        self.assertLessEqual(samples["median"], samples["max"])

    def test_whole(self):
        self.assertEqual(self.left, {})
        self.assertEqual([row["name"] for row in self.json["trackers"]], TRACKERS)
        self.assertEqual([row["default"] for row in self.json["trackers"]],
                         [True, False, False, False])
        self.assertEqual(self.json["verdict"]["default"], "rotation")
        self.assertTrue(self.json["quick"])
        for name in TRACKERS + [row["name"] for row in self.json["policies"]]:
            self.assertIn(name, self.out)

    def test_paths(self):
        for row in self.json["trackers"]:
            for path in PATHS:
                for mode in ("off", "idle", "busy"):
                    cell = row["paths"][path][mode]
                    self.assert_samples(cell["ns"])
                    self.assertGreater(cell["ns"]["min"], 0)

    def test_instructions(self):
        counted = self.json["instructions"]
        if counted["method"] is None:
            self.assertTrue(counted["why_not"])
            self.skipTest("instructions were not counted: " + counted["why_not"])
        if counted["method"].startswith("ptrace"):
            self.assertTrue(counted["deterministic"])
            self.assertTrue(counted["linear"])
        for row in self.json["trackers"]:
            for path in PATHS:
                cell = row["paths"][path]
                for mode in ("off", "idle", "busy"):
                    self.assertGreater(cell[mode]["instructions"], 20)
                    self.assertLess(cell[mode]["instructions"], 100000)
        # What every free of a frame costs, of the default: a promise.
        self.assertLessEqual(self.json["verdict"]["idle_percent"],
                             self.json["verdict"]["idle_limit_percent"])
        self.assertLessEqual(self.json["verdict"]["flat_instructions"], 1.1)

    def test_passes(self):
        for row in self.json["trackers"] + [self.json["naive"]]:
            passes = self.passes(row)
            self.assertEqual(set(passes), {(shape, gib) for shape in SHAPES for gib in (1, 4)})
            for (shape, gib), one in passes.items():
                self.assertEqual(one["blocks"], gib * 512)
                self.assertEqual(one["reported"], {"unreported": gib * 512, "mixed": gib * 256}
                                 .get(shape, 64))
                self.assertGreaterEqual(one["looked_per_block"], 0.9)
                self.assert_samples(one["ns_per_block"])
                self.assert_samples(one["worst_hold_ns"])
                # 64 steps, and a batch of 32.
                self.assertLessEqual(one["worst_hold_blocks"], 96)
        self.assertTrue(self.json["verdict"]["hold_bounded"])

    def test_growth(self):
        """In blocks looked at, which are counted: what is flat and what is not."""
        def grows(row, shape):
            passes = self.passes(row)
            return (passes[shape, 4]["looked_per_block"]
                    / passes[shape, 1]["looked_per_block"])

        by_name = {row["name"]: row for row in self.json["trackers"]}
        for shape in ("unreported", "head", "mixed"):
            self.assertLess(grows(by_name["rotation"], shape), 1.1)
        for name in ("membrane", "bitmap"):
            for shape in SHAPES:
                self.assertLess(grows(by_name[name], shape), 1.1)
        self.assertGreater(grows(by_name["rotation"], "shuffled"), 3)
        self.assertGreater(grows(by_name["boundary"], "head"), 3)
        self.assertGreater(grows(self.json["naive"], "mixed"), 3)

    def test_memory(self):
        for row in self.json["trackers"]:
            self.assertLessEqual(row["memory"]["bytes_per_frame"], 16)
            self.assertLessEqual(row["memory"]["tracker_resident"], 65536)

    def test_loads(self):
        for row in self.rows() + [self.json["off"]]:
            loads = [row["load"]] + row["traces"]
            for load in loads:
                self.assertFalse(load["damaged"])
                self.assert_samples(load["resident_mib"])
        for row in self.json["trackers"]:
            self.assertEqual([load["trace"] for load in row["traces"]], ["phases"])
            self.assertGreater(row["load"]["batches"]["min"], 0)
        self.assertEqual(self.json["off"]["load"]["refaulted_mib"]["max"], 0)
        self.assertEqual(self.json["off"]["load"]["batches"]["max"], 0)

    def test_saved(self):
        """Tables come from the file alone."""
        again = self.ebb("bench", "trackers", "--from", self.path)
        self.assertEqual(again.out, self.out)
        table = self.ebb("bench", "trackers", "--from", self.path, "--markdown").out
        self.assertIn("| --:|".replace(" ", ""), table.replace(" ", ""))
        self.assertIn("### Memory", table)

    def test_wrong_options(self):
        self.assert_says(self.ebb("bench", rc=2), "Usage: ebb bench")
        self.assert_says(self.ebb("bench", "nothing", rc=2), "no benchmark 'nothing'")
        self.assert_says(self.ebb("bench", "trackers", "stray", rc=2), "what is 'stray'?")
        self.assert_says(self.ebb("bench", "trackers", "--from", "/dev/null", rc=4), "no result")
        self.assert_says(self.ebb("bench", "trackers", "--plot", "/nowhere", rc=4), "no directory")
        self.assert_says(self.ebb("bench", "trackers", "--quick", "--traces", "/nowhere", rc=4),
                         "/nowhere")
        self.assertIn("trackers", self.ebb("bench", "--help").out)
        self.assertIn("--quick", self.ebb("bench", "trackers", "--help").out)


if __name__ == "__main__":
    sys.exit(e2e.main())

# SPDX-License-Identifier: BSD-2-Clause
"""`ebb bench trackers --quick` and `ebb bench alloc --quick`: their JSON is whole and holds what
must be true whatever the machine does meanwhile. No time is compared with another."""
import json
import os
import shutil
import sys
import tempfile

import e2e

TRACES = os.path.abspath(os.path.join(e2e.HERE, "..", "..", "lab", "traces"))
TRACKERS = ["rotation", "membrane", "boundary", "bitmap", "sorted"]
SHAPES = ["unreported", "head", "mixed", "shuffled"]
PATHS = ["pair0", "pair1", "alloc0", "free0", "pair9", "alloc9", "free9"]
PAIRED = ["a", "b1_alloc", "b1_free", "c1"]  # measured with an idle engine, too
CASES = ["a", "a2", "b1_alloc", "b1_free", "b2_alloc", "b2_free", "b2_many", "c1", "c2_alloc", "c2_free", "d"]


class Benchmark(e2e.Case):
    """Runs once for all tests of a class."""
    ARGS = ()

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory(prefix="ebb-e2e-bench-")
        cls.addClassCleanup(cls.dir.cleanup)
        cls.path = os.path.join(cls.dir.name, "bench.json")
        run = e2e.Run("bench", *cls.ARGS, "--quick", "--json", cls.path)
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

    def assert_samples(self, samples):
        self.assertLessEqual(samples["min"], samples["median"])
        self.assertLessEqual(samples["median"], samples["max"])


class Trackers(Benchmark):
    ARGS = ("trackers", "--traces", TRACES)

    def rows(self):
        return self.json["trackers"] + self.json["policies"]

    def passes(self, row):
        return {(p["shape"], p["gib"]): p for p in row["passes"]}

    def test_whole(self):
        self.assertEqual(self.left, {})
        self.assertEqual([row["name"] for row in self.json["trackers"]], TRACKERS)
        self.assertEqual([row["default"] for row in self.json["trackers"]],
                         [True, False, False, False, False])
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
        self.assert_says(self.ebb("bench", "trackers", "stray", rc=2), "unexpected argument 'stray'")
        self.assert_says(self.ebb("bench", "trackers", "--from", "/dev/null", rc=4), "no result")
        self.assert_says(self.ebb("bench", "trackers", "--plot", "/nowhere", rc=4), "no directory")
        self.assert_says(self.ebb("bench", "trackers", "--quick", "--traces", "/nowhere", rc=4),
                         "/nowhere")
        self.assertIn("trackers", self.ebb("bench", "--help").out)
        self.assertIn("--quick", self.ebb("bench", "trackers", "--help").out)


class Alloc(Benchmark):
    ARGS = ("alloc",)

    def cases(self):
        return {(one["threads"], one["case"]): one for one in self.json["cases"]}

    def threads(self):
        return range(1, len(self.json["cpus"]) + 1)

    def test_whole(self):
        self.assertEqual(self.left, {})
        self.assertEqual(self.json["benchmark"], "alloc")
        self.assertTrue(self.json["quick"])
        self.assertGreaterEqual(self.json["rounds"], 5)
        self.assertEqual(len(set(self.json["cpus"])), min(2, len(os.sched_getaffinity(0))))
        self.assertTrue(self.json["all_reported"])
        expected = {(threads, case) for threads in self.threads() for case in CASES}
        if 2 in self.threads():
            expected.add((2, "b3_free"))
        self.assertEqual(set(self.cases()), expected)
        self.assertEqual(len(self.json["cases"]), len(expected))
        for one in self.json["cases"]:
            self.assertEqual(one["gib"], 1)
            self.assertIn(one["text"], self.out)

    def test_times(self):
        for (threads, case), one in self.cases().items():
            self.assert_samples(one["ns"])
            # More than a few instructions, less than a second.
            self.assertGreater(one["ns"]["min"], 0.5, case)
            self.assertLess(one["ns"]["median"], 1e9, case)
            self.assertEqual(one["idle_ns"] is not None, case in PAIRED, case)
            if case in PAIRED:
                self.assert_samples(one["idle_ns"])
                self.assert_samples(one["idle_over_off"])
            self.assertEqual(one["two_over_one"] is not None, threads == 2 and case != "b3_free")
        for figure in ("cmpxchg_ns", "pair_loop_ns", "mix_loop_ns"):
            self.assert_samples(self.json["calibration"][figure])
            self.assertGreater(self.json["calibration"][figure]["min"], 0)

    def test_nothing_refused(self):
        """An allocation must succeed if a block is free; and half of the memory always is."""
        failures = self.json["failures"]
        self.assertGreater(failures["operations"], 10000000)
        self.assertEqual(failures["refused"], 0)
        self.assertLess(failures["none_free"], failures["operations"] / 1000)

    def test_memory(self):
        (memory,) = self.json["memory"]
        self.assertEqual(memory["gib"], 1)
        self.assertLessEqual(memory["bytes_per_frame"], 16)
        self.assertAlmostEqual(memory["bytes_per_frame"], memory["metadata_bytes"] / 2**18, 3)
        for figure in ("init_us_per_gib", "init_fresh_us_per_gib"):
            self.assert_samples(memory[figure])
            self.assertGreater(memory[figure]["min"], 0)

    def test_whole_blocks(self):
        """Exact with one thread: the seeds are fixed, and so is all else."""
        by_threads = {one["threads"]: one for one in self.json["whole_blocks"]}
        self.assertEqual(set(by_threads), set(self.threads()))
        for one in by_threads.values():
            for figure in ("mixed_percent", "thinned_percent"):
                self.assert_samples(one[figure])
                self.assertGreater(one[figure]["min"], 1)
                self.assertLess(one[figure]["max"], 100)
        for figure in ("mixed_percent", "thinned_percent"):
            self.assertEqual(by_threads[1][figure]["min"], by_threads[1][figure]["max"])

    def test_quiet(self):
        sections = self.json["sections"]
        # Of 9 workloads 3 are run with an idle engine, too; b3 with two threads, and calibration
        # with one.
        kept = self.json["rounds"] * 12 * len(self.threads())
        self.assertEqual(sections["measured"] - sections["discarded"], kept)
        self.assertLessEqual(sections["noisy"], kept)

    def test_verdict(self):
        bars = {one["what"]: one for one in self.json["verdict"]}
        self.assertEqual({one["bar"] for one in bars.values()}, {"P8", "P9", "P10", ""})
        self.assertTrue(bars["metadata, 1 GiB, per frame"]["met"])
        self.assertTrue(bars["allocations refused although a block was free"]["met"])
        self.assertIn("a QUICK run cannot say", self.out)
        for one in bars.values():
            if one["value"] is not None:
                self.assertEqual(one["met"], one["value"] <= one["most"])

    def test_saved(self):
        """Tables come from the file alone."""
        self.assertEqual(self.ebb("bench", "alloc", "--from", self.path).out, self.out)
        table = self.ebb("bench", "alloc", "--from", self.path, "--markdown").out
        self.assertIn("| --:|".replace(" ", ""), table.replace(" ", ""))
        self.assertIn("### 1 GiB, one thread", table)

    def test_picture(self):
        if not shutil.which("gnuplot"):
            self.skipTest("gnuplot is not installed: the picture was NOT drawn")
        self.ebb("bench", "alloc", "--from", self.path, "--plot", self.dir.name)
        with open(os.path.join(self.dir.name, "alloc.svg")) as f:
            picture = f.read()
        self.assertIn("one thread", picture)
        self.assertTrue(picture.rstrip().endswith("</svg>"))

    def test_one_cpu(self):
        """Two threads on one CPU would measure the scheduler; that is said, not done."""
        cpu = min(os.sched_getaffinity(0))
        path = os.path.join(self.dir.name, "one.json")
        run = self.ebb("bench", "alloc", "--quick", "--json", path, preexec=lambda:
                       os.sched_setaffinity(0, {cpu}))
        self.assertIn("NOTHING is measured with two threads", run.err)
        with open(path) as f:
            one = json.load(f)
        self.assertEqual(one["cpus"], [cpu])
        self.assertEqual({case["threads"] for case in one["cases"]}, {1})
        self.assertIn("NOT MEASURED", run.out)

    def test_wrong_options(self):
        self.assert_says(self.ebb("bench", "alloc", "stray", rc=2), "unexpected argument 'stray'")
        self.assert_says(self.ebb("bench", "alloc", "--traces", "x", rc=2), "--traces")
        self.assert_says(self.ebb("bench", "alloc", "--from", "/dev/null", rc=4), "no result")
        self.assert_says(self.ebb("bench", "trackers", "--from", self.path, rc=4),
                         "no result of ebb bench trackers")
        self.assert_says(self.ebb("bench", "alloc", "--plot", "/nowhere", rc=4), "no directory")
        self.assert_says(self.ebb("bench", "alloc", "--json", "/nowhere/x", rc=4), "/nowhere/x")
        self.assertIn("alloc", self.ebb("bench", "--help").out)
        self.assertIn("--quick", self.ebb("bench", "alloc", "--help").out)


if __name__ == "__main__":
    sys.exit(e2e.main())

# SPDX-License-Identifier: BSD-2-Clause
"""`ebb replay` with the small trace of lab/traces. Needs neither QEMU nor a guest."""
import os
import random
import shutil
import sys
import time

import e2e

LAB = os.path.join(e2e.HERE, "..", "..", "lab")
SHIPPED = os.path.abspath(os.path.join(LAB, "traces", "phases.trace.zst"))
sys.dont_write_bytecode = True
sys.path.insert(0, LAB)
import make_trace  # noqa: E402

FRAMES_PER_MIB = 256
PINNED_MIB = (make_trace.RAM - make_trace.FREE) / FRAMES_PER_MIB


class Replay(e2e.Case):
    @classmethod
    def setUpClass(cls):
        cls.made = make_trace.make()
        cls.plain = make_trace.encode(cls.made)
        with open(SHIPPED, "rb") as f:
            cls.packed = f.read()

    def write(self, run_dir, data):
        path = os.path.join(run_dir, "test.trace")
        with open(path, "wb") as f:
            f.write(data)
        return path

    def replay(self, *args, rc=0, trace=SHIPPED, json=True, **keywords):
        run = self.start("replay", trace, *args, *(["--json", "result.json"] if json else []),
                         **keywords).wait()
        self.assertEqual(run.rc, rc, run.describe())
        self.assert_clean(run)
        return run

    def refused(self, data, *texts):
        """Contents that are no trace: exit status 2, and why."""
        path = self.write(self.temporary(), data)
        run = self.replay(rc=2, trace=path)
        self.assert_says(run, "ebb: " + path, *texts)
        self.assert_no_json(run)

    def temporary(self):
        directory = e2e.tempfile.mkdtemp(prefix="ebb-e2e-")
        self.addCleanup(shutil.rmtree, directory)
        return directory

    def live_mib(self):
        """What the trace itself has, by its maker: the average, and the most."""
        live = area = peak = last = 0
        for us, _, op, order, *_ in self.made.records:
            area += live * (us - last)
            live += (1 if op == make_trace.ALLOC else -1) << order
            peak = max(peak, live)
            last = us
        return area / last / FRAMES_PER_MIB, peak / FRAMES_PER_MIB

    def check_samples(self, result, n=2000):
        samples = result["samples"]
        self.assertEqual(len(samples), n)
        self.assertTrue(all(a[0] <= b[0] for a, b in zip(samples, samples[1:])))
        for ms, live, *resident in samples:
            for mib in resident:
                # The floor; two digits are rounded.
                self.assertTrue(mib is None or mib >= live - 0.01, ms)
        for column, run in ((2, "with_reporting"), (3, "without_reporting")):
            if result[run]:
                mean = sum(row[column] for row in samples) / n
                self.assertAlmostEqual(mean, result[run]["resident_mib"], delta=0.02)

    def test_result(self):
        result = self.replay("--speed", "max", "--settle").json()
        mean, peak = self.live_mib()
        records = self.made.records
        allocs = sum(1 for r in records if r[2] == make_trace.ALLOC)
        parts = sum(1 for r in records if r[2] == make_trace.FREE_PART)
        frames = sum(1 << r[3] for r in records if r[2] == make_trace.ALLOC)
        self.assertGreater(parts, 100)
        want = {"status": "ok", "workload": "phases", "trace": SHIPPED, "speed": None,
                "settle": True, "records": len(records), "blocks": allocs, "part_frees": parts,
                "memory_mib": make_trace.RAM / FRAMES_PER_MIB, "pinned_mib": PINNED_MIB,
                "tracker": "sorted", "settings": {}}
        self.assertEqual({key: result[key] for key in want}, want)
        self.assertAlmostEqual(result["duration_ms"], records[-1][0] / 1000, delta=0.1)
        self.assertAlmostEqual(result["live_mib"], mean, delta=0.01)
        self.assertAlmostEqual(result["live_peak_mib"], peak, delta=0.01)
        self.check_samples(result)
        reporting, ceiling = result["with_reporting"], result["without_reporting"]
        for run in (reporting, ceiling):
            self.assertEqual(run["verify_errors"], 0)
            self.assertEqual(run["refused_frees"], 0)
            self.assertIsNone(run["broken_invariant"])
            self.assertEqual(run["failed_allocs"], 0)
            self.assertEqual(run["allocs"], allocs)
            self.assertEqual(run["verify_checks"], frames + make_trace.RAM - make_trace.FREE)
            self.assertGreater(run["records_per_s"], 0)
        # The trace pauses long enough for all to be reported, and takes it again.
        self.assertGreater(reporting["refaulted_mib"], peak)
        self.assertGreater(reporting["reported_mib"], peak)
        self.assertEqual(reporting["failed_reports"], 0)
        self.assertGreater(reporting["punches"], 0)
        self.assertGreater(reporting["page_faults"], ceiling["page_faults"])
        self.assertIsNotNone(reporting["settle_ms"])
        self.assertLess(reporting["resident_mib"], 0.7 * ceiling["resident_mib"])
        self.assertLess(reporting["resident_settled_mib"], 0.2 * ceiling["resident_end_mib"])
        self.assertNotIn("reports", ceiling)

    def test_in_words(self):
        run = self.replay("--speed", "max", "--settle", json=False)
        for text in ("phases: 14176 records of 18.3 s", "live in the trace", "records per second",
                     "page faults", "used again", " 0 found damaged", "Reporting\nbrought "):
            self.assertIn(text, run.out)
        self.assertEqual(run.err, "")
        self.assertEqual(self.replay("--speed", "max", "--quiet", json=False).out, "")

    def test_paced(self):
        result = self.replay("--speed", "50", "--set", "report.pacing=delay", "--set",
                             "report.delay_ms=200", "--set", "report.tracker=bitmap").json()
        self.assertEqual(result["speed"], 50)
        self.assertEqual(result["tracker"], "bitmap")
        self.assertEqual(result["settings"],
                         {"report.pacing": "delay", "report.delay_ms": "200",
                          "report.tracker": "bitmap"})
        self.assertEqual(result["with_reporting"]["engine_delay_ms"], 4)
        self.assertGreaterEqual(result["with_reporting"]["wall_ms"], result["duration_ms"] / 50)
        self.assertEqual(result["with_reporting"]["verify_errors"], 0)
        self.check_samples(result)

    def test_short_delay_lowers_the_default_speed(self):
        result = self.replay("--set", "report.pacing=delay", "--set", "report.delay_ms=15",
                             "--reporting", "on").json()
        self.assertEqual(result["speed"], 15)
        self.assertEqual(result["with_reporting"]["engine_delay_ms"], 1)

    def test_one_run(self):
        for choice, there, absent in (("on", "with_reporting", "without_reporting"),
                                      ("off", "without_reporting", "with_reporting")):
            run = self.replay("--speed", "max", "--reporting", choice)
            result = run.json()
            self.assertEqual(result[there]["verify_errors"], 0)
            self.assertIsNone(result[absent])
            self.check_samples(result)
            self.assertNotIn("brought", run.out)

    def test_plain(self):
        """The maker makes what is shipped."""
        path = self.write(self.temporary(), self.plain)
        plain = self.replay("--speed", "max", "--reporting", "off", trace=path).json()
        packed = self.replay("--speed", "max", "--reporting", "off").json()
        for key in ("workload", "records", "blocks", "part_frees", "duration_ms", "live_mib",
                    "live_peak_mib", "memory_mib", "pinned_mib"):
            self.assertEqual(plain[key], packed[key], key)
        self.assertEqual([row[:2] for row in plain["samples"]],
                         [row[:2] for row in packed["samples"]])

    # ---- what can be wrong ----

    def test_cut_short(self):
        rng = random.Random(e2e.SEED)
        for data in (self.plain, self.packed):
            for _ in range(3):
                at = rng.randrange(64, len(data))
                with self.subTest(of=len(data), at=at):
                    self.refused(data[:at], "cut short")

    def test_damaged(self):
        self.refused(b"", "does not begin with PFT1")
        self.refused(b"ELF" * 100, "does not begin with PFT1")
        self.refused(b"PFT2" + self.plain[4:], "another version")
        self.refused(self.plain + b"\0", "goes on behind")
        self.refused(self.packed + b"more", "compressed data is damaged")
        bad = bytearray(self.plain)
        bad[64 + 16 * 7 + 8] = 9
        self.refused(bytes(bad), "record 8 of 14176", "no operation 9")

    def test_unreadable(self):
        run = self.replay(rc=4, trace="/nonexistent/x.trace")
        self.assert_says(run, "/nonexistent/x.trace", "No such file")
        self.assert_says(self.replay(rc=4, trace="/"), "directory")

    def test_wrong_options(self):
        for args, text in (
                ([], "which trace?"), ([SHIPPED, SHIPPED], "one trace at a time"),
                ([SHIPPED, "--speed", "0"], "--speed"), ([SHIPPED, "--speed", "x"], "--speed"),
                ([SHIPPED, "--speed", "101"], "50 is the most"),
                ([SHIPPED, "--speed", "30", "--set", "report.pacing=delay", "--set", "report.delay_ms=20"],
                 "20 is the most"),
                ([SHIPPED, "--settle"], "--speed max"),
                ([SHIPPED, "--memory", "65G"], "--memory"), ([SHIPPED, "--memory", "x"], "--memory"),
                ([SHIPPED, "--reporting", "maybe"], "--reporting"),
                ([SHIPPED, "--plot", "x.pdf"], "--plot"),
                ([SHIPPED, "--set", "delay_ms=1"], "report.KEY=VALUE"),
                ([SHIPPED, "--set", "report.delay_ms"], "report.KEY=VALUE"),
                ([SHIPPED, "--set", "report.nonsense=1"], "no setting 'report.nonsense'"),
                ([SHIPPED, "--set", "report.tracker=radar"], "not 'radar'"),
                ([SHIPPED, "--set", "report.delay_ms=x"], "not 'x'"),
                ([SHIPPED, "--set", "report.capacity=100000"], "--set"),
                ([SHIPPED, "--nonsense"], "nonsense")):
            with self.subTest(args=args):
                run = self.start("replay", *args).wait()
                self.assertEqual(run.rc, 2, run.describe())
                self.assert_says(run, "ebb replay: ", text)

    def test_impossible_combination(self):
        run = self.replay("--set", "report.pacing=delay", "--set", "report.tracker=rotation",
                          "--set", "report.move=follow", rc=2)
        self.assert_says(run, "ebb replay: --set: move=follow needs")
        run = self.replay("--set", "report.delay_ms=100", rc=2)
        self.assert_says(run, "ebb replay: --set: delay_ms is for pacing=delay")

    def test_little_memory(self):
        run = self.replay("--memory", "8M", rc=2)
        self.assert_says(run, "--memory", "12 MiB were in use before")
        run = self.replay("--memory", "32M", "--speed", "max")
        self.assertRegex(run.out, r"with reporting: \d+ of 6980 allocations found no memory")
        both = run.json()
        for which in ("with_reporting", "without_reporting"):
            self.assertGreater(both[which]["failed_allocs"], 0)
            self.assertEqual(both[which]["failed_allocs"] + both[which]["allocs"], 6980)
            self.assertEqual(both[which]["verify_errors"], 0)
            self.assertLessEqual(both[which]["resident_peak_mib"], 20)

    def test_unwritable(self):
        run = self.replay("--json", "/nonexistent/x.json", rc=4, json=False)
        self.assert_says(run, "--json", "cannot write")
        run = self.replay("--speed", "max", "--json", "/dev/full", rc=4, json=False)
        self.assert_says(run, "cannot write /dev/full")

    def test_memory_lost(self):
        """A host that drops what is in use is found out."""
        run = self.start("replay", SHIPPED, "--speed", "5", "--reporting", "off", "--json",
                         "result.json")
        memory = self.memory_of(run)
        while os.fstat(memory).st_blocks * 512 <= PINNED_MIB * 2**20:
            time.sleep(0.01)
        e2e.drop(memory, 0, make_trace.RAM * 4096)
        os.close(memory)
        run.wait()
        self.assertEqual(run.rc, 1, run.describe())
        self.assert_says(run, "WARNING: ", "lost its contents")
        self.assertEqual(run.json()["status"], "verify error")
        self.assertGreater(run.json()["without_reporting"]["verify_errors"], 100)

    def memory_of(self, run, seconds=e2e.PATIENCE):
        fds = f"/proc/{run.process.pid}/fd"
        end = time.monotonic() + seconds
        while time.monotonic() < end and run.process.poll() is None:
            for fd in os.listdir(fds):
                try:
                    if "memfd:ebb" in os.readlink(f"{fds}/{fd}"):
                        return os.open(f"{fds}/{fd}", os.O_RDWR)
                except OSError:
                    continue
        raise AssertionError("no memory file: " + run.wait().describe())

    # ---- pictures ----

    def test_picture(self):
        if not shutil.which("gnuplot"):
            self.skipTest("gnuplot is not installed")
        run = self.start("replay", SHIPPED, "--speed", "max", "--json", "result.json", "--plot",
                         "a.svg").wait()
        self.assertEqual(run.rc, 0, run.describe())
        self.assertIn("Wrote a.svg and result.json.", run.out)
        again = self.start("plot", run.json_path, "-o", "b.svg", "-t", "A title").wait()
        self.assertEqual(again.rc, 0, again.describe())
        for path, title in ((os.path.join(run.dir, "a.svg"), "The trace 'phases'"),
                            (os.path.join(again.dir, "b.svg"), "A title")):
            with open(path) as f:
                svg = f.read()
            for text in (title, "seconds of the trace", "live in the trace",
                         "with reporting", "resident without reporting"):
                self.assertIn(text, svg.replace("&apos;", "'").replace("&#39;", "'"))
        several = self.start("plot", run.json_path, run.json_path, "-o", "c.svg").wait()
        self.assertEqual(several.rc, 4, several.describe())
        self.assert_says(several, "a picture of its own")


if __name__ == "__main__":
    e2e.main()

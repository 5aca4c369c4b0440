# SPDX-License-Identifier: BSD-2-Clause
"""The real guest, when something goes wrong in it; its prompt; pictures."""
import json
import os
import shutil
import struct
import subprocess
import unittest
import xml.etree.ElementTree

import e2e


class Guest(e2e.Case):
    def guest(self, *args, rc=0, **keywords):
        return self.ebb("run", "--accel", "tcg", "--memory", "256M", *args, rc=rc, **keywords)

    def test_corrupted_frame(self):
        run = self.guest("--workload", "corrupt; memhog 50%; idle 1", rc=1)
        self.assert_says(run, "WARNING", "expect=", "found=")
        self.assertGreater(run.json()["verify_errors"], 0)

    def test_panic(self):
        run = self.guest("--workload", "memhog 50%; panic", rc=3)
        self.assert_says(run, "panicked in step panic", "rip ", "rsp ", "cr3 ", "Backtrace")
        self.assertEqual(run.json()["status"], "panic")

    def test_page_fault(self):
        run = self.guest("--workload", "fault", rc=3)
        self.assert_says(run, "panicked in step fault", "rip ", "cr2 ")

    def test_bad_workload(self):
        for script in ("frobnicate 7", "memhog", "memhog 0%", "idle x", "memhog 50%; ; bad"):
            with self.subTest(script=script):
                self.assert_says(self.guest("--workload", script, rc=2), "refused")

    def test_bad_setting(self):
        self.assert_says(self.guest("--set", "no.such=1", rc=2), "refused", "no.such")

    def test_too_much(self):
        """More than there is: refused, not a panic."""
        self.guest("--workload", "memhog 8G", rc=2)

    def test_no_guest_at_all(self):
        run = self.guest("--guest", "/dev/null", rc=4)
        self.assert_says(run, "did not start the guest", "/dev/null")

    def test_console(self):
        run = self.guest("--console", "--workload", "zoneinfo; memhog 50%")
        self.assertRegex(run.out, r"(?m)^guest: zone ")

    def test_prompt(self):
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--interactive")
        run.wait(60)  # its standard input is at its end at once
        self.assertEqual(run.rc, 0, run.describe())
        self.assertIn("ebb> exit", run.out)
        self.assert_clean(run)


@unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is not installed: NO picture was tested")
class Picture(e2e.Case):
    def run_small(self, *args):
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--workload",
                         "memhog 50%; idle 0.3", *args)
        return run.wait()

    def svg_text(self, path):
        return " ".join(xml.etree.ElementTree.parse(path).getroot().itertext())

    def plot(self, run, *args):
        done = subprocess.run([e2e.EBB, "plot", *args], cwd=run.dir, text=True, capture_output=True,
                              timeout=60)
        return done.returncode, done.stderr

    def test_svg(self):
        run = self.run_small("--plot", "run.svg")
        self.assertEqual(run.rc, 0, run.describe())
        self.assert_clean(run, files=["run.svg"])
        text = self.svg_text(os.path.join(run.dir, "run.svg"))
        for want in ("held by the host", "in use by the guest", "last free", "q35, tcg, memfd",
                     "default settings", "half back after", "memory (MiB)"):
            self.assertIn(want, text)

    def test_png(self):
        run = self.run_small("--plot", "run.png")
        self.assertEqual(run.rc, 0, run.describe())
        with open(os.path.join(run.dir, "run.png"), "rb") as f:
            head = f.read(24)
        self.assertEqual(head[:8], b"\x89PNG\r\n\x1a\n")
        self.assertGreater(struct.unpack(">I", head[16:20])[0], 800)

    def test_disk_full(self):
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--workload",
                         "memhog 50%; idle 0.3", "--plot", "full.svg")
        os.symlink("/dev/full", os.path.join(run.dir, "full.svg"))
        run.wait()
        self.assertEqual(run.rc, 4, run.describe())
        self.assert_says(run, "cannot write full.svg", "No space left")

    def test_several(self):
        run = self.run_small("--set", "seed=7")
        self.assertEqual(run.rc, 0, run.describe())
        d = run.json()
        d["settings"] = {"it's": "`touch oops`\n$(touch oops) \"x\""}
        d["t99_ms"] = None
        with open(os.path.join(run.dir, "b.json"), "w") as f:
            json.dump(d, f)
        rc, err = self.plot(run, "result.json", "b.json", "-o", "both.svg")
        self.assertEqual((rc, err), (0, ""))
        text = self.svg_text(os.path.join(run.dir, "both.svg"))
        self.assertIn("seed=7: 9", text)
        self.assertIn("it's=`touch oops`", text)
        self.assertIn("not back by the end", text)
        rc, err = self.plot(run, "result.json", "b.json", "-o", "both.svg", "-l", "one", "-l", "two",
                            "-t", "A title")
        self.assertEqual((rc, err), (0, ""))
        text = self.svg_text(os.path.join(run.dir, "both.svg"))
        for want in ("one: ", "two: ", "A title"):
            self.assertIn(want, text)
        self.assert_clean(run, files=["b.json", "both.svg"])

    def test_bad_results(self):
        run = self.run_small()
        for text in ("", "{", "[]", "7", "{}", '{"samples": 3}'):
            with self.subTest(text=text):
                with open(os.path.join(run.dir, "bad.json"), "w") as f:
                    f.write(text)
                rc, err = self.plot(run, "bad.json", "-o", "bad.svg")
                self.assertEqual(rc, 4, err)
                self.assertIn("bad.json", err)
        for text in ('{"samples": []}', '{"samples": [[1], 2, null, ["a", "b", "c"]]}'):
            with open(os.path.join(run.dir, "odd.json"), "w") as f:
                f.write(text)
            rc, err = self.plot(run, "odd.json", "result.json", "-o", "odd.svg")
            self.assertIn(rc, (0, 4), err)
        rc, err = self.plot(run, "missing.json", "-o", "bad.svg")
        self.assertEqual(rc, 4)
        self.assertIn("missing.json", err)


if __name__ == "__main__":
    e2e.need_qemu()
    e2e.main()

# SPDX-License-Identifier: BSD-2-Clause
"""lab/lab.py: what it makes of results, that it goes on where it stopped, and that nothing which
failed or is missing is left out. The programs it runs are stand-ins with canned results, so no
time is measured and no guest boots; lab/drop is the real one."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import e2e

HOME = os.path.abspath(os.path.join(e2e.HERE, "..", ".."))
LAB = os.path.join(HOME, "lab", "lab.py")
DROP = os.path.join(os.path.dirname(e2e.EBB), "..", "lab", "drop")

# Tells what it was called with; fails as often as a file of its variant says.
FAKE_EBB = r'''#!/usr/bin/env python3
# build 1
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
args = sys.argv[1:]
value = lambda name: args[args.index(name) + 1] if name in args else None
linux, script = value("--guest") == "linux", value("--workload") or ""
who = "linux" if linux else "ebb"
with open(os.path.join(here, "calls"), "a") as f:
    f.write(who + " " + " ".join(args) + "\n")
for fail in (os.path.join(here, "fail-" + one) for one in (who, value("--reporting") or "on")):
    if not os.path.exists(fail):
        continue
    left = int(open(fail).read()) - 1
    os.remove(fail)
    if left > 0:
        open(fail, "w").write(str(left))
    sys.exit("ebb: the guest died of a canned death")
if args[0] == "bench":
    result = {"status": "ok", "cases": [], "memory": [], "whole_blocks": [], "verdict": [],
              "published": ""}
elif "memhog" in script:
    if value("--qemu"):
        import subprocess
        backend = [subprocess.Popen([os.path.join(here, "ebbd")])] if value("--host") else []
        directory = os.path.dirname(value("--qemu"))
        asked = "ebb-stall-" in directory
        monitor = [subprocess.Popen([value("--qemu"), "-nodefaults"])] if asked else []
        while asked and not os.path.exists(os.path.join(directory, "qmp")):
            time.sleep(0.01)
        for one in backend:  # until it has used some CPU time
            while int(open(f"/proc/{one.pid}/schedstat").read().split()[0]) < 10000000:
                time.sleep(0.01)
        print("step: idle 1\nstep: memhog\nstep: idle 15", flush=True)
        for one in monitor + backend:
            one.wait()
    t99 = 10000.0 if linux else 100.0
    rate = 3 if linux else 1
    samples = [[ms, 1000.0 if ms < 1000 else 0.0,
                1050.0 if ms < 1000 + t99 else 50.0, ms * 1000000 * rate, ms * 10000 * rate]
               for ms in list(range(0, 3000, 20)) + list(range(3000, 13000, 500))]
    result = {"status": "ok", "verify_errors": 0, "qemu_version": "0.0", "workload": script,
              "release_ms": 1000.0, "freed_mib": 1000.0, "returned_mib": 1000.0, "peak_mib": 1050.0,
              "reported_mib": 2000.0,
              "t50_ms": t99 / 4, "t90_ms": t99 / 2, "t99_ms": t99, "samples": samples,
              "ebbd_cpu_ms": 250.0 if value("--host") else None}
    if value("--host"):
        result["samples"] = [row[:3] + [row[3] / 2, row[4] / 2] for row in samples]
elif "page_fault1" in script:
    end = time.monotonic() + 600  # until the other guest runs, too
    while "--pin" in args and sum(" --pin " in line for line in open(os.path.join(here, "calls"))) % 2:
        if time.monotonic() > end:
            sys.exit("ebb: alone")
        time.sleep(0.01)
    on = value("--reporting") != "off"
    step = {"step": "page_fault1", "faults": 1000, "pages": 950 if on else 1000,
            "elapsed_ns": 4000000 if linux else 1500000, "clear_ns": 500}
    cold = dict(step, elapsed_ns=2 * step["elapsed_ns"] if on else step["elapsed_ns"])
    steps = script.count("page_fault1")
    result = {"status": "ok", "verify_errors": 0, "workload": script,
              "results": [cold] * (steps - 1) + [step], "samples": []}
elif args[0] == "replay":
    end = time.monotonic() + 600  # until the other trace plays, too
    while sum(line.startswith("ebb replay") for line in open(os.path.join(here, "calls"))) % 2:
        if time.monotonic() > end:
            sys.exit("ebb: alone")
        time.sleep(0.01)
    mine = {"resident_mib": 120.0 if "report.pacing=delay" in args else 105.0, "busy_ms": 10.0,
            "wall_ms": 100.0}
    on = value("--reporting") == "on"
    mine["page_faults"] = 51200 if on else 25600
    live = [[0, 0], [1000, 100], [2000, 50], [3000, 100], [5000, 20], [13000, 100]]
    result = {"status": "ok", "records": 1000, "live_mib": 100.0, "duration_ms": 13000.0,
              "samples": [[ms, mib, mib, None] for ms, mib in live],
              "with_reporting": mine if on else None, "without_reporting": None if on else mine}
with open(value("--json"), "w") as f:
    json.dump(result, f)
'''
# Answers 150 questions, one of them late if it is the guest without ebbd.
FAKE_QEMU = r'''#!/usr/bin/env python3
import json, os, socket, sys, time
if "-device" in sys.argv:
    sys.exit(print("num_vqs"))
path = next(word for word in sys.argv if word.startswith("unix:")).split(":")[1].split(",")[0]
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(path + ".new")
    listening.listen()
    os.rename(path + ".new", path)
    client = listening.accept()[0]
    client.sendall(b'{"QMP": {}}\n')
    for n in range(150):
        client.recv(1000)
        time.sleep(0.3 if n == 77 else 0)
        client.sendall(b'{"return": {}}\n')
    client.close()
'''
FAKE_DROP = '#!/bin/sh\necho \'{"size_mib": 600, "times": [{"drop_ms": 50.0, "drop_cpu_ms": 49}, \
{"drop_ms": 30.0, "drop_cpu_ms": 30}, {"drop_ms": 40, "drop_cpu_ms": 39}]}\'\n'


class Lab(e2e.Case):
    def setUp(self):
        if not shutil.which("gnuplot"):
            self.skipTest("gnuplot is not installed")
        directory = tempfile.TemporaryDirectory(prefix="ebb-e2e-lab-")
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        self.write("ebb", FAKE_EBB)
        self.write("drop", FAKE_DROP)
        self.write("qemu-system-x86_64", "#!/bin/sh\nexit 0\n")
        self.write("ebbd", "#!/bin/sh\ni=0\nwhile [ $i -lt 20000 ]; do i=$((i + 1)); done\nsleep 3\n")
        for name in ("kernels", "qemu"):
            os.mkdir(os.path.join(self.dir, name))
        self.write(os.path.join("qemu", "qemu-system-x86_64"), FAKE_QEMU)
        for name in ("vmlinuz-6.12", "initrd-6.12", "ebb_reporting-6.12.ko", "vmlinuz-6.1", "initrd-6.1",
                     "ebb_reporting-6.1.ko"):
            self.write(os.path.join("kernels", name), "")

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o755)

    def let_fail(self, who, times):
        self.write("fail-" + who, str(times))

    def lab(self, *args, rc=0, what="run", linux="kernels"):
        """A quick lab: full ones write into the tree."""
        if linux != "none":
            linux = os.path.join(self.dir, linux)
        env = dict(os.environ, PATH=self.dir + os.pathsep + os.environ["PATH"])
        done = subprocess.run(
            [sys.executable, LAB, what, "--quick", "--dir", os.path.join(self.dir, "work"), "--ebb",
             os.path.join(self.dir, "ebb"), "--drop", os.path.join(self.dir, "drop"), "--linux",
             linux, "--qemu", os.path.join(self.dir, "qemu"), *args], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=e2e.PATIENCE, env=env)
        self.assertEqual(done.returncode, rc, done.stdout + done.stderr)
        return done

    def calls(self):
        path = os.path.join(self.dir, "calls")
        if not os.path.exists(path):
            return []
        with open(path) as f:
            return [line.split()[0] for line in f]

    def saved(self):
        with open(os.path.join(self.dir, "work", "quick", "performance.json")) as f:
            return json.load(f)

    def page(self):
        with open(os.path.join(self.dir, "work", "quick", "performance.md")) as f:
            return f.read()

    def bars(self, name):
        return [row for section in self.saved()["sections"].values() for row in section["bars"]
                if row["bar"] == name]

    def test_figures(self):
        self.lab("--only", "P1,P5", "--rounds", "2")
        faster, bounded = self.bars("P1")
        self.assertEqual(faster["ebb"]["median"], 100)
        self.assertEqual(faster["peer"]["median"], 10000)
        self.assertEqual(faster["ratio"]["median"], 100)
        self.assertEqual(faster["ratio"]["n"], 2)
        self.assertEqual(faster["verdict"], "met")
        # 50 ms and twice the median of the three.
        self.assertEqual(bounded["peer"]["median"], 130)
        self.assertEqual(bounded["verdict"], "met")
        guest, host = self.bars("P11")
        # From the first free, 20 ms before the release, until 1 s after 99 %.
        self.assertEqual(guest["ebb"]["median"], 1120)
        self.assertEqual(guest["peer"]["median"], 33060)
        self.assertAlmostEqual(host["ebb"]["median"], 11.2)
        counted = self.bars("P5")[0]
        self.assertEqual(counted["ebb"]["median"], 1000)
        self.assertEqual(counted["peer"]["median"], 3500)
        self.assertEqual(counted["verdict"], "met")
        self.assertEqual(self.bars("P12")[0]["verdict"], "not measured: not run")
        self.assertIn("| P1 | 1536M freed: until 99 % are back | 100 (100-100) ms |", self.page())
        self.assertIn("A quick run", self.page())
        self.assertNotIn(self.dir, self.page())
        for name in ("performance-residency.svg",):
            with open(os.path.join(self.dir, "work", "quick", name)) as f:
                self.assertIn("<svg", f.read())

    def test_interleaved(self):
        self.lab("--only", "P1", "--rounds", "2")
        # The second round goes backwards.
        self.assertEqual(self.calls(), ["ebb", "linux", "linux", "ebb"])

    def test_falls_short_first(self):
        self.lab("--only", "P4")
        with open(os.path.join(self.dir, "calls")) as f:
            self.assertTrue(all(" --pin " in line for line in f))
        rows = [row for row in self.bars("P4") if row["unit"] == "pages/s"]
        self.assertEqual({row["verdict"] for row in rows}, {"falls short"})
        self.assertAlmostEqual(rows[0]["ratio"]["median"], 0.95)
        page = self.page()
        first = page.index("**Falls short of its bar:**")
        self.assertLess(first, page.index("## The bars"))
        self.assertIn("page_fault1 procs 1, 4 KiB", page[first:page.index("## The machine")])

    def test_traces_side_by_side(self):
        os.mkdir(os.path.join(self.dir, "traces"))
        for name in ("a", "b"):
            self.write(os.path.join("traces", name + ".trace"), "")
        self.write("calls", "")
        self.lab("--only", "P7", "--traces", os.path.join(self.dir, "traces"))
        self.assertEqual(len(self.calls()), 6)
        held = [row for row in self.bars("P7") if row["unit"] == "MiB"]
        self.assertEqual([row["ratio"]["median"] for row in held], [0.25, 0.25])
        # Half of what the merged kernel's pacing holds, 10 MiB for 13 s, keep 50 MiB for 1 s and 10
        # of 80 MiB for 8 s.
        self.assertIn("| a | 100 | 70 | 0.0 | 100.0 | 100.0 |", self.page())
        self.assertEqual({row["verdict"] for row in self.bars("P7")}, {"met"})

    def test_goes_on(self):
        self.lab("--only", "P1")
        before = self.calls()
        again = self.lab("--only", "P1")
        self.assertIn("3 of 3 runs are done already", again.stdout)
        self.assertEqual(self.calls(), before)
        # One is lost: only that is done again.
        os.remove(os.path.join(self.dir, "work", "quick", "P1.memhog.linux.1.json"))
        self.lab("--only", "P1")
        self.assertEqual(self.calls(), before + ["linux"])
        self.lab("--only", "P1", "--fresh")
        self.assertEqual(len(self.calls()), 2 * len(before) + 1)

    def test_damaged_record(self):
        self.lab("--only", "P1")
        path = os.path.join(self.dir, "work", "quick", "P1.memhog.ebb.1.json")
        with open(path, "w") as f:
            f.write('{"name": ')
        done = self.lab("--only", "P1")
        self.assertIn("is no JSON", done.stderr)
        self.assertEqual(self.calls()[-1], "ebb")
        self.assertEqual(self.bars("P1")[0]["verdict"], "met")

    def test_failed_once(self):
        self.let_fail("linux", 1)
        done = self.lab("--only", "P1")
        self.assertIn("canned death", done.stdout)
        self.assertEqual(self.bars("P1")[0]["verdict"], "met")
        self.assertEqual(self.saved()["sections"]["P1"]["origin"]["repeated"], 1)
        self.assertRegex(self.page(), r"\| P1 \| 3 \| 1 \| 2.* \| 1 \|\n")

    def test_failed_twice(self):
        self.let_fail("linux", 2)
        done = self.lab("--only", "P1")
        self.assertIn("FAILED twice", done.stdout)
        self.assertEqual(self.calls(), ["ebb", "linux", "linux"])
        row = self.bars("P1")[0]
        self.assertEqual((row["verdict"], row["peer"]["failed"], row["ebb"]["median"]),
                         ("failed", 1, 100))
        self.assertIn("canned death", self.page())
        self.assertIn("**failed**", self.page())
        # The next start tries it again.
        self.lab("--only", "P1")
        self.assertEqual(self.bars("P1")[0]["verdict"], "met")

    def test_host(self):
        self.lab("--only", "H1")
        back, small, cpu = self.bars("H1")
        for one in (back, small):
            self.assertEqual((one["ebb"]["median"], one["verdict"]), (100, "met"))
        # Less than 250 ms for 1000 MiB, as what it used before is not in it; and 39 ms for 600.
        self.assertTrue(100 < cpu["ebb"]["median"] < 240 * 1.024, cpu)
        self.assertAlmostEqual(cpu["peer"]["median"], 39 / 600 * 1024)
        self.assertEqual(cpu["verdict"], "falls short")
        hosts, used, alone, both, late = self.bars("H2")
        # Half of QEMU's 3.03 s a second, and ebbd's; without the guest's CPUs half of 0.03 s.
        self.assertTrue(0.5 < used["ratio"]["median"] < 0.51, used)
        self.assertTrue(0.5 + 100 / 345 < hosts["ratio"]["median"] < 0.5 + 240 / 345, hosts)
        # 250 ms of ebbd and half of 125 of QEMU, for 2000 MiB.
        self.assertAlmostEqual(alone["ebb"]["median"], 250 / 2000 * 1024)
        self.assertAlmostEqual(alone["ratio"]["median"], 2)
        self.assertAlmostEqual(both["peer"]["median"], 125 / 2000 * 1024)
        self.assertAlmostEqual(both["ratio"]["median"], 2.5)
        for side in ("ebb", "peer"):
            self.assertTrue(298 <= late[side]["median"] < 1000, late)
        self.assertIn("| ebbd | 100.0 |", self.page())

    def test_without_vhost_user(self):
        self.write(os.path.join("qemu", "qemu-system-x86_64"), "#!/bin/sh\nexit 1\n")
        self.write("id", "#!/bin/sh\necho 1000\n")  # so that none is installed
        done = self.lab("--only", "P1,H1")
        self.assertIn("NO QEMU WITH THE GENERIC VHOST-USER DEVICE", done.stderr)
        self.assertEqual(self.bars("H1")[0]["verdict"],
                         "not measured: no QEMU with the generic vhost-user device")
        self.assertEqual(self.bars("P1")[0]["verdict"], "met")

    def test_without_linux(self):
        done = self.lab("--only", "P1", linux="none")
        self.assertIn("NO LINUX 6.12 GUEST", done.stderr)
        self.assertEqual(self.calls(), ["ebb"])
        faster, bounded = self.bars("P1")
        self.assertEqual(faster["verdict"], "not measured: no Linux 6.12 guest")
        self.assertEqual(faster["ebb"]["median"], 100)
        self.assertEqual(bounded["verdict"], "met")
        self.assertIn("no Linux 6.12 guest", self.page())

    def test_other_build(self):
        self.lab("--only", "P1")
        self.write("ebb", FAKE_EBB.replace("build 1", "build 2"))
        done = self.lab("--only", "P1", rc=1)
        self.assertIn("FRESH=1 ONLY=P1", done.stderr)
        self.lab("--only", "P1", "--mixed")
        self.lab("--only", "P1", "--fresh")

    def test_no_result_is_a_failure(self):
        self.write("drop", "#!/bin/sh\necho nothing\n")
        self.lab("--only", "P1")
        failed = self.saved()["sections"]["P1"]["origin"]["failed"]
        self.assertEqual([one["run"] for one in failed], ["P1.memhog.drop.1"])
        self.assertEqual(self.bars("P1")[1]["verdict"], "failed")

    def test_render_alone(self):
        self.lab("--only", "P1")
        before = self.page()
        path = os.path.join(self.dir, "work", "quick", "performance.json")
        out = os.path.join(self.dir, "out")
        os.mkdir(out)
        done = subprocess.run([sys.executable, LAB, "render", path, "--out", out], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=e2e.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(os.path.join(out, "performance.md")) as f:
            self.assertEqual(f.read(), before)

    def record(self, name):
        with open(os.path.join(self.dir, "work", "quick", name + ".json")) as f:
            return json.load(f)

    def test_half_a_pair(self):
        """A guest that was compared with nothing had the CPUs to itself."""
        self.let_fail("off", 2)
        done = self.lab("--only", "P4")
        self.assertIn("what ran beside it failed", done.stdout)
        for switch in ("on", "off"):
            self.assertFalse(self.record(f"P4.procs-1-4k.{switch}.1")["ok"])
            self.assertTrue(self.record(f"P4.procs-2-4k.{switch}.1")["ok"])
        self.let_fail("off", 1)
        self.lab("--only", "P4")
        self.assertTrue(self.record("P4.procs-1-4k.on.1")["ok"])
        self.assertEqual(self.bars("P4")[0]["verdict"], "falls short")

    def test_what_was_not_asked_for_stays(self):
        """The figures of other measures are those of before, whatever runs there are of them."""
        self.lab("--only", "P1,P4,P5")
        before = self.saved()
        self.assertEqual(before["sections"]["P4"]["origin"]["runs"], 16)
        sys.path.insert(0, os.path.dirname(LAB))
        self.addCleanup(sys.path.remove, os.path.dirname(LAB))
        sys.dont_write_bytecode = True
        import figures
        import measures
        plan = measures.Plan(measures.QUICK, "ebb", "drop", self.dir, self.dir)
        runs = plan.runs()
        records = {run.name: self.record(run.name) for run in runs
                   if run.measure in ("P1", "P4", "P5")}
        for name in ("P1", "P4", "P5"):
            before["sections"][name]["origin"]["commits"] = ["old"]
        before["pictures"]["residency"] = "old"
        after = figures.collect(plan, runs, records, {}, False, before, ["P4"])
        for name in ("P1", "P5"):
            self.assertEqual(after["sections"][name], before["sections"][name])
        self.assertEqual(after["pictures"]["residency"], "old")
        self.assertNotEqual(after["sections"]["P4"]["origin"]["commits"], ["old"])
        self.assertEqual(after["sections"]["P4"]["bars"], before["sections"]["P4"]["bars"])
        # What was asked for is new, even if nothing came of it; what was never measured is not kept.
        before["sections"]["P12"]["bars"] = ["old"]
        after = figures.collect(plan, runs, {}, {}, False, before, ["P1"])
        self.assertEqual(after["sections"]["P1"]["bars"][0]["verdict"], "not measured: not run")
        self.assertNotEqual(after["pictures"]["residency"], "old")
        self.assertNotEqual(after["sections"]["P12"]["bars"], ["old"])

    def linux_bars(self, results):
        """The bars, by measure, of one round with these results: {measure: {variant: result}}."""
        sys.path.insert(0, os.path.dirname(LAB))
        self.addCleanup(sys.path.remove, os.path.dirname(LAB))
        sys.dont_write_bytecode = True
        import figures
        import measures
        plan = measures.Plan(measures.QUICK, "ebb", "drop", self.dir, self.dir)
        runs = [run for run in plan.runs(list(results)) if run.variant in results[run.measure]]
        records = {run.name: {"ok": True, "errors": [], "command": "",
                              "result": results[run.measure][run.variant]} for run in runs}
        data = figures.Data(plan, runs, records, {})
        return {name: figures.SECTIONS[name](data)["bars"] for name in results}

    def test_linux_rows(self):
        def build(held, ns):
            return {"baseline_mib": 100, "steps": [{"cmd": "compile 8", "begin_ms": 1000}],
                    "results": [{"step": "compile", "elapsed_ns": ns}],
                    # The guest uses 50 MiB more for a second, and then none of it.
                    "samples": [[0, 0, 100], [500, 20, 100], [1000, 70, 150], [2000, 20, 150],
                                [2000 + held, 20, 100], [9000, 20, 100]]}

        def rest(passes):
            return {"samples": [[0, 0, 0, 0], [10000, 0, 0, 10**8]],
                    "steps": [{"cmd": "idle 6", "begin_ms": 0, "end_ms": 10000}],
                    "results": [{"step": "tell", "ns": 0, "passes": 5, "samples": 7, "timers_us": 10},
                                {"step": "tell", "ns": 1, "intr": 10},
                                {"step": "tell", "ns": 10**10, "passes": 5 + passes, "samples": 7,
                                 "timers_us": 20010}, {"step": "tell", "ns": 10**10, "intr": 20}]}

        def hold(us):
            return {"results": [{"step": "tell", "longest_hold_us": us}]}

        def crowd(turns, killed):
            return {"turns": turns, "killed": killed}
        bars = self.linux_bars({"L8": {"module": build(1000, 101), "stock": build(4000, 100)},
                                "L9": {"module": rest(0), "off": rest(0)},
                                "L10": {"module": hold(30), "stock": hold(20)},
                                "L11": {"module": crowd(8, False), "stock": crowd(2, True)}})
        above, longer = bars["L8"]
        self.assertEqual((above["ebb"]["median"], above["ratio"]["median"], above["verdict"]), (50, 0.25, "met"))
        self.assertAlmostEqual(longer["ratio"]["median"], 1.01)
        wakes, cpu = bars["L9"]
        self.assertEqual((wakes["ebb"]["median"], wakes["verdict"]), (0, "met"))
        self.assertAlmostEqual(cpu["ebb"]["median"], 0.2)
        self.assertEqual(cpu["verdict"], "falls short")
        self.assertEqual(bars["L10"][0]["verdict"], "falls short")
        (more,) = bars["L11"]
        self.assertEqual((more["ratio"]["median"], more["ebb"]["at_least"], more["verdict"]), (4, 1, "met"))
        self.assertEqual(self.linux_bars({"L9": {"module": rest(1)}})["L9"][0]["verdict"], "falls short")

    def test_crowd(self):
        """Guests that take 100 MiB and keep half, in 260: the fourth of them is one too many."""
        crowd = [sys.executable, os.path.join(HOME, "lab", "crowd.py")]
        if subprocess.run([*crowd, "--try"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no memory cgroup can be made here: crowd.py was NOT tried")
        self.write("guest", """#!/usr/bin/env python3
import time
print("   0.000 s  step: idle 1", flush=True)
size = 50 << 20
kept = b"x" * size
print("step: memhog", flush=True)
b"x" * size
print("step: idle 900", flush=True)
time.sleep(900)
""")
        path = os.path.join(self.dir, "crowd.json")
        for most, turns in (("6", 3), ("2", 2)):
            subprocess.run([*crowd, most, "260", "0.1", os.path.join(self.dir, "guest"), "--qemu", "none",
                            "--workload", "idle 1; memhog 100M; idle 900", "--json", path],
                           check=True, timeout=e2e.PATIENCE)
            with open(path) as f:
                told = json.load(f)
            self.assertEqual((told["turns"], told["killed"]), (turns, turns < int(most)))
            self.assertLess(max(mib for _, mib in told["samples"]), 261)

    def test_bad_words(self):
        for args, says in ((["--only", "P99"], "no measure is called 'P99'"),
                           (["--rounds", "0"], "rounds are 1 to 99")):
            self.assertIn(says, self.lab(*args, rc=2).stderr)
        os.remove(os.path.join(self.dir, "drop"))
        self.assertIn("is missing: make build", self.lab("--only", "P1", rc=1).stderr)

    def test_without_traces(self):
        done = self.lab("--only", "P1,P7", "--traces", self.dir)
        self.assertIn("NO TRACES", done.stderr)
        self.assertIn("P7", [row["bar"] for row in self.bars("P7")])
        self.assertNotEqual(self.bars("P7")[0]["verdict"], "met")

    def test_plan(self):
        done = self.lab(what="plan")
        for measure in ("P1", "P2", "P4", "P5", "P6", "P7", "P8", "P12", "L1", "L2", "L3", "L6", "L7", "L8", "L9",
                        "L10", "L11", "H1"):
            self.assertIn(f"\n{measure}.", "\n" + done.stdout)
        self.assertEqual(self.calls(), [])


class Drop(e2e.Case):
    def drop(self, *args, rc=0):
        if not os.path.exists(DROP):
            self.skipTest("lab/drop was not built")
        done = subprocess.run([DROP, *args], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=e2e.PATIENCE)
        self.assertEqual(done.returncode, rc, done.stderr)
        return done

    def test_drops(self):
        for backing in ("anon", "thp", "memfd"):
            told = json.loads(self.drop(backing, "9M", "4M", "2").stdout)
            self.assertEqual((told["backing"], told["size_mib"], len(told["times"])),
                             (backing, 9, 2))
            for one in told["times"]:
                self.assertGreater(one["drop_ms"], 0)
                if backing == "anon":
                    self.assertEqual(one["huge_mib"], 0)

    def test_usage(self):
        for args in ([], ["anon", "4M"], ["disk", "4M", "1M"], ["anon", "4M", "1000"],
                     ["anon", "0", "4K"], ["anon", "4M", "4K", "x"], ["anon", "4MM", "4K"],
                     ["anon", "99999999999G", "4K"]):
            self.assertIn("usage: drop", self.drop(*args, rc=2).stderr)


e2e.main()

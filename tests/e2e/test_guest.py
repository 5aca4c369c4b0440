# SPDX-License-Identifier: BSD-2-Clause
"""The real guest, when something goes wrong in it; its prompt; pictures."""
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import time
import unittest
import xml.etree.ElementTree

import e2e


class Guest(e2e.Case):
    def guest(self, *args, rc=0, **keywords):
        return self.ebb("run", "--accel", "tcg", "--memory", "256M", *args, rc=rc, **keywords)

    def test_corrupted_frame(self):
        """One frame in use is overwritten: each workload and check finds it, once."""
        for script in ("corrupt; memhog 50%", "corrupt; churn 40% 1", "corrupt; fragment 40% 8",
                       "fragment 40% 8; corrupt; release", "fragment 40% 8; corrupt; verify",
                       "fragment 40% 8; corrupt; idle 600", "corrupt; cycle 40% 0 0.1",
                       "corrupt; page_fault1 procs 1 0.3", "corrupt; page_fault1 threads 1 0.3 thp"):
            with self.subTest(script=script):
                run = self.guest("--workload", script, rc=1)
                self.assert_says(run, "WARNING", "expect=", "found=0x0")
                self.assertEqual(run.json()["verify_errors"], 1, run.describe())

    def test_checks_are_counted(self):
        """At least one check of each frame held, before its free; none without a workload."""
        self.assertEqual(self.guest("--workload", "idle 0.2").json()["verify_checks"], 0)
        for script, frames in (("memhog 100M x2", 2 * 25600), ("fragment 100M 8; release", 25600)):
            with self.subTest(script=script):
                self.assertGreaterEqual(self.guest("--workload", script).json()["verify_checks"],
                                        frames)

    def affinity(self, run):
        """Of each of the guest's CPUs: those of the host that it may use."""
        directory, found = f"/proc/{run.qemu()}/task", {}
        for tid in os.listdir(directory):
            try:
                with open(f"{directory}/{tid}/comm") as f:
                    name = re.match(r"CPU (\d+)/", f.read())
                if name:
                    found[int(name.group(1))] = os.sched_getaffinity(int(tid))
            except OSError:  # it has ended
                continue
        return found

    def test_pin(self):
        """Each CPU of the guest's has one of the host's, in turn; without --pin it has all."""
        allowed = sorted(os.sched_getaffinity(0))
        for options, want in ((["--pin"], [{allowed[n % len(allowed)]} for n in range(3)]),
                              ([], [set(allowed)] * 3)):
            with self.subTest(options=options):
                run = self.start("run", "--accel", "tcg", "--memory", "64M", "--cpus", "3",
                                 "--workload", "idle 600", *options)
                self.assertTrue(run.wait_for("step: idle"), run.describe())
                end = time.monotonic() + e2e.PATIENCE
                while self.affinity(run) != dict(enumerate(want)) and time.monotonic() < end:
                    time.sleep(0.02)
                self.assertEqual(self.affinity(run), dict(enumerate(want)))
                run.process.terminate()
                run.wait()
                self.assertEqual(run.json()["pin"], bool(options))

    def test_panic(self):
        run = self.guest("--workload", "memhog 50%; panic", rc=3)
        self.assert_says(run, "panicked in step panic", "rip ", "rsp ", "cr3 ", "Backtrace")
        self.assertEqual(run.json()["status"], "panic")

    def test_page_fault(self):
        run = self.guest("--workload", "fault", rc=3)
        self.assert_says(run, "panicked in step fault", "rip ", "cr2 ")

    def test_bad_workload(self):
        for script in ("frobnicate 7", "memhog", "memhog 0%", "idle x", "memhog 50%; ; bad",
                       "cycle 50% 10", "cycle 50% x 1", "page_fault1 procs 1", "page_fault1 both 1 1",
                       "page_fault1 procs 0 1", "page_fault1 procs 17 1", "page_fault1 procs 1 1 hugetlb",
                       "page_fault2 1", "page_fault2 1 1 thp"):
            with self.subTest(script=script):
                self.assert_says(self.guest("--workload", script, rc=2), "refused")

    def test_bad_setting(self):
        for setting in ("no.such=1", "report.order=11", "report.delay_ms=x", "seed=-1", "report=maybe"):
            with self.subTest(setting=setting):
                self.assert_says(self.guest("--set", setting, rc=2), "refused", setting.split("=")[0])

    def test_settings_that_do_not_go_together(self):
        for settings, text in ((["report.tracker=membrane"], "tracker and direction are for pacing=delay"),
                               (["report.pacing=delay", "report.window_max_ms=900"], "are for pacing=surplus"),
                               (["report.window_max_ms=9"], "window_min_ms is above window_max_ms")):
            with self.subTest(settings=settings):
                words = [word for setting in settings for word in ("--set", setting)]
                self.assert_says(self.guest(*words, rc=2), "refused", text)

    def test_guest_without_history(self):
        """Named, it is taken, and says which one has the setting."""
        run = self.guest("--guest", e2e.GUEST, "--set", "report.pacing=delay", rc=2)
        self.assert_says(run, "report.pacing=delay", "ebb-guest-history.elf", "ebb run --set")

    def test_too_much(self):
        """More than there is: refused, not a panic."""
        for size in ("8G", "100%"):
            with self.subTest(size=size):
                run = self.guest("--workload", f"memhog {size}", rc=2)
                self.assert_says(run, "more than the", "that are free")

    def test_page_faults_do_not_fit(self):
        for script in ("page_fault1 procs 2 1", "page_fault2 1 1", "cycle 100% 0 1"):
            with self.subTest(script=script):
                self.assert_says(self.guest("--cpus", "2", "--workload", script, rc=2),
                                 "more than the", "that are free")

    def test_stray_access(self):
        """Nothing is mapped behind an area, or where one was, whichever CPU has touched it."""
        for where in ("behind", "unmapped", "other"):
            with self.subTest(where=where):
                run = self.guest("--cpus", "2", "--workload", f"stray {where}", rc=3)
                self.assert_says(run, "panicked in step stray", "rip ", "cr2 ffff800000", "Backtrace")

    def test_last_release_is_the_workloads(self):
        """What the guest frees at its end is not the workload's doing."""
        run = self.guest("--workload", "memhog 20%; fragment 60% 2; idle 0.5")
        self.assertEqual(run.out.count("the workload has freed"), 2, run.out)
        self.assertAlmostEqual(run.json()["freed_mib"], 253 * 0.3, delta=4)

    def test_no_guest_at_all(self):
        run = self.guest("--guest", "/dev/null", rc=4)
        self.assert_says(run, "did not start the guest", "/dev/null")

    def test_console(self):
        run = self.guest("--console", "--workload", "zoneinfo; memhog 50%")
        self.assertRegex(run.out, r"(?m)^guest: zone ")

    def test_typed(self):
        """Commands at the prompt, one after the other."""
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--interactive", "--workload",
                         "memhog 10%", stdin=subprocess.PIPE)
        for command, answer in (("", "ebb> "), ("help", "SIZE is in bytes"), ("free", "in flight"),
                                ("memhog 100m", "freed in"), ("nonsense", "no such command"),
                                ("report off", "reporting is off"), ("verify", "0 errors"),
                                ("zoneinfo", "engine: reporting off")):
            run.process.stdin.write(command + "\n" * bool(command))
            run.process.stdin.flush()
            self.assertTrue(run.wait_for(answer), f"{command}: {run.seen}")
        run.process.stdin.write("exit\n")
        run.wait()
        self.assertEqual(run.rc, 0, run.describe())
        self.assertAlmostEqual(run.json()["freed_mib"], 100, delta=1)
        self.assert_clean(run)

    def test_prompt(self):
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--interactive")
        run.wait()  # its standard input is at its end at once
        self.assertEqual(run.rc, 0, run.describe())
        self.assertIn("ebb> exit", run.out)
        self.assert_clean(run)


class PageFaults(e2e.Case):
    """Workloads of demand paging; the guest itself sees that no frame is lost or mapped twice."""

    TASKS = 16

    def results(self, *args, script, memory="1G", **keywords):
        run = self.ebb("run", "--accel", "tcg", "--memory", memory, "--console", "--workload", script,
                       *args, **keywords)
        self.assertEqual(run.json()["verify_errors"], 0, run.describe())
        self.assertGreater(run.json()["verify_checks"], 0, run.describe())
        return run, run.json()["results"]

    def assert_sane(self, run, result, cpus):
        self.assertGreater(result["pages"], 0, run.describe())
        whole = cpus * result["elapsed_ns"]
        self.assertAlmostEqual(result["busy_ns"] + result["idle_ns"], whole, delta=whole // 100)
        self.assertGreaterEqual(result["elapsed_ns"], 300e6)
        if result["tasks"] < cpus:  # the other CPUs have nothing to do
            self.assertGreater(result["idle_ns"], whole * (cpus - result["tasks"]) / cpus * 0.9)

    def check(self, machine, cpus, tasks, memory="1G"):
        script = "; ".join(f"page_fault1 {mode} {n} 0.3{thp}" for mode in ("procs", "threads")
                           for n in tasks for thp in ("", " thp"))
        script += "; " + "; ".join(f"page_fault2 {n} 0.3" for n in tasks)
        run, results = self.results("--machine", machine, "--cpus", str(cpus), script=script,
                                    memory=memory)
        self.assertEqual(len(results), 5 * len(tasks), run.describe())
        for result in results:
            with self.subTest(result=result):
                self.assert_sane(run, result, cpus)
                if result.get("thp"):  # small pages only where there are no large ones
                    self.assertLessEqual(result["pages"], result["faults"] * 512)
                    self.assertLess(result["faults"], result["pages"])
                else:
                    self.assertEqual(result["faults"], result["pages"])
                if result["step"] == "page_fault1":
                    self.assertGreater(result["clear_ns"], 0)
                    self.assertIn(result["mode"], ("procs", "threads"))

    def test_one_cpu(self):
        for machine in ("q35", "microvm"):
            with self.subTest(machine=machine):
                self.check(machine, 1, (1, 3))

    def test_two_cpus(self):
        for machine in ("q35", "microvm"):
            with self.subTest(machine=machine):
                self.check(machine, 2, (1, 5))

    def test_sixteen_cpus(self):
        self.check("q35", self.TASKS, (self.TASKS,), memory="3G")

    def test_columns(self):
        """will-it-scale's, for one task count in both modes."""
        run, results = self.results("--cpus", "1",
                                    script="page_fault1 procs 1 0.3; page_fault1 threads 1 0.3")
        rows = re.findall(r"(?m)^guest: (\d[\d.,]*)$", run.out)
        self.assertIn("guest: tasks,processes,processes_idle,threads,threads_idle,linear", run.out)
        self.assertEqual(rows[0], "0,0,100,0,100,0")
        self.assertEqual([row.split(",")[0] for row in rows], ["0", "1", "0", "1"])
        tasks, procs, procs_idle, threads, threads_idle, linear = map(float, rows[-1].split(","))
        for rate, result in ((procs, results[0]), (threads, results[1])):
            self.assertAlmostEqual(rate, result["pages"] * 1e9 / result["elapsed_ns"], delta=rate / 50)
        self.assertEqual((procs_idle, threads_idle, linear), (0, 0, max(procs, threads)))

    def test_contention(self):
        """All CPUs fault on the same pages at the same time: each page has one frame."""
        for cpus in (2, 4):
            with self.subTest(cpus=cpus):
                self.results("--cpus", str(cpus), script="contend 100", memory="256M")

    def test_balloon_meanwhile(self):
        """Reports all the time, of every order, under the fault path."""
        for script in ("page_fault1 threads 2 0.3", "page_fault1 procs 3 0.3 thp", "page_fault2 2 0.3"):
            with self.subTest(script=script):
                run, _ = self.results("--cpus", "2", "--set", "report.pacing=delay", "--set",
                                      "report.delay_ms=1", "--set", "report.order=0", script=script)
                self.assertGreater(run.json()["reports"], 0)

    def test_filled_zones(self):
        for fill in ("poison", "zero"):
            with self.subTest(fill=fill):
                self.results("--set", f"zone.fill={fill}", "--cpus", "2", memory="768M",
                             script="page_fault1 threads 2 0.3; page_fault2 2 0.3; contend 10")


class ShortOfMemory(e2e.Case):
    """The host takes the memory that page faults need, by the balloon: the step fails, and says why."""

    def check(self, script):
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        with theirs:
            qemu = subprocess.Popen(
                [e2e.QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                 "-accel", "tcg,tb-size=64", "-machine", "q35", "-m", "256M", "-smp", "2",
                 "-device", "virtio-balloon-pci,free-page-reporting=on", "-serial", "stdio",
                 "-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "monitor,mode=readline",
                 "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", e2e.GUEST,
                 "-append", f'script="{script}"'],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True)
        self.addCleanup(qemu.stdout.close)
        self.addCleanup(qemu.wait)
        self.addCleanup(qemu.kill)
        for line in qemu.stdout:
            if "pages touched" in line:
                break
        ours.sendall(b"balloon 60\n")
        out = qemu.communicate(timeout=e2e.PATIENCE)[0]
        self.assertEqual(qemu.returncode, 2 * 2 + 1, out)  # a step that cannot be done
        self.assertIn("page_fault1: memory ran short", out)

    def test_procs(self):
        self.check("page_fault1 procs 1 600")

    def test_threads_large(self):
        self.check("page_fault1 threads 1 600 thp")


class Cycle(e2e.Case):
    def test_results(self):
        run = self.ebb("run", "--accel", "tcg", "--memory", "256M", "--cpus", "2", "--workload",
                       "cycle 100M 20 0.5; cycle 50% 0 0.3")
        first, second = run.json()["results"]
        self.assertEqual((first["step"], first["pause_ms"], second["pause_ms"]), ("cycle", 20, 0))
        self.assertEqual(first["frames"], first["cycles"] * 25600)
        for result in (first, second):
            self.assertGreater(result["cycles"], 0)
            self.assertGreaterEqual(result["elapsed_ns"], result["busy_ns"])
        self.assertGreaterEqual(first["elapsed_ns"] - first["busy_ns"],
                                (first["cycles"] - 1) * 20_000_000)
        # All frames once, in the first cycle; then a sample.
        frames = (first["frames"] + second["frames"]) / (first["cycles"] + second["cycles"])
        self.assertGreater(run.json()["verify_checks"], frames)

    def test_engine(self):
        """What pacing came to: on the console for people, as a line for programs."""
        run = self.ebb("run", "--accel", "tcg", "--memory", "256M", "--console", "--workload",
                       "cycle 100M 0 0.3; zoneinfo")
        self.assertRegex(run.out, r"(?m)^guest: engine: window \d+ ms")
        engine = run.json()["engine"]
        for key in ("window_ns", "window_grown", "window_shrunk", "refaulted_soon", "surplus_frames",
                    "passes", "batches", "reported_frames", "refaulted_frames"):
            self.assertIn(key, engine)
        self.assertGreater(engine["window_ns"], 0)
        self.assertEqual(engine["batches"], run.json()["reports"])


class Dropped(e2e.Case):
    """The host drops frames in use, as it would after a wrong report: each workload
    finds that, and names a frame that was dropped. EBB_SEED repeats the choice."""

    FRAME = 4096
    FIRST, LAST = 64 << 20, 192 << 20  # of 256 MiB: frames only, no kernel, no metadata

    def check(self, workload):
        dice = random.Random(f"{e2e.SEED} {workload}")
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--backing", "memfd",
                         "--workload", workload)
        self.assertTrue(run.wait_for(f"step: {workload.split(';')[-1].strip()}"), run.describe())
        memory = run.guest_memory()
        self.addCleanup(os.close, memory)
        dropped = set()
        end = time.monotonic() + e2e.PATIENCE
        while run.process.poll() is None and time.monotonic() < end:
            pfn = dice.randrange(self.FIRST // self.FRAME, self.LAST // self.FRAME)
            dropped.add(pfn)
            e2e.drop(memory, pfn * self.FRAME, self.FRAME)
            time.sleep(0.002)
        run.wait()
        self.assertEqual(run.rc, 1, f"seed {e2e.SEED}: {run.describe()}")
        named = {int(pfn) for pfn in re.findall(r"pfn=(\d+)", run.err)}
        self.assertTrue(named, run.describe())
        self.assertLessEqual(named, dropped, f"seed {e2e.SEED}: {run.describe()}")
        self.assertGreater(run.json()["verify_errors"], 0)
        self.assert_clean(run)

    def test_memhog(self):
        self.check("memhog 75% x1000")

    def test_churn(self):
        self.check("churn 70% 600")

    def test_cycle(self):
        self.check("cycle 75% 0 600")

    def test_fragment(self):
        self.check("fragment 60% 8; idle 600")


@unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is not installed: NO picture was tested")
class Picture(e2e.Case):
    def run_small(self, *args):
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--workload",
                         "memhog 50%; idle 1", *args)
        return run.wait()

    def svg_text(self, path):
        return " ".join(xml.etree.ElementTree.parse(path).getroot().itertext())

    def plot(self, run, *args):
        done = subprocess.run([e2e.EBB, "plot", *args], cwd=run.dir, text=True, capture_output=True,
                              timeout=e2e.PATIENCE)
        return done.returncode, done.stderr

    def test_svg(self):
        run = self.run_small("--plot", "run.svg")
        self.assertEqual(run.rc, 0, run.describe())
        self.assert_clean(run, files=["run.svg"])
        self.assertTrue(run.out.endswith(f"Wrote run.svg and {run.json_path}.\n"), run.describe())
        text = self.svg_text(os.path.join(run.dir, "run.svg"))
        for want in ("held by the host", "in use by the guest", "last free", "q35, tcg, memfd",
                     "default settings", "memory (MiB)"):
            self.assertIn(want, text)
        self.assertRegex(text, r"(half|90 %|99 %) back (after \d|by the last free)")

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

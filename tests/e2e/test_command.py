# SPDX-License-Identifier: BSD-2-Clause
"""`ebb` and its options, and what it says about a machine that lacks something.
Needs no QEMU: a stand-in plays it."""
import fcntl
import json
import os
import pty
import re
import shlex
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import termios

import e2e
import mounts


THP = "/sys/kernel/mm/transparent_hugepage/enabled"


class Fake(e2e.Case):
    """With the stand-in for QEMU."""

    @classmethod
    def setUpClass(cls):
        cls.bin = tempfile.TemporaryDirectory(prefix="ebb-e2e-bin-")
        cls.addClassCleanup(cls.bin.cleanup)
        cls.qemu = os.path.join(cls.bin.name, "qemu-system-x86_64")
        with open(os.path.join(e2e.HERE, "fake_qemu.py")) as source, open(cls.qemu, "w") as f:
            f.write(f"#!{sys.executable}\n" + source.read())
        os.chmod(cls.qemu, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)

    def fake(self, mode, *args, rc=0, env=None, **keywords):
        return self.ebb("run", "--accel", "tcg", "--memory", "256M", "--qemu", self.qemu,
                        "--guest", self.qemu, *args, rc=rc, env=dict(env or {}, FAKE=mode), **keywords)


class Command(e2e.Case):
    def test_help(self):
        for args in ((), ("--help",), ("help",)):
            run = self.ebb(*args)
            for text in ("Usage: ebb COMMAND", "free page reporting", "run", "demo", "plot",
                         "ebb run --workload", "ebb run --set report.pacing=delay"):
                self.assertIn(text, run.out)

    def test_version(self):
        self.assertRegex(self.ebb("--version").out, r"^ebb \d+\.\d+\.\d+\n$")

    def test_unknown_command(self):
        self.assert_says(self.ebb("rum", rc=2), "no command 'rum'", "run", "demo", "plot")

    def test_help_of_commands(self):
        for command in ("run", "plot", "demo"):
            run = self.ebb(command, "--help", json_file=False)
            self.assertIn("Usage: ebb " + command, run.out)

    def test_wrong_options(self):
        for args in (["--memory", "2"], ["--memory", "1T"], ["--memory", "x"], ["--memory", "65M"],
                     ["--memory", "-1G"], ["--memory", "99999999999999999999G"],
                     ["--cpus", "0"], ["--cpus", "17"], ["--cpus", "two"], ["--machine", "virt"],
                     ["--accel", "hax"], ["--backing", "disk"], ["--reporting", "maybe"],
                     ["--set", "novalue"], ["--set", "=1"], ["--set", "a="], ["--set", 'a="'],
                     ["--set", "a=b c"], ["--set", "script=x"], ["--workload", 'say "x"'],
                     ["--workload", "x\ny"], ["--workload", "x" * 5000], ["--timeout", "0"],
                     ["--plot", "x.pdf"], ["--plot", "svg"], ["stray"], ["--nonsense"],
                     ["--quiet", "--console"], ["--icount", "--accel", "kvm"],
                     ["--kernel", "x"], ["--initrd", "x"], ["--append", "x"]):
            with self.subTest(args=args):
                run = self.ebb("run", *args, rc=2)
                self.assert_says(run, "ebb run: ")

    def test_wrong_linux_options(self):
        files = ["--guest", "linux", "--kernel", "/dev/null", "--initrd", "/dev/null"]
        for args, why in ((files[:2], "lab/linux/build"), (files[:4], "lab/linux/build"),
                          (["--machine", "microvm"], "virtio-mmio"), (["--interactive"], "prompt"),
                          (["--set", "report.delay_ms=5"], "reference guest"),
                          (["--set", "zone.fill=zero"], "reference guest"),
                          (["--set", "ebb.script=x"], "--workload"),
                          (["--append", "ebb.script=x"], "--workload"),
                          (["--append", "quiet -- x"], "'--'"), (["--append", 'a="b'], "quote"),
                          (["--append", "a\nb"], "plain text"), (["--append", "x" * 1001], "1000"),
                          (["--append", "x" * 900, "--workload", "y" * 1100], "room")):
            with self.subTest(args=args):
                args = args if args[0] == "--guest" else files + args
                self.assert_says(self.ebb("run", *args, rc=2), "ebb run: ", why)

    def test_demo(self):
        for args in ([], ["--delay-ms", "10"], ["--budget", "2"]):
            with self.subTest(args=args):
                run = self.ebb("demo", "--size", "128M", *args)
                self.assertIn(" 0 lost their contents; the allocator checks out sound", run.out)
                percent = float(re.search(r"\(([0-9.]+) %\) back", run.out).group(1))
                self.assertGreaterEqual(percent, 98)
                self.assertLessEqual(percent, 100)

    def test_wrong_demo_options(self):
        for args in (["--size", "127M"], ["--size", "65G"], ["--size", "128.5M"], ["--size", "x"],
                     ["--delay-ms", "0"], ["--budget", "1025"], ["stray"]):
            with self.subTest(args=args):
                self.assert_says(self.ebb("demo", *args, rc=2), "ebb demo: ")

    def test_wrong_plot_options(self):
        for args in ([], ["a.json"], ["a.json", "-o", "a.pdf"], ["-o", "a.svg"]):
            with self.subTest(args=args):
                self.ebb("plot", *args, rc=2)


class Harness(e2e.Case):
    """A test program in which something was skipped does not pass."""

    def status(self, *bodies):
        methods = "".join(f"    def test_{i}(self): {body}\n" for i, body in enumerate(bodies))
        script = f"import e2e\nclass T(e2e.Case):\n    pass\n{methods}e2e.main()\n"
        done = subprocess.run([sys.executable, "-c", script, "ebb", "guest"], text=True, timeout=e2e.PATIENCE,
                              cwd=e2e.HERE, capture_output=True)
        return done.returncode, done.stderr

    def test_status(self):
        skip, fail = "self.skipTest('it rains')", "self.fail()"
        self.assertEqual(self.status("pass")[0], 0)
        rc, err = self.status("pass", skip)
        self.assertEqual(rc, 77)
        self.assertRegex(err, r"(?m)^SKIP: .*it rains$")
        self.assertEqual(self.status("pass", skip, fail)[0], 1)
        self.assertEqual(self.status()[0], 1)


class Machine(Fake):
    """Things this machine can lack: said before the run, exit status 4."""

    def test_no_qemu(self):
        with tempfile.TemporaryDirectory() as empty:
            run = self.ebb("run", "--guest", self.qemu, rc=4, env={"PATH": empty})
            self.assert_says(run, "QEMU was not found", "qemu-system-x86")
        run = self.ebb("run", "--guest", self.qemu, "--qemu", "/nonexistent/qemu", rc=4)
        self.assert_says(run, "QEMU was not found", "/nonexistent/qemu")
        self.assert_no_json(run)

    def test_broken_qemu(self):
        self.assert_says(self.fake("version_fails", rc=4), "no working QEMU", "fake: cannot")
        run = self.ebb("run", "--accel", "tcg", "--qemu", "/bin/true", "--guest", self.qemu, rc=4)
        self.assert_says(run, "/bin/true is no QEMU")

    def test_endless_qemu(self):
        """What a program says of itself is kept up to a bound."""
        script = os.path.join(self.bin.name, "endless")
        with open(script, "w") as f:
            f.write("#!/bin/sh\nexec cat /dev/zero\n")
        os.chmod(script, stat.S_IRWXU)
        run = self.ebb("run", "--accel", "tcg", "--qemu", script, "--guest", self.qemu, rc=4)
        self.assert_says(run, "--version fails, so it is no working QEMU")

    def test_no_guest(self):
        run = self.ebb("run", "--qemu", self.qemu, "--guest", "/nonexistent/guest.elf", rc=4)
        self.assert_says(run, "/nonexistent/guest.elf", "No such file")

    def test_no_linux(self):
        run = self.ebb("run", "--qemu", self.qemu, "--guest", "linux", "--kernel", "/nonexistent/vmlinuz",
                       "--initrd", "/nonexistent/initrd", rc=4)
        self.assert_says(run, "--kernel /nonexistent/vmlinuz: No such file", "lab/linux/build")

    def test_no_gnuplot(self):
        with tempfile.TemporaryDirectory() as empty:
            run = self.fake("good", "--plot", "x.svg", rc=4, env={"PATH": empty})
            self.assert_says(run, "gnuplot", "gnuplot-nox")

    def test_unwritable(self):
        for path in ("/nonexistent/x.json", "/", "", "/proc/x.json"):
            with self.subTest(path=path):
                run = self.fake("good", "--json", path, rc=4, json_file=False)
                self.assert_says(run, "cannot write")
        run = self.fake("good", "--plot", "/nonexistent/x.svg", rc=4)
        self.assert_says(run, "cannot write /nonexistent/x.svg")

    def test_disk_full(self):
        run = self.fake("good", "--json", "/dev/full", rc=4, json_file=False)
        self.assert_says(run, "cannot write /dev/full", "No space left")
        with open("/dev/full", "w") as full:
            run = self.fake("good", rc=4, stdout=full)
        self.assert_says(run, "standard output")

    def with_file(self, target, text, mode=0o444):
        """For Popen: shows ebb this text in the place of a file of this machine."""
        if not mounts.can_replace(target):
            self.skipTest(f"{target} cannot be replaced for a test here")
        source = tempfile.NamedTemporaryFile(prefix="ebb-e2e-")
        self.addCleanup(source.close)
        source.write(text.encode())
        source.flush()
        os.chmod(source.name, mode)
        return lambda: mounts.replace(target, source.name)

    def test_too_little_memory(self):
        little = self.with_file("/proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 430080 kB\n")
        run = self.fake("good", "--memory", "64G", rc=4, preexec=little)
        self.assert_says(run, "too little memory", "65536 MiB", "420 MiB are available", "--memory")
        run = self.ebb("demo", "--size", "512M", rc=4, preexec=little)
        self.assert_says(run, "too little memory", "512 MiB", "--size")
        self.fake("quick", preexec=little)  # 256 MiB and QEMU's own fit

    def test_thp_off(self):
        off = None
        if os.path.exists(THP):
            off = self.with_file(THP, "always madvise [never]\n")
        run = self.fake("good", "--backing", "thp", rc=4, preexec=off)
        self.assert_says(run, "transparent huge pages off")

    def test_no_kvm(self):
        """Not there, or neither to be opened nor to be used."""
        if not os.path.exists("/dev/kvm"):
            self.assert_says(self.fake("good", "--accel", "kvm", rc=4), "--accel kvm", "no /dev/kvm")
            return
        for mode, want in ((0, "Permission denied"), (0o666, "opens but runs nothing")):
            run = self.ebb("run", "--accel", "kvm", "--qemu", self.qemu, "--guest", self.qemu, rc=4,
                           preexec=self.with_file("/dev/kvm", "", mode))
            self.assert_says(run, "--accel kvm", want, "--accel tcg")

    def test_auto_tells_its_choice(self):
        run = self.ebb("run", "--memory", "256M", "--qemu", self.qemu, "--guest", self.qemu,
                       env={"FAKE": "good"})
        self.assertRegex(run.out.splitlines()[0], r"^Using (KVM|QEMU's translator \(TCG\)): .+\.$")
        self.assertIn(run.json()["accel"], ("tcg", "kvm"))


class Guest(Fake):
    """What the guest, or QEMU, can do wrong during a run."""

    def test_dies_at_start(self):
        run = self.fake("dies_at_start", rc=4)
        self.assert_says(run, "did not start the guest", "status 1", "fake: no such machine")
        self.assert_no_json(run)

    def test_leaves_at_start(self):
        self.assert_says(self.fake("leaves_at_start", rc=4), "did not start the guest", "status 0")

    def test_dies(self):
        run = self.fake("dies", rc=4)
        self.assert_says(run, "QEMU ended with status 1", "fake: out of luck")
        self.assertEqual(run.json()["status"], "qemu failed")

    def test_killed(self):
        self.assert_says(self.fake("killed", rc=4), "killed by signal 9")

    def test_resets(self):
        self.assert_says(self.fake("resets", rc=3), "reset or switched off")

    def test_panics(self):
        run = self.fake("panics", rc=3)
        self.assert_says(run, "panicked", "PANIC on CPU 0", "rip 0000000000012345")
        self.assertNotIn("\x1b", run.err)

    def test_refuses(self):
        self.assert_says(self.fake("refuses", rc=2), "refused", "no such command")

    def test_refuses_device(self):
        """Without a balloon it works as ever, which is no success, and the reason is told."""
        for args in ((), ("--console",), ("--quiet",)):
            run = self.fake("refuses_device", *args, rc=4)
            self.assert_says(run, "the guest does not report")
            self.assertIn("speaks legacy virtio only", run.out if "--console" in args else run.err)
            self.assertEqual(run.json()["status"], "host failed")
        self.fake("refuses_device", "--reporting", "off")
        self.fake("refuses_device", "--set", "report=off")

    def test_chatters(self):
        """All of its console is shown, however much it is."""
        run = self.fake("chatters", "--console")
        self.assertEqual(run.out.count("guest: one\n"), 100000)
        # Lines of ebb's own may come in between where one is very long.
        self.assertEqual(sum(map(len, re.findall("xx+", run.out))), 100000)

    def test_hangs(self):
        run = self.fake("hangs", "--timeout", "6", rc=3)
        self.assert_says(run, "silent for 6 s", "in step churn 10% 5")
        self.assertEqual(run.json()["status"], "hang")

    def test_mute(self):
        run = self.fake("mute", "--timeout", "1", rc=3)
        self.assert_says(run, "silent for 1 s")
        self.assert_no_json(run)

    def test_ends_and_stays(self):
        self.assert_says(self.fake("ends_and_stays", "--timeout", "3", rc=3), "silent for 3 s")

    def test_flood(self):
        run = self.fake("flood", "--timeout", "6", rc=3)
        self.assert_says(run, "silent for 6 s", "telemetry were damaged")

    def test_newer(self):
        self.assert_says(self.fake("newer", rc=4), "version 2", "version 1")

    def test_no_memory(self):
        self.assert_says(self.fake("no_memory", rc=4), "cannot find the guest's memory")

    def test_corrupted(self):
        run = self.fake("corrupted", rc=1)
        self.assert_says(run, "WARNING", "pfn=77 expect=0x1 found=0x0")
        self.assertNotIn("\x1b", run.err)
        self.assertEqual(run.json()["verify_errors"], 1)
        self.assertEqual(run.json()["status"], "verify error")

    def test_quiet_errors(self):
        run = self.fake("quiet_errors", rc=1)
        self.assert_says(run, "WARNING", "3 errors")
        self.assertEqual(run.json()["verify_errors"], 3)


class Caller(Fake):
    """What ebb inherits from its caller."""

    def test_children_ignored(self):
        """SIGCHLD ignored: the end of QEMU is seen all the same."""
        run = self.fake("quick", preexec=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
        self.assertEqual(run.json()["status"], "ok")

    def test_signal_ignored(self):
        """nohup: a signal that the caller ignores does not end the run; others do."""
        def nohup():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--qemu", self.qemu,
                         "--guest", self.qemu, env={"FAKE": "idle"}, preexec=nohup)
        self.assertTrue(run.wait_for("the guest is up"), run.describe())
        run.process.send_signal(signal.SIGHUP)
        run.process.send_signal(signal.SIGTERM)
        run.wait()
        self.assertEqual(run.rc, 128 + signal.SIGTERM, run.describe())
        self.assert_says(run, "interrupted (Terminated)")
        self.assert_clean(run)

    def test_nobody_reads(self):
        """A pipe that is full: signals are heard all the same."""
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--qemu", self.qemu,
                         "--guest", self.qemu, "--console", env={"FAKE": "chatters"})
        run.wait_full()
        run.process.send_signal(signal.SIGTERM)
        self.assertEqual(run.process.wait(e2e.PATIENCE), 128 + signal.SIGTERM)
        self.assert_clean(run)

    def test_script_around_qemu(self):
        """A script that leaves something behind: that ends with it."""
        script = os.path.join(self.bin.name, "script")
        with open(script, "w") as f:
            f.write(f"#!/bin/sh\n[ \"$1\" = --version ] || sleep 1000 &\n"
                    f"{shlex.quote(self.qemu)} \"$@\"\n")
        os.chmod(script, stat.S_IRWXU)
        run = self.ebb("run", "--accel", "tcg", "--memory", "256M", "--qemu", script, "--guest",
                       self.qemu, rc=4, env={"FAKE": "dies"})
        self.assert_says(run, "fake: out of luck")

    def test_odd_arguments(self):
        """The JSON is valid whatever the arguments, and its command repeats them."""
        odd = "it's\t\x01 \\ $HOME `x` \xfc7.json".encode("latin-1")
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--qemu", self.qemu, "--guest",
                         self.qemu, "--workload", "idle 1; it's $HOME", "--json", os.fsdecode(odd),
                         env={"FAKE": "quick"}, json_file=False).wait()
        self.assertEqual(run.rc, 0, run.describe())
        with open(os.path.join(os.fsencode(run.dir), odd), "rb") as f:
            command = json.loads(f.read().decode())["command"]
        said = subprocess.run(["bash", "-c", 'ebb() { printf "%s\\0" "$@"; }; ' + command],
                              capture_output=True, check=True).stdout.split(b"\0")[:-1]
        self.assertEqual(said, [os.fsencode(a) for a in run.args[1:]])


class Terminal(Fake):
    """The chart on a terminal."""

    def show(self, columns, rows, **env):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        run = self.start("run", "--accel", "tcg", "--memory", "256M", "--qemu", self.qemu,
                         "--guest", self.qemu, stdout=slave,
                         env=dict({"FAKE": "good", "TERM": "xterm"}, **env))
        os.close(slave)
        text = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            text += data
        os.close(master)
        run.wait()
        self.assertEqual(run.rc, 0, run.describe())
        self.assert_clean(run)
        return text.decode()

    def test_chart(self):
        text = self.show(100, 30)
        frames = text.split("\x1b[?7l")[1:]
        self.assertGreater(len(frames), 5)
        self.assertEqual(text.count("\x1b[?7h"), len(frames))
        # Each frame but the first goes back over the whole one before.
        lines = {frame.split("\x1b[?7h")[0].count("\n") for frame in frames}
        self.assertEqual(len(lines), 1)
        self.assertEqual(text.count(f"\x1b[{lines.pop()}A"), len(frames) - 1)
        self.assertIn("\u2588", text)
        self.assertIn("step: idle 1", text)
        self.assertIn("The host had its memory back", text)

    def test_plain_characters(self):
        text = self.show(60, 24, LC_ALL="C", NO_COLOR="1")
        self.assertTrue(text.isascii())
        self.assertNotRegex(text, r"\x1b\[[0-9;]*m")
        self.assertIn("####", text)

    def test_too_small_or_dumb(self):
        for columns, rows, env in ((40, 30, {}), (100, 10, {}), (100, 30, {"TERM": "dumb"})):
            with self.subTest(columns=columns, rows=rows, env=env):
                text = self.show(columns, rows, **env)
                self.assertNotIn("\x1b", text)
                self.assertIn("the workload has freed", text)


class Figures(Fake):
    """The host's half of the figures, against memory that behaves as planned:
    128 MiB held, given back in 7 steps of 100 ms."""

    KEYS = {"ebb_version", "qemu_version", "command", "status", "machine", "accel", "backing",
            "reporting", "guest_mib", "cpus", "workload", "settings", "baseline_mib", "peak_mib",
            "freed_mib", "returned_mib", "residue_mib", "release_ms", "first_ms", "t50_ms", "t90_ms",
            "t99_ms", "reports", "reported_mib", "refaulted_mib", "failed_reports", "verify_checks",
            "verify_errors", "vmm_cpu_ms", "malformed_lines", "samples", "guest", "kernel", "append",
            "icount", "pin", "release_cpu_ns", "end_cpu_ns", "results", "engine", "steps", "host",
            "ebbd_cpu_ms"}

    def check(self, run):
        d = run.json()
        self.assertEqual(set(d), self.KEYS)
        self.assertAlmostEqual(d["freed_mib"], 128, delta=0.01)
        self.assertAlmostEqual(d["returned_mib"], 128, delta=1.5)
        self.assertAlmostEqual(d["residue_mib"], d["freed_mib"] - d["returned_mib"], delta=0.02)
        self.assertLess(d["baseline_mib"], 16)
        self.assertAlmostEqual(d["peak_mib"], 128, delta=1.5)
        # The times, once more, from the samples.
        release, times = d["release_ms"], [s[0] for s in d["samples"]]
        self.assertEqual(times, sorted(times))
        for key, back in (("first_ms", 2), ("t50_ms", 64), ("t90_ms", 115.2), ("t99_ms", 126.72)):
            self.assertIsNotNone(d[key])
            at = next(s[0] for s in d["samples"]
                      if s[0] > release - 0.1 and d["peak_mib"] - s[2] >= back - 0.02)
            self.assertAlmostEqual(d[key], at - release, delta=0.25)
        self.assertLessEqual(d["first_ms"], d["t50_ms"])  # the same sample, if busy
        self.assertLessEqual(d["t50_ms"], d["t90_ms"])
        self.assertLessEqual(d["t90_ms"], d["t99_ms"])  # the same step
        return d

    def test_anon(self):
        self.check(self.fake("good", "--backing", "anon"))

    def test_memfd(self):
        run = self.fake("good", "--backing", "memfd", "--set", "report.delay_ms=7", "--set", "seed=1")
        d = self.check(run)
        self.assertEqual(d["settings"], {"report.delay_ms": "7", "seed": "1"})
        self.assertEqual(d["qemu_version"], "99.1.2")
        self.assertEqual((d["guest_mib"], d["cpus"], d["reports"], d["verify_checks"]), (256, 2, 8, 1000))
        self.assertEqual((d["machine"], d["accel"], d["backing"], d["reporting"], d["status"]),
                         ("q35", "tcg", "memfd", "on", "ok"))
        self.assertTrue(d["command"].startswith("ebb run --accel tcg"))
        self.assertEqual((d["reported_mib"], d["refaulted_mib"], d["malformed_lines"]), (4, 1, 0))
        # Sampled quickly after the release, slowly before: by their number, not by time.
        release = d["release_ms"]
        after = [s for s in d["samples"] if release <= s[0] < release + 900]
        self.assertGreater(len(after), 2 * 900 / 50)
        for text in ("came back", "128 MiB", "The host had its memory back"):
            self.assertIn(text, run.out)

    def test_memory_taken_again(self):
        d = self.check(self.fake("regrow", "--backing", "memfd"))
        self.assertGreater(d["samples"][-1][2], 60)

    def test_noise(self):
        run = self.fake("noise", "--backing", "memfd")
        d = self.check(run)
        self.assertEqual(d["malformed_lines"], 12)
        self.assertLess(max(s[1] for s in d["samples"]), 256)
        self.assert_says(run, "WARNING: 12 lines")

    def test_before_the_last_free(self):
        """Back before the guest was done freeing: 0 in the JSON, words in the summary."""
        run = self.fake("early", "--backing", "memfd")
        d = run.json()
        self.assertEqual((d["first_ms"], d["t50_ms"]), (0, 0))
        self.assertGreater(d["t90_ms"], 1)
        self.assertRegex(run.out, r"(?m)^  first memory back +before the last free$")
        self.assertRegex(run.out, r"(?m)^  half back +before the last free$")
        self.assertRegex(run.out, r"(?m)^  90 % back +\d+ ms after the last free$")
        self.assertNotRegex(run.out, r"\b0 ms")

    def test_nothing_freed(self):
        run = self.fake("quick")
        self.assertIn("never freed anything", run.out)
        self.assertNotIn("came back", run.out)
        self.assertIsNone(run.json()["release_ms"])

    def test_nothing_reported(self):
        run = self.fake("unreported")
        for text in ("The guest reported nothing", "99 % back          not by the end of the run",
                     "to the host: 0.0 %"):
            self.assertIn(text, run.out)
        self.assertNotRegex(run.out, r"-0\b")
        self.assertIsNone(run.json()["first_ms"])
        run = self.fake("unreported", "--reporting", "off")
        self.assertIn("Without reporting the host keeps", run.out)

    def test_results(self):
        run = self.fake("measures")
        d = run.json()
        self.assertEqual(d["results"], [
            {"ns": 3, "step": "cycle", "cycles": 7, "frames": 70, "busy_ns": "18446744073709551615",
             "ratio": "0.5", "odd": "1?"},
            {"ns": 5, "step": "page_fault1", "mode": "procs", "tasks": 2, "thp": 0}])
        self.assertEqual(d["engine"], {"ns": 7, "window_ns": 50000000, "passes": 9})
        self.assertEqual(d["malformed_lines"], 7)

    def test_steps(self):
        d = self.fake("measures").json()
        self.assertEqual([s["cmd"] for s in d["steps"]], ["idle 1", "cycle 50% 100 1", "idle 2"])
        for step, after in zip(d["steps"], d["steps"][1:]):
            self.assertEqual(step["end_ms"], after["begin_ms"])
        self.assertLess(d["steps"][2]["begin_ms"], d["steps"][2]["end_ms"])
        self.assertAlmostEqual(d["steps"][1]["mean_resident_mib"], 128, delta=48)
        self.assertLess(d["steps"][2]["mean_resident_mib"], 64)

    def test_cpu_time(self):
        d = self.fake("good").json()
        self.assertEqual({len(s) for s in d["samples"]}, {5})
        for column in (3, 4):
            times = [s[column] for s in d["samples"]]
            self.assertEqual(times, sorted(times))
        # The stand-in has no thread with the name of a guest's CPU.
        self.assertEqual(d["samples"][-1][3], 0)
        self.assertEqual(d["end_cpu_ns"], d["samples"][-1][3:])
        self.assertLess(d["release_cpu_ns"][1], d["end_cpu_ns"][1])
        self.assertLessEqual(d["end_cpu_ns"][1], d["vmm_cpu_ms"] * 1e6 + 20e6)

    def test_linux(self):
        """What Linux does not count is null; its settings are words for its kernel."""
        run = self.fake("good", "--guest", "linux", "--kernel", self.qemu, "--initrd", self.qemu,
                        "--append", "a b=c", "--set", "page_reporting.page_reporting_order=0")
        d = self.check(run)
        self.assertEqual((d["guest"], d["kernel"], d["append"]),
                         ("linux", os.path.basename(self.qemu), "a b=c"))
        self.assertEqual([d[k] for k in ("reports", "reported_mib", "refaulted_mib", "failed_reports")],
                         [None] * 4)
        self.assertNotIn("reports:", run.out)

    def test_says_what_it_wrote(self):
        run = self.fake("quick")
        self.assertTrue(run.out.endswith(f"Wrote {run.json_path}.\n"), run.describe())
        run = self.fake("quick", json_file=False)
        self.assertNotIn("Wrote", run.out)
        run = self.fake("mute", "--timeout", "1", rc=3)
        self.assert_says(run, "no results were written")

    def test_quiet(self):
        run = self.fake("good", "--quiet")
        self.assertEqual((run.out, run.err), ("", ""))


if __name__ == "__main__":
    e2e.main()

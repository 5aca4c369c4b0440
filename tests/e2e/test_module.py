# SPDX-License-Identifier: BSD-2-Clause
"""Stock Linux guests with ebb's module (linux/): it is built for Debian's 6.12 and
6.1 with their header packages, loaded at boot, and has to give memory back, all
of it, under whatever else goes on. What the workloads hold is stamped and checked.
Kernels and headers are kept in $EBB_LINUX_DIR, or else in the build directory.
"""
import glob
import os
import re
import shutil
import subprocess
import tempfile

import e2e

ROOT = os.path.join(e2e.HERE, "..", "..")
KERNELS = ("6.12", "6.1")
TROUBLE = re.compile(r"WARNING:|BUG:|Oops|Call Trace|hogged CPU|ebb: broken|cannot ")


def setUpModule():
    for kernel in KERNELS:
        Module.files[kernel] = e2e.linux_guest(
            "the module cannot be built here, so NO Linux guest was tested with it",
            "--module", "--debug", "--kernel", kernel)


class Module(e2e.Case):
    files = {}

    def linux(self, kernel, workload, *args, rc=0, append="", memory="1G", env=None):
        vmlinuz, initrd, module = self.files[kernel]
        run = self.ebb("run", "--guest", "linux", "--kernel", vmlinuz, "--initrd", initrd,
                       "--module", module, "--accel", "tcg", "--memory", memory, "--timeout", "600",
                       "--console", "--append", f"loglevel=7 {append}", "--workload", workload,
                       *args, rc=rc, env=env)
        # What the kernel says of itself before the module is there is not ours.
        log = run.out[run.out.index("ebb_reporting"):] if "ebb_reporting" in run.out else ""
        if rc == 0:
            self.assertIsNone(TROUBLE.search(log), log)
        return run

    def each(self, workload, **options):
        """With each kernel, from the moment on that the module reports."""
        for kernel in KERNELS:
            run = self.linux(kernel, "module wait; " + workload, **options)
            d = run.json()
            self.assertEqual((d["status"], d["verify_errors"]), ("ok", 0), kernel)
            yield run, d

    def statistics(self, run):
        """What `module show` printed last."""
        shown = run.out[run.out.rindex("state "):]
        return {key: int(value) for key, value in re.findall(r"(\w+) (\d+)\s*\n", shown)}

    def check_returned(self, d, share):
        """Of what the workloads had the host hold at most."""
        d = dict(d, held=d.pop("samples")[-1][2])
        taken = d["peak_mib"] - d["baseline_mib"]
        self.assertGreater(taken, 16, d)
        self.assertLessEqual(d["held"], d["baseline_mib"] + (1 - share) * taken, d)

    def test_sparse(self):
        """The kernel's own checker of address spaces and locks has nothing to say."""
        if not shutil.which("sparse"):
            self.skipTest("sparse is not installed: the module was NOT checked by it")
        (kdir,) = glob.glob(os.path.join(e2e.linux_dir(), "headers-6.12.*-cloud-*", "usr", "src", "linux-headers-*64"))
        with tempfile.TemporaryDirectory() as build:
            done = subprocess.run(
                ["make", "-j2", "-C", os.path.join(ROOT, "linux"), f"KDIR={kdir}", f"BUILD={build}", "C=2",
                 "CONFIG_DEBUG_INFO_BTF_MODULES="], text=True, capture_output=True, timeout=1200)
            self.assertEqual(done.returncode, 0, done.stderr)
            said = [line for line in done.stderr.split("\n") if line.startswith(build)]
            self.assertEqual(said, [])

    def test_memory_comes_back(self):
        """Without the module some stays in per-CPU lists for ever, so that this fails."""
        for run, d in self.each("memhog 60%; idle 8; module show"):
            self.assertIn("attached: free memory is reported by ebb", run.out)
            self.assertGreater(d["freed_mib"], 500)
            self.check_returned(d, 0.99)
            s = self.statistics(run)
            self.assertEqual((s["failed_batches"], s["waiting_window_kib"]), (0, 0))
            # Nothing is told twice unless it was used or lost its mark in between.
            self.assertLessEqual(s["told_kib"], s["free_kib"] + s["refaulted_kib"] +
                                 2 * s["marks_lost_kib"])

    def test_fragmented(self):
        """Each eighth page stays in use; the rest comes back, and with order=9 it does not."""
        for run, d in self.each("fragment 60% 8; report now; idle 0.3; module show"):
            self.assertGreaterEqual(d["returned_mib"], 0.98 * d["freed_mib"])
            self.assertLess(self.statistics(run)["waiting_rest_kib"], 1024)
        run = self.linux("6.12", "module wait; fragment 60% 8; report now; module show",
                         append='ebb.module="order=9"')
        self.assertLess(run.json()["returned_mib"], 0.1 * run.json()["freed_mib"])
        self.assertGreater(self.statistics(run)["below_order_kib"], 256 * 1024)

    def test_reloaded(self):
        """Loaded and unloaded while guests take and free all the time; then it works still."""
        for run, d in self.each("module again 12; cycle 60% 50 4; fragment 50% 8; release; module wait; "
                                "memhog 50%; report now; idle 0.3; verify"):
            self.assertGreaterEqual(run.out.count("let go: the kernel reports by itself again"), 1)
            self.check_returned(d, 0.98)

    def test_unloaded(self):
        """The kernel's own reporting goes on as ever."""
        for run, d in self.each("module unload; memhog 60%; idle 12"):
            self.assertIn("let go", run.out)
            self.check_returned(d, 0.3)

    def test_rebound(self):
        """The balloon's driver leaves and comes back."""
        for run, d in self.each("module rebind 10; module wait; memhog 50%; report now; idle 0.3; module show"):
            self.assertIn("the report device goes: detached", run.out)
            self.assertGreater(run.out.count("reported by ebb"), 1)
            self.check_returned(d, 0.98)

    def test_parameters(self):
        parameters = "/sys/module/ebb_reporting/parameters"
        for run, d in self.each(f"write {parameters}/window_max_ms 500; write {parameters}/order 3; "
                                "memhog 40%; report now; idle 0.3; module show",
                                append='ebb.module="window_min_ms=20 window_start_ms=60"'):
            self.assertLessEqual(self.statistics(run)["window_ms"], 500)
            self.check_returned(d, 0.98)
        run = self.linux("6.12", "idle 1", append='ebb.module="window_min_ms=9999"', rc=2)
        self.assertIn("window_min_ms is above window_max_ms", run.out + run.err)

    def test_scribbled(self):
        """A host that drops what it is told of, and writes garbage there."""
        directory = tempfile.mkdtemp(prefix="ebb-e2e-")
        self.addCleanup(shutil.rmtree, directory)
        shim = os.path.join(directory, "scribble.so")
        cc = os.environ.get("CC", "cc").split()
        subprocess.run([*cc, "-shared", "-fPIC", "-O2", "-o", shim, os.path.join(e2e.HERE, "scribble.c")],
                       check=True)
        for run, d in self.each("cycle 40% 100 4; fragment 50% 8; idle 3; memhog 20%; release; report now; "
                                "memhog 60%; verify", memory="512M", env={"LD_PRELOAD": shim}):
            self.assertGreater(d["verify_checks"], 100000)
            # What is garbage is there: the shim did its work.
            self.assertLess(d["returned_mib"], 0.2 * d["freed_mib"])

    def test_small_guest(self):
        for _, d in self.each("memhog 40%; report now; idle 0.3", memory="192M"):
            self.check_returned(d, 0.9)

    def test_cpu_goes(self):
        online = "/sys/devices/system/cpu/cpu1/online"
        for _, d in self.each(f"write {online} 0; idle 1; write {online} 1; memhog 50%; report now; idle 1"):
            self.check_returned(d, 0.98)


e2e.need_qemu()
if __name__ == "__main__":
    e2e.main()

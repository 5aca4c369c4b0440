# SPDX-License-Identifier: BSD-2-Clause
"""A real Linux guest beside the reference guest: `ebb run --guest=linux` with what
lab/linux/build makes. Debian's kernel is fetched once and kept in
$EBB_LINUX_DIR, or else in the build directory.
"""
import os
import re
import subprocess
import sys
import tempfile

import e2e


def setUpModule():
    Linux.files = e2e.linux_guest("no Linux kernel can be had here, so NOTHING was tested with one")


class Linux(e2e.Case):
    files = None

    def linux(self, workload, *args, rc=0):
        return self.ebb("run", "--guest", "linux", "--kernel", self.files[0], "--initrd", self.files[1],
                        "--accel", "tcg", "--memory", "512M", "--timeout", "600", "--workload", workload,
                        *args, rc=rc)

    def test_memory_comes_back(self):
        d = self.linux("memhog 60%; idle 9").json()
        self.assertEqual((d["status"], d["guest"], d["kernel"]), ("ok", "linux", "vmlinuz-6.12"))
        self.assertEqual((d["malformed_lines"], d["verify_errors"], d["reports"]), (0, 0, None))
        self.assertGreater(d["freed_mib"], 256)
        self.assertGreaterEqual(d["verify_checks"], d["freed_mib"] * 256 - 1)
        # Some of it stays in Linux's per-CPU lists.
        self.assertGreater(d["returned_mib"], 0.5 * d["freed_mib"])
        self.assertLessEqual(d["first_ms"], d["t50_ms"])
        self.assertEqual([s["cmd"] for s in d["steps"]], ["memhog 60%", "idle 9"])
        self.check_cpu(d)

    def check_cpu(self, d):
        """Of the threads that are the guest's CPUs, and of all others."""
        for a, b in zip(d["samples"], d["samples"][1:]):
            self.assertLessEqual(a[3], b[3])
            self.assertLessEqual(a[4], b[4])
        for released, ended in zip(d["release_cpu_ns"], d["end_cpu_ns"]):
            self.assertGreater(released, 0)
            self.assertGreater(ended, released)
        self.assertGreater(d["end_cpu_ns"][0], d["end_cpu_ns"][1])  # a guest that boots works

    def check_faults(self, result, tasks, thp, step="page_fault1"):
        self.assertEqual((result["step"], result["tasks"], result.get("thp", 0)), (step, tasks, thp))
        if thp:  # one for 512 pages, and what else the guest does
            self.assertLess(result["faults"], result["pages"] / 10)
        else:  # a task may have had its fault before the beginning, and counted the page after it
            self.assertGreaterEqual(result["faults"], result["pages"] - tasks)
        self.assertGreaterEqual(result["elapsed_ns"], 5e8)
        self.assertEqual(result["busy_ns"] + result["idle_ns"], 2 * result["elapsed_ns"])
        self.assertEqual(result.get("clear_ns", 0) > 0, step == "page_fault1")

    def test_workloads(self):
        """With reporting off: nothing comes back. Each step tells what it did."""
        run = self.linux("page_fault1 procs 1 1; page_fault1 threads 2 0.5; page_fault1 procs 1 1 thp; "
                         "page_fault2 1 1; cycle 30% 50 0.5; fragment 40% 8; idle 0.1; idle until 0.1; release",
                         "--reporting", "off", "--console")
        d = run.json()
        self.assertEqual(d["status"], "ok")
        results = d["results"]
        self.assertEqual(len(results), 5)
        self.check_faults(results[0], 1, 0)
        self.check_faults(results[1], 2, 0)
        self.check_faults(results[2], 1, 1)
        self.check_faults(results[3], 1, 0, "page_fault2")
        self.assertEqual([r.get("mode") for r in results[:3]], ["procs", "threads", "procs"])
        cycle = results[4]
        self.assertGreater(cycle["cycles"], 0)
        self.assertEqual(cycle["frames"] % cycle["cycles"], 0)
        self.assertLess(cycle["busy_ns"], cycle["elapsed_ns"])
        # fragment: an eighth stays.
        self.assertRegex(run.out, r"fragment: \d+ MiB freed, \d+ MiB stay, one frame in 8")
        freed, stay = map(int, re.search(r"fragment: (\d+) MiB freed, (\d+)", run.out).groups())
        self.assertAlmostEqual(stay / (stay + freed), 1 / 8, delta=0.01)
        self.assertLess(d["returned_mib"], 0.05 * d["freed_mib"])
        self.assertIn("guest: tasks,processes,processes_idle,threads,threads_idle,linear", run.out)
        self.assertRegex(run.out, r"guest: 1,\d+,\d+\.\d\d,0,100.00,\d+\n")
        self.assertRegex(run.out, r"guest: 2,0,100.00,\d+,\d+\.\d\d,\d+\n")

    def test_lost_page(self):
        run = self.linux("corrupt; memhog 10%", rc=1)
        self.assert_says(run, "a frame in use lost its contents", "found=0x0")
        self.assertEqual((run.json()["status"], run.json()["verify_errors"]), ("verify error", 1))

    def test_refused_script(self):
        """Before any of it is done, and with the reason."""
        run = self.linux("memhog 10%; churn 10% 1", rc=2)
        self.assert_says(run, "'churn 10% 1': the Linux guest has no such command")
        self.assertNotIn("holds", run.out)
        self.assert_says(self.linux("memhog 100%", rc=2), "more than the", "available")

    def test_icount(self):
        """Time in instructions, here the reference guest's."""
        d = self.ebb("run", "--icount", "--memory", "256M", "--cpus", "1", "--workload",
                     "memhog 50%; idle 0.1").json()
        self.assertEqual((d["status"], d["accel"], d["icount"]), ("ok", "tcg", True))
        self.assertEqual(d["verify_errors"], 0)


class Build(e2e.Case):
    def test_again(self):
        """What is there is not fetched again, nor with any of the tools for it."""
        again = e2e.run_script(e2e.LINUX_BUILD, e2e.linux_dir())
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertNotIn("fetching", again.stdout)
        self.assertEqual([os.path.basename(f) for f in again.stdout.split()],
                         ["vmlinuz-6.12", "initrd-6.12"])

    def test_warnings(self):
        """Of what the compiler can warn of, the guest's init has nothing."""
        build = e2e.load_build()
        build.FLAGS = build.FLAGS + ["-Wconversion", "-Wshadow", "-Werror"]
        with tempfile.TemporaryDirectory() as into:
            build.compile_init(os.path.join(into, "init"))

    def test_complaints(self):
        """A missing package is named."""
        run = self.start("--version")
        run.wait()
        done = subprocess.run([sys.executable, os.path.join(e2e.HERE, "..", "..", e2e.LINUX_BUILD), os.path.join(run.dir, "new")], text=True,
                              capture_output=True, env=dict(os.environ, PATH="/nonexistent"))
        self.assertEqual(done.returncode, 77)
        self.assertIn("please install the package apt", done.stderr)
        done = e2e.run_script(e2e.LINUX_BUILD, "/dev/null/x")
        self.assertNotIn(done.returncode, (0, 77))
        self.assertNotIn("Traceback", done.stderr)


e2e.need_qemu()
if __name__ == "__main__":
    e2e.main()

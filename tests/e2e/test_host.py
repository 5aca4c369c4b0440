# SPDX-License-Identifier: BSD-2-Clause
"""Real guests on ebbd, behind a real QEMU's generic vhost-user device: the reference guest and Debian's
Linux. The QEMU comes from scripts/qemu, which keeps it in $EBB_QEMU_DIR, or else in the build directory,
and so does the kernel (test_linux.py). The other two of the four pairs, on QEMU's own balloon, are in
test_return.py and test_linux.py.
"""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import e2e

sys.path.append(os.path.join(e2e.HERE, "..", "vhost"))
from daemon import listens, wait_for  # noqa: E402

UNTESTED = "NO guest was tested on ebbd"
LINUX_WORDS = "console=ttyS0 quiet panic=-1 nokaslr no_timer_check "
REFERENCE_SCRIPT = ("-append", 'script="fragment 20% 4' + "; memhog 50%; idle 5" * 120 + '"')
# How often ebbd starts again under its guests; more than 2 with eight of them, two Linux among these.
RESTARTS = int(os.environ.get("EBB_RESTARTS", "2"))
HUGE = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


def setUpModule():
    Host.qemu = e2e.qemu_for_ebbd(UNTESTED)


class Host(e2e.Case):
    qemu = None

    def host(self, *args, rc=0):
        return self.ebb("run", "--host", "ebbd", "--qemu", self.qemu, "--accel", "tcg", *args, rc=rc)

    def linux(self, kernel, *args, rc=0):
        vmlinuz, initrd = e2e.linux_guest(UNTESTED, "--kernel", kernel)
        return self.host("--guest", "linux", "--kernel", vmlinuz, "--initrd", initrd, "--timeout", "600",
                         *args, rc=rc)

    def check_returned(self, d, least):
        self.assertEqual((d["status"], d["host"], d["verify_errors"]), ("ok", "ebbd", 0))
        self.assertGreater(d["freed_mib"], 100)
        self.assertGreater(d["returned_mib"], least * d["freed_mib"])
        self.assertGreater(d["ebbd_cpu_ms"], 0)

    def test_reference_guest(self):
        self.check_returned(self.host("--memory", "512M", "--workload", "memhog 60%; idle 10").json(), 0.98)

    def test_machines(self):
        for machine in ("pc", "microvm"):
            with self.subTest(machine):
                d = self.host("--memory", "256M", "--machine", machine, "--workload",
                              "memhog 60%; idle 10").json()
                self.check_returned(d, 0.98)

    def test_reports_all_the_time(self):
        # The free that is followed is the largest, which must not be what the churn ends with.
        d = self.host("--memory", "256M", "--set", "report.window_max_ms=50", "--workload",
                      "churn 50% 4; memhog 70%; idle 10; verify").json()
        self.check_returned(d, 0.9)
        self.assertGreater(d["reports"], 10)
        self.assertEqual(d["failed_reports"], 0)

    def test_linux_guests(self):
        for kernel in ("6.12", "6.1"):
            with self.subTest(kernel):
                workload = ("--memory", "512M", "--workload", "memhog 60%; idle 10")
                d = self.linux(kernel, *workload).json()
                self.check_returned(d, 0.5)
                self.assertGreater(d["verify_checks"], 0)
        with self.subTest("6.1 on QEMU's own balloon"):
            files = e2e.linux_guest(UNTESTED, "--kernel", "6.1")
            d = self.ebb("run", "--guest", "linux", "--kernel", files[0], "--initrd", files[1], "--accel",
                         "tcg", "--timeout", "600", *workload).json()
            self.assertEqual((d["status"], d["host"], d["verify_errors"]), ("ok", "qemu", 0))
            self.assertGreater(d["returned_mib"], 0.5 * d["freed_mib"])

    def test_linux_module(self):
        """Down to single pages."""
        files = e2e.linux_guest(UNTESTED, "--module", "--debug", "--kernel", "6.12")
        d = self.host("--guest", "linux", "--kernel", files[0], "--initrd", files[1], "--module", files[2],
                      "--timeout", "600", "--memory", "512M", "--workload",
                      "module wait; fragment 60% 8; report now; idle 0.5; verify").json()
        self.check_returned(d, 0.98)

    def with_disk(self):
        """That QEMU with a disk more, which forgets what is written to it."""
        directory = tempfile.mkdtemp(prefix="ebb-e2e-")
        self.addCleanup(shutil.rmtree, directory)
        path = os.path.join(directory, "qemu")
        with open(path, "w") as f:
            f.write(f"#!/bin/sh\nexec '{self.qemu}' \"$@\" -blockdev null-co,node-name=disk,size=1073741824,"
                    "read-zeroes=on -device virtio-blk-pci,drive=disk\n")
        os.chmod(path, 0o755)
        return path

    def test_linux_files(self):
        """Memory of tmpfs and of the page cache comes back; files that stay are unharmed."""
        qemu = self.with_disk()
        for kernel in ("6.12", "6.1"):
            for step in ("tmpfs", "cache"):
                with self.subTest(step, kernel=kernel):
                    d = self.linux(kernel, "--qemu", qemu, "--memory", "512M", "--workload",
                                   f"{step} 60%; idle 10; verify").json()
                    self.check_returned(d, 0.5)
                    # Once all of it, then twice the eighth that stays: by `verify`, and in the end.
                    whole = d["freed_mib"] * 256 * 8 / 7
                    self.assertGreater(d["verify_checks"], 1.15 * whole)
                if step == "tmpfs":
                    run = self.linux(kernel, "--qemu", qemu, "--memory", "256M", "--workload",
                                     f"{step} 30%; corrupt; verify", rc=1)
                    self.assertGreater(run.json()["verify_errors"], 0)

    def test_without_reporting(self):
        d = self.host("--memory", "256M", "--reporting", "off", "--workload", "memhog 60%; idle 2").json()
        self.assertEqual((d["status"], d["reports"]), ("ok", 0))
        self.assertLess(d["returned_mib"], 0.05 * d["freed_mib"])

    def test_huge_pages(self):
        """hugetlbfs gives back whole pages of 2 MiB, which are what the guests report."""
        with open(HUGE) as f:
            before = f.read()
        self.addCleanup(self.reserve, before)
        if not self.reserve(str(int(before) + 140)):
            self.skipTest("huge pages cannot be reserved here: hugetlbfs was NOT tested")
        options = ("--memory", "256M", "--backing", "hugetlb", "--workload")
        self.check_returned(self.host(*options, "memhog 60%; idle 10").json(), 0.95)
        self.check_returned(self.linux("6.12", *options, "memhog 60%; idle 10").json(), 0.5)

    def reserve(self, pages):
        try:
            with open(HUGE, "w") as f:
                f.write(pages)
            with open(HUGE) as f:
                return int(f.read()) >= int(pages)
        except OSError:
            return False

    def backend(self, run):
        end = time.monotonic() + e2e.PATIENCE
        while time.monotonic() < end:
            for pid, program in e2e.marked(run.mark).items():
                if os.path.basename(program) == "ebbd-vm":
                    return pid
            time.sleep(0.01)
        return None

    def test_ebbd_dies(self):
        """The run says so and ends; nothing is left of it."""
        run = e2e.Run("run", "--host", "ebbd", "--qemu", self.qemu, "--accel", "tcg", "--memory", "256M",
                      "--workload", "idle 60")
        pid = self.backend(run)
        self.assertIsNotNone(pid)
        self.assertTrue(run.wait_for("step: idle"))
        os.kill(pid, signal.SIGKILL)
        run.wait()
        self.assertEqual(run.rc, 4, run.describe())
        self.assertIn("ebbd was killed by signal 9", run.err)
        self.assertEqual(run.leftovers(), {})

    def test_not_possible(self):
        run = self.host("--backing", "anon", rc=2)
        self.assert_says(run, "memory that is shared", "--backing=memfd")
        self.assert_says(self.ebb("run", "--host", "/nonexistent/ebbd", "--qemu", self.qemu, rc=4),
                         "--host=/nonexistent/ebbd: not found")

    def test_qemu_without_the_device(self):
        old = e2e.QEMU
        version = subprocess.run([old, "--version"], text=True, capture_output=True).stdout if old else ""
        if not version or int(version.split()[3].split(".")[0]) > 10:
            self.skipTest("the installed QEMU is none, or new")
        self.assert_says(self.ebb("run", "--host", "ebbd", "--qemu", old, rc=4),
                         "has no generic vhost-user device", "scripts/qemu")


class Daemon(e2e.Case):
    """Several guests on one ebbd, which `ebb ctl` talks to."""
    MIB = 1 << 20

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ebb-e2e-")
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def start(self, *argv):
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def guest(self, name, own_balloon=False, kernel=None, args=()):
        balloon = ["-device", "virtio-balloon-pci,free-page-reporting=on,id=b0"] if own_balloon else [
            "-chardev", f"socket,id=c,path={self.path(name)}.sock", "-device",
            "vhost-user-test-device-pci,chardev=c,virtio-id=5,num_vqs=5,vq_size=128,config_size=16"]
        return self.start(
            Host.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg,tb-size=64",
            "-name", name, "-M", "q35,memory-backend=m", "-m", "256M", "-object",
            "memory-backend-memfd,id=m,size=256M,share=on", *balloon,
            "-kernel", kernel or e2e.GUEST, *(args or REFERENCE_SCRIPT), "-chardev",
            f"file,id=t,path={self.path(name)}.telemetry", "-device",
            "isa-debugcon,iobase=0xe9,chardev=t", "-qmp",
            f"unix:{self.path(name)}.qmp,server=on,wait=off")

    def control(self, *args):
        done = subprocess.run([e2e.EBB, "ctl", "--control", self.path("control"), "--json", *args],
                              text=True, capture_output=True, timeout=e2e.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def wait_for(self, what, seconds=e2e.PATIENCE):
        """Until the VMs' status is so; that status, by name."""
        end = time.monotonic() + seconds
        while True:
            vms = {vm["name"]: vm for vm in self.control("status", "--full")["vms"]}
            if what(vms):
                return vms
            self.assertLess(time.monotonic(), end, vms)
            time.sleep(0.2)

    @staticmethod
    def kept(vm):
        """Bytes that were reported and not discarded, but for what a busy host was late with."""
        return sum(cause["bytes"] for why, cause in vm["discard"]["not"].items() if why != "late")

    def qmp(self, name, command):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(e2e.PATIENCE)
            s.connect(self.path(name) + ".qmp")
            lines = s.makefile("rw")
            lines.readline()
            for word in ("qmp_capabilities", command):
                lines.write(json.dumps({"execute": word}) + "\n")
                lines.flush()
                while "return" not in json.loads(lines.readline()):
                    pass

    def told(self, name):
        with open(self.path(name) + ".telemetry") as f:
            return f.read()

    def test_killed(self):
        """The VM goes on without a balloon: it takes and frees memory as before, and loses none."""
        for how in (signal.SIGKILL, signal.SIGTERM):
            with self.subTest(how):
                name = how.name
                daemon = self.daemon(name)
                guest = self.guest(name)
                self.wait_for(lambda vms: vms[name]["discard"]["discarded_bytes"] > 100 * self.MIB)
                time.sleep(random.Random(e2e.SEED).random())
                daemon.send_signal(how)
                daemon.wait()
                before = len(self.told(name))
                self.qmp(name, "query-status")
                end = time.monotonic() + e2e.PATIENCE
                while self.freed_kib(name, before) < 200 * 1024:  # two cycles
                    self.assertLess(time.monotonic(), end, "it takes and frees memory no more:\n"
                                    + self.told(name)[before:])
                    self.assertIsNone(guest.poll())
                    time.sleep(0.2)
                self.qmp(name, "query-status")
                self.assertNotIn("\nfault ", self.told(name)[before:])
                guest.kill()

    def freed_kib(self, name, since):
        """What its guest has freed; of whole lines."""
        lines = self.told(name)[since:].split("\n")[1:-1]
        return sum(int(word[10:]) for line in lines for word in line.split()
                   if word.startswith("freed_kib="))

    def daemon(self, *names):
        sockets = [word for name in names for word in ("--socket", self.path(name) + ".sock")]
        if os.path.exists(self.path("control")):
            os.remove(self.path("control"))  # one that was killed leaves it
        daemon = self.start(e2e.EBBD, *sockets, "--control", self.path("control"))
        wait_for("ebbd listens", lambda: listens(self.path("control")))
        return daemon

    def rows(self, *args):
        """What `ebb top` shows, by VM: {column: text}."""
        done = subprocess.run([e2e.EBB, "top", "--once", "--interval", "1", "--control",
                               self.path("control"), *args], text=True, capture_output=True, timeout=e2e.PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = [line.split() for line in done.stdout.splitlines()]
        (header,) = [line for line in lines if "RESIDENT" in line]
        return {line[0]: dict(zip(header, line)) for line in lines if line and line[0] in ("a", "own")}

    def test_top(self):
        """A VM on ebbd beside one that runs QEMU's own balloon."""
        self.daemon("a")
        self.guest("a")
        self.guest("own", own_balloon=True)
        self.wait_for(lambda vms: vms["a"]["discard"]["discarded_bytes"] > 100 * self.MIB)
        seen, all_of = {"a": set(), "own": set()}, []
        end = time.monotonic() + e2e.PATIENCE
        # Both take half of their memory and give it back, again and again: so it is seen there, and gone.
        while time.monotonic() < end and any(len(one) < 2 for one in seen.values()):
            for name, row in self.rows("--qmp", self.path("own.qmp")).items():
                self.assertEqual(row["ASSIGNED"], "256M")
                all_of.append((name, row["RESIDENT"]))
                resident = float(row["RESIDENT"][:-1]) if row["RESIDENT"].endswith("M") else None
                if resident is None:
                    continue
                # What it holds while it does not work is 15 MiB; it works for a moment each 5 s.
                if resident > 24:
                    seen[name].add("held")
                elif resident < 20 and seen[name]:
                    seen[name].add("gone")
        self.assertEqual(seen, {"a": {"held", "gone"}, "own": {"held", "gone"}},
                         f"{all_of}\n{self.control('status', 'a')}\n{self.told('a')[-1000:]}")

    def linux(self, name, kernel):
        vmlinuz, initrd = e2e.linux_guest(UNTESTED, "--kernel", kernel)
        return self.guest(name, kernel=vmlinuz, args=("-initrd", initrd, "-smp", "2", "-append", LINUX_WORDS
                          + 'ebb.script="' + "memhog 50%; idle 5; " * 80 + 'idle 1"'))

    def test_ebbd_starts_again(self):
        """Killed, and told to end: guests and their back ends go on meanwhile, and the next one knows them."""
        names = ["a"] if RESTARTS == 2 else ["a", "b", "c", "d", "e", "f", "linux-6.12", "linux-6.1"]
        daemon = self.daemon(*names)
        guests = [self.linux(name, name[6:]) if name.startswith("linux-") else self.guest(name) for name in names]

        def discarded(vms):
            return {name: vms[name]["discard"]["discarded_bytes"] for name in names}

        def all_above(least):
            return self.wait_for(lambda vms: all(n > least[name] + 100 * self.MIB for name, n in discarded(vms).items()))
        vms = all_above(dict.fromkeys(names, 0))
        for name in names:
            self.control("limits", name, "10G")
        pids = {name: vms[name]["back_end"]["pid"] for name in names}
        for i in range(RESTARTS):
            before = discarded(self.wait_for(lambda vms: True))
            daemon.send_signal(signal.SIGTERM if i % 2 else signal.SIGKILL)
            daemon.wait()
            daemon = self.daemon(*names)
            vms = self.wait_for(lambda vms: True) if i % 10 else all_above(before)
            for name, vm in vms.items():
                self.assertEqual((vm["back_end"]["pid"], vm["back_end"]["replaced"], vm["rate"]),
                                 (pids[name], 0, 10 << 30))
                self.assertEqual((vm["connected"], vm["front_ends"]["connections"]), (True, 1))
                self.assertGreaterEqual(discarded(vms)[name], before[name])
                self.assertEqual(sum(vm["faults"].values()), 0, vm["faults"])
        vms = all_above(before)
        for name, guest in zip(names, guests):
            self.assertNotIn("\nfault ", self.told(name))
            self.assertIsNone(guest.poll())
            not_discarded = self.kept(vms[name])
            print(f"{name}: {vms[name]['reported_bytes'] >> 20} MiB reported, {discarded(vms)[name] >> 20} MiB "
                  f"discarded, {not_discarded >> 20} MiB not, {RESTARTS} restarts of ebbd", file=sys.stderr)
            self.assertEqual(not_discarded, 0)

    def test_resize_and_statistics(self):
        """The guest hears of a new size by way of QEMU, and goes along; and it tells of its memory."""
        self.daemon("a")
        self.guest("a")
        self.wait_for(lambda vms: vms["a"]["discard"]["discarded_bytes"] > 100 * self.MIB)
        guest = self.control("stats", "a")["guest"]
        self.assertEqual(guest["total_bytes"] >> 27, 1)  # 256 MiB, but for what it needs itself
        self.assertEqual(self.control("resize", "a", "192M"), {"balloon_bytes": 64 * self.MIB})
        self.wait_for(lambda vms: vms["a"]["balloon"]["actual_bytes"] == 64 * self.MIB)
        self.control("resize", "a", "256M")
        self.wait_for(lambda vms: vms["a"]["balloon"]["actual_bytes"] == 0)
        told = self.told("a")
        self.assertNotIn("\nfault ", told)

    def test_guests_and_a_reboot(self):
        daemon = self.daemon("a", "b")
        for name in ("a", "b"):
            self.guest(name)

        def gave_back(vm):
            return (vm["discard"]["discarded_bytes"] > 300 * self.MIB and
                    vm["memory"]["resident_bytes"] < 80 * self.MIB)
        before = self.wait_for(lambda vms: all(map(gave_back, vms.values())) and len(vms) == 2)
        self.qmp("a", "system_reset")
        after = self.wait_for(
            lambda vms: vms["a"]["discard"]["discarded_bytes"] >
            before["a"]["discard"]["discarded_bytes"] + 400 * self.MIB and gave_back(vms["a"]))
        for name in ("a", "b"):
            told = self.told(name)
            self.assertIn("\nhold ", told)
            self.assertNotIn("\nfault ", told)
        self.assertEqual(self.told("a").count("\nboot "), 2)
        self.assertEqual(after["b"]["front_ends"]["connections"], 1)
        for vm in after.values():
            self.assertTrue(vm["connected"])
            self.assertEqual(sum(vm["faults"].values()), 0, vm["faults"])
            self.assertEqual(self.kept(vm), 0, vm)
        # The other one's memory stays while its discards are inhibited.
        self.control("inhibit", "b", "on")
        held = self.wait_for(lambda vms: vms["b"]["discard"]["not"]["inhibited"]["bytes"] > 100 * self.MIB)
        self.assertGreater(held["b"]["memory"]["resident_bytes"], 100 * self.MIB)
        self.assertIsNone(daemon.poll())


if __name__ == "__main__":
    e2e.main()

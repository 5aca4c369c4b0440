# SPDX-License-Identifier: BSD-2-Clause
"""In the guest of test_systemd.py, started by systemd: ebbd's units, with front-ends that report
all the while."""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

import daemon
from daemon import Control, wait_for
from frontend import FrontEnd, MIB, REPORTING, WRITE

CONTROL, VMS, METRICS = "/run/ebb/control", "/run/ebb/vms", ("127.0.0.1", 9815)
LOG = "/run/log"  # of all units
EBBD, EBBD_VM = "/usr/sbin/ebbd", "/usr/sbin/ebbd-vm"


def systemctl(*words, check=True):
    return subprocess.run(["systemctl", *words], check=check, stdout=subprocess.PIPE, text=True).stdout.strip()


def is_active():
    return systemctl("is-active", "ebbd", check=False) == "active"


def main_pid():
    return int(systemctl("show", "--value", "--property=MainPID", "ebbd"))


def status(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def back_end(vm):
    control = Control(CONTROL)
    try:
        return control.vm(vm)["back_end"]["pid"]
    finally:
        control.close()


def counted(vm):
    control = Control(CONTROL)
    try:
        return control.vm(vm)["discard"]["discarded_bytes"]
    finally:
        control.close()


class Reporter(threading.Thread):
    """A front-end whose guest reports, and has each report answered and its memory taken."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.front = FrontEnd(path).start()
        self.reports, self.trouble, self.stopped = 0, None, False
        self.start()

    def run(self):
        try:
            while not self.stopped:
                self.front.fill(8 * MIB, MIB)
                used, before = self.front.used(REPORTING), self.front.blocks()
                self.front.add(REPORTING, [(8 * MIB, MIB, WRITE)])
                wait_for("the report comes back", lambda: self.front.used(REPORTING) == (used + 1) & 0xFFFF)
                assert self.front.blocks() == before - MIB, "it was not discarded"
                self.reports += 1
                time.sleep(0.02)
        except BaseException as error:
            self.trouble = error

    def goes_on(self):
        before = self.reports
        wait_for("two more reports", lambda: self.trouble or self.reports >= before + 2)
        if self.trouble:
            raise self.trouble

    def end(self):
        self.stopped = True
        self.join()
        self.front.close()


class Tests:
    """In this order, on one ebbd."""
    web = pid = None

    def test_activated_by_its_socket(self):
        assert not is_active()
        control = Control(CONTROL)
        assert "socket" in control.ask("add", vm="web")
        control.close()
        assert is_active()
        self.web = Reporter(VMS + "/web.sock")
        self.web.goes_on()
        self.pid = back_end("web")

    def test_sandbox(self):
        seen = status(self.pid)
        assert seen["Uid"].split() == ["900"] * 4 and seen["Seccomp"] == "2" and seen["NoNewPrivs"] == "1", seen
        for kind in ("user", "mnt", "net", "ipc", "uts"):
            assert os.readlink(f"/proc/{self.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind
        for kind in ("user", "mnt"):
            assert os.readlink(f"/proc/{self.pid}/ns/{kind}") != os.readlink(f"/proc/{main_pid()}/ns/{kind}"), kind
        assert os.listdir(f"/proc/{self.pid}/root") == []
        for pid in (self.pid, main_pid()):
            for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"):
                assert int(status(pid)[kind], 16) == 0, kind

    def test_metrics(self):
        with socket.socket() as sock:
            sock.connect(METRICS)
            sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert b" 200 " in sock.recv(100)

    def test_restart(self):
        self.replaced(lambda: systemctl("restart", "ebbd"))

    def test_killed(self):
        self.replaced(lambda: os.kill(main_pid(), signal.SIGKILL))

    def test_upgraded(self):
        """The back end that runs stays; the next one is of the new program."""
        for path in (EBBD, EBBD_VM):
            shutil.copy2(path, path + ".new")
            os.rename(path + ".new", path)
        self.replaced(lambda: systemctl("restart", "ebbd"))
        assert os.readlink(f"/proc/{self.pid}/exe").endswith("(deleted)")
        assert os.readlink(f"/proc/{main_pid()}/exe") == EBBD
        control = Control(CONTROL)
        assert "socket" in control.ask("add", vm="db")
        control.close()
        db = Reporter(VMS + "/db.sock")
        db.goes_on()
        assert os.readlink(f"/proc/{back_end('db')}/exe") == EBBD_VM
        db.end()

    def replaced(self, how):
        """Another ebbd, of the same back end and its counters; the front-end does not notice."""
        main, before = main_pid(), counted("web")
        how()
        wait_for("another ebbd", lambda: main_pid() not in (0, main) and is_active())
        wait_for("it has adopted the back end", lambda: back_end("web") == self.pid)
        assert counted("web") >= before
        self.web.goes_on()

    def test_stopped(self):
        """The back end serves until its front-end leaves, and is there for the next ebbd before."""
        systemctl("stop", "ebbd.socket", "ebbd")
        assert not is_active()
        self.web.goes_on()
        systemctl("start", "ebbd.socket")
        wait_for("it has adopted the back end", lambda: back_end("web") == self.pid)
        self.web.goes_on()
        systemctl("stop", "ebbd.socket", "ebbd")
        self.web.end()
        wait_for("the back end has ended", lambda: not os.path.exists(f"/proc/{self.pid}"))

    def test_alone(self):
        """ebbd-vm@.service, with limits of its own."""
        systemctl("start", "ebbd-vm@one")
        wait_for("it listens", lambda: daemon.listens("/run/ebb-vm/one/control"))
        one = Reporter("/run/ebb-vm/one/vm.sock")
        one.goes_on()
        pid = int(systemctl("show", "--value", "--property=MainPID", "ebbd-vm@one"))
        with open(f"/proc/{pid}/cgroup") as f:
            group = "/sys/fs/cgroup" + f.read().strip().split(":")[2]
        for name, limit in (("memory.max", 128 * MIB), ("pids.max", 8)):
            with open(f"{group}/{name}") as f:
                assert int(f.read()) == limit, name
        assert os.listdir(f"/proc/{pid}/root") == []
        systemctl("stop", "ebbd-vm@one")
        one.stopped = True
        assert not os.path.exists("/run/ebb-vm/one")

    def test_log(self):
        """No word of what the units might have refused."""
        with open(LOG) as f:
            said = f.read().splitlines()
        wrong = [line for line in said if re.search("sandbox|cannot|EPERM|not permitted", line)]
        assert said and not wrong, wrong


def main():
    tests, passed = Tests(), 0
    try:
        for name in [name for name in vars(Tests) if name.startswith("test_")]:
            began = time.monotonic()
            getattr(tests, name)()
            passed += 1
            print(f"{name}: passed after {time.monotonic() - began:.1f} s", flush=True)
        print(f"ebb-systemd: {passed} passed", flush=True)
        return 0
    except BaseException:
        traceback.print_exc()
        with contextlib.suppress(FileNotFoundError), open(LOG) as f:
            print(f.read())
        for unit in ("ebbd", "ebbd.socket", "ebbd-metrics.socket", "ebbd-vm@one"):
            print(systemctl("status", "--no-pager", unit, check=False), flush=True)
        return 1


if __name__ == "__main__":
    failed = main()
    sys.stdout.flush()
    os._exit(failed)  # a front-end may still report

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""VMs that appear and go, for as long as you like, on one ebbd: `make soak TIME=3600`.

    soak.py EBBD SECONDS

Each VM is added over the control socket, lives one of the lives below, and is removed. What an honest
one reports must go away, and nothing else of its memory. Each minute ebbd is killed or told to end, and
started again; VMs go on meanwhile. In the end, when no VM is left, there must be no back end, no socket
and no file of theirs, and ebbd must hold the descriptors and memory that it held after its first VMs.
Exit status 0: so it was.
"""
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import frontend
from daemon import Control, descriptors, own_memory, sanitized, wait_for
from frontend import FrontEnd, Gone, MIB, PAGE, REPORTING, STATS, WRITE

VMS = 24  # at a time
WARM = 2 * VMS  # lives before memory is first looked at
GROWTH = 4 * MIB  # of ebbd in all of the time: what malloc keeps or gives back differs by half of that
SEED = int(os.environ.get("EBB_SEED", str(random.SystemRandom().randrange(1 << 32))))
LOW, HIGH = 2 * MIB, 14 * MIB  # of guest memory that is reported
GUEST = 16  # MiB
RESTART = 60  # seconds from one start of ebbd to the next


# ---- lives ----

def report(front, rng):
    """A range is reported and goes; what lies around it stays."""
    length = rng.randrange(1, 1024) * PAGE
    at = rng.randrange(LOW // PAGE, (HIGH - length) // PAGE) * PAGE
    front.fill(at - PAGE, length + 2 * PAGE)
    for _ in range(5):  # what is late on a busy machine is answered, and stays
        before, used = front.blocks(), front.used(REPORTING)
        front.add(REPORTING, [(at, length, WRITE)])
        wait_for("a report comes back", lambda: front.used(REPORTING) == (used + 1) & 0xFFFF)
        if front.blocks() == before - length:
            break
        front.fill(at, length)
    else:
        raise AssertionError(f"of {length} bytes reported {before - front.blocks()} went")
    if front.memory[at] or front.memory[at + length - 1]:
        raise AssertionError("what was reported is still there")
    if front.memory[at - 1] != 0x5A or front.memory[at + length] != 0x5A:
        raise AssertionError("what was not reported is gone")


def honest(front, rng):
    front.start(GUEST)
    for _ in range(rng.randrange(1, 12)):
        report(front, rng)


def ballooned(front, rng):
    front.start(GUEST)
    used = front.used(frontend.INFLATE)
    front.inflate(rng.sample(range(LOW // PAGE, HIGH // PAGE), 500))
    wait_for("the balloon is taken", lambda: front.used(frontend.INFLATE) == (used + 1) & 0xFFFF)
    front.give_stats({4: rng.randrange(GUEST * MIB)})
    report(front, rng)


def rebooted(front, rng):
    """Its memory comes anew, under rings that run."""
    honest(front, rng)
    for _ in range(rng.randrange(1, 4)):
        front.send(frontend.SET_MEM_TABLE, front.table, [front.memfd])
        report(front, rng)


def vanished(front, rng):
    front.start(GUEST)
    front.fill(LOW, HIGH - LOW)
    for i in range(rng.randrange(1, 4)):
        front.add(REPORTING, [(LOW + i * MIB, MIB, WRITE)])


def garbled(front, rng):
    if rng.random() < 0.5:
        front.start(GUEST)
    front.raw(rng.randbytes(rng.randrange(1, 5000)))


def truncated(front, rng):
    front.start(GUEST)
    front.raw(FrontEnd.message(frontend.SET_MEM_TABLE, bytes(40))[:rng.randrange(1, 52)])


def cut(front, rng):
    """The file of its memory is cut to nothing under the rings."""
    honest(front, rng)
    os.ftruncate(front.memfd, 0)
    os.eventfd_write(front.kicks[REPORTING], 1)
    front.hung_up()


def broken(front, rng):
    front.start(GUEST)
    _, avail, _ = front.ring_at(rng.choice([REPORTING, STATS, frontend.INFLATE]))
    front.put16(avail + 2, rng.randrange(1 << 16))
    front.put16(avail + 4, rng.randrange(1 << 16))
    for kick in front.kicks.values():
        os.eventfd_write(kick, 1)


LIVES = [honest] * 6 + [ballooned, rebooted, vanished, garbled, truncated, cut, broken]


def live(ask, name, rng):
    """The name of the life that was lived."""
    one = rng.choice(LIVES)
    path = ask("add", vm=name)["socket"]
    for _ in range(rng.randrange(1, 3)):  # a VM may be started again
        with FrontEnd(path) as front:
            try:
                one(front, rng)
            except Gone:
                if one in (honest, ballooned, rebooted):
                    raise
            operate(ask, name, rng)
    answer = ask("remove", vm=name)
    if answer != {"vms": 1}:
        raise AssertionError(answer)
    return one.__name__


def operate(ask, name, rng):
    """An operator at work."""
    command, members = rng.choice([
        ("status", {"vm": name}), ("flush", {"vm": name}), ("inhibit", {"vm": name, "on": True}),
        ("limits", {"vm": name, "rate": rng.randrange(1 << 32)}), ("list", {})])
    answer = ask(command, **members)
    if command == "inhibit":
        answer = ask(command, vm=name, on=False)
    # What its front-end did, or a busy machine, can have cost a VM its back end.
    if "error" in answer and "no back end just now" not in answer["error"]:
        raise AssertionError(answer)


# ---- all of them ----

class Operators:
    """Ask, each in its own thread; while ebbd starts again they wait."""

    def __init__(self, path):
        self.path, self.change, self.asking, self.held = path, threading.Condition(), 0, False
        self.own = threading.local()
        self.generation = 0

    def ask(self, command, **members):
        with self.change:
            self.change.wait_for(lambda: not self.held)
            self.asking += 1
        try:
            if getattr(self.own, "generation", None) != self.generation:
                self.own.control, self.own.generation = Control(self.path), self.generation
            return self.own.control.ask(command, **members)
        finally:
            with self.change:
                self.asking -= 1
                self.change.notify_all()

    def hold(self):
        with self.change:
            self.held = True
            self.change.wait_for(lambda: self.asking == 0)

    def go_on(self):
        with self.change:
            self.held = False
            self.generation += 1
            self.change.notify_all()


class Soak:
    def __init__(self, ebbd, seconds, directory):
        self.directory = directory
        self.sanitized = sanitized(ebbd)
        self.log = open(os.path.join(directory, "log"), "a+")
        self.argv = [ebbd, "--control", os.path.join(directory, "control"), "--socket-dir",
                     os.path.join(directory, "vms"), "--stats=1"] + ["--no-sandbox"] * self.sanitized
        os.mkdir(os.path.join(directory, "vms"))
        self.operators = Operators(os.path.join(directory, "control"))
        self.daemon, self.restarts = None, 0
        self.seconds, self.lock = seconds, threading.Lock()
        self.stop, self.failure, self.lived = False, None, {}

    def start(self):
        began = self.said().count("ready")
        self.daemon = subprocess.Popen(self.argv, stderr=self.log, stdin=subprocess.DEVNULL)
        wait_for("ebbd is ready", lambda: self.said().count("ready") > began or self.daemon.poll() is not None)
        if self.daemon.poll() is not None:
            raise AssertionError("ebbd does not start")

    def restart(self):
        """As a new version or a crash would. Guests report meanwhile."""
        self.operators.hold()
        self.daemon.send_signal(signal.SIGTERM if self.restarts % 2 else signal.SIGKILL)
        if self.daemon.wait(600) not in (0, -signal.SIGKILL):
            raise AssertionError(f"ebbd ended with {self.daemon.returncode}")
        self.start()
        self.restarts += 1
        self.operators.go_on()

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def count(self):
        return sum(self.lived.values())

    def inhabit(self, i):
        """One VM after the other."""
        rng = random.Random(SEED * VMS + i)
        try:
            n = 0
            while not self.stop:
                kind = live(self.operators.ask, f"vm{i}-{n}", rng)
                n += 1
                with self.lock:
                    self.lived[kind] = self.lived.get(kind, 0) + 1
        except Exception:  # of a thread: told by the main one
            with self.lock:
                self.failure = self.failure or traceback.format_exc()
            self.stop = True

    def run(self, seconds, least, progress):
        """VMs for so long, and so many at least; until the last is gone."""
        self.stop = False
        threads = [threading.Thread(target=self.inhabit, args=(i,)) for i in range(VMS)]
        for thread in threads:
            thread.start()
        began = shown = started = time.monotonic()
        before = self.count()
        while not self.stop:
            time.sleep(0.1)
            now = time.monotonic()
            if self.daemon.poll() is not None:
                self.failure = f"ebbd has ended, with {self.daemon.returncode}"
                self.stop = True
            elif progress and now - started >= RESTART:
                self.restart()
                started = time.monotonic()
            if progress and now - shown >= max(1, self.seconds / 60):
                shown = now
                print(f"{now - began:6.0f} s: {self.count()} VMs, {self.state()}", flush=True)
            if now - began >= seconds and self.count() - before >= least:
                self.stop = True
        for thread in threads:
            thread.join()
        if self.failure:
            raise AssertionError(self.failure)

    def state(self):
        return (f"{len(descriptors(self.daemon.pid))} descriptors, {len(self.back_ends())} back ends, "
                f"{own_memory(self.daemon.pid) >> 10} KiB, {self.restarts} restarts")

    def back_ends(self):
        """Whoever started them."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    if self.directory.encode() in f.read() and int(pid) not in (os.getpid(), self.daemon.pid):
                        found.append(int(pid))
            except OSError:  # it has ended
                continue
        return found

    def files(self):
        return [name for _, _, names in os.walk(self.directory) for name in names if name not in ("log", "control")]

    def quiet(self):
        """Memory, when no VM is there, nor anything of one."""
        if self.operators.ask("list") != {"vms": []}:
            raise AssertionError("VMs are left")
        wait_for("all back ends are gone", lambda: not self.back_ends())
        wait_for("their files are gone", lambda: not self.files())
        return own_memory(self.daemon.pid)

    def all(self):
        self.start()
        self.quiet()  # and so a connection is taken
        fds = descriptors(self.daemon.pid)
        self.run(0, WARM, False)
        begin = self.quiet()
        self.run(self.seconds, VMS, True)
        end = self.quiet()
        wait_for(f"{len(fds)} descriptors are left", lambda: descriptors(self.daemon.pid) == fds)
        print(f"{self.count()} VMs: " + ", ".join(f"{n} {kind}" for kind, n in sorted(self.lived.items())))
        print(f"{self.restarts} restarts; {len(fds)} descriptors as in the beginning, no back end and no file left; "
              f"own memory {begin >> 10} KiB after the first {WARM}, {end >> 10} KiB in the end")
        if not self.sanitized and end > begin + GROWTH:
            raise AssertionError(f"ebbd grew by {(end - begin) >> 10} KiB")
        self.daemon.send_signal(signal.SIGINT)
        if self.daemon.wait(600) != 0:
            raise AssertionError(f"ebbd ended with {self.daemon.returncode}")


def main():
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit("usage: soak.py EBBD SECONDS")
    print(f"EBB_SEED={SEED}", flush=True)
    directory = tempfile.mkdtemp(prefix="ebb-soak-")
    soak = Soak(os.path.abspath(sys.argv[1]), int(sys.argv[2]), directory)
    try:
        soak.all()
    except (AssertionError, KeyboardInterrupt) as error:
        print(f"soak: {error or 'stopped'}\n{soak.said()[-2000:]}", file=sys.stderr)
        sys.exit(1)
    finally:
        soak.stop = True
        if soak.daemon and soak.daemon.poll() is None:
            soak.daemon.kill()
            soak.daemon.wait()
        shutil.rmtree(directory)


main()

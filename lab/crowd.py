#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""How many guests one host has room for: guests in a memory cgroup, without swap, of which each takes
and frees its memory in its turn, and then rests.

    crowd.py GUESTS MIB REST ebb run ... --qemu PROGRAM --workload 'idle 1; STEP; idle LONG' --json FILE

While a guest boots and has its turn the others stand still (QEMU's monitor: stop, cont), so that a slow
machine gives nobody more time to report: all of them rest for REST seconds from one turn to the next. That
goes on until the kernel kills one of them for want of memory, or there are GUESTS. FILE gets how many had
their turn before that, and what the cgroup held over the time, without that of boots.

    crowd.py --try

says whether it can make such a cgroup here, of version 1 or 2: that takes root.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import stall

PERIOD = 0.05


class Cgroup:
    def __init__(self, mib):
        self.v2, root = mount_point()
        names = {False: ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"),
                 True: ("memory.max", "memory.current", "memory.events")}[self.v2]
        if self.v2:
            write(os.path.join(root, "cgroup.subtree_control"), "+memory")
        self.dir = os.path.join(root, f"ebb-crowd-{os.getpid()}")
        os.mkdir(self.dir)
        limit, self.usage, self.events = [os.path.join(self.dir, name) for name in names]
        write(limit, str(mib << 20))
        for name, value in (("memory.swap.max", "0"), ("memory.swappiness", "0")):
            if os.path.exists(os.path.join(self.dir, name)):
                write(os.path.join(self.dir, name), value)

    def join(self):
        """What a command line is to begin with."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', os.path.join(self.dir, "cgroup.procs")]

    def mib(self):
        return int(stall.read(self.usage)) / (1 << 20)

    def has_killed(self):
        return any(line.startswith("oom_kill ") and line != "oom_kill 0"
                   for line in stall.read(self.events).splitlines())

    def remove(self):
        for _ in range(100):  # what ended is gone from it soon
            try:
                os.rmdir(self.dir)
                return
            except OSError:
                time.sleep(0.1)


def mount_point():
    """(is it version 2, where)"""
    with open("/proc/mounts") as f:
        mounts = [line.split()[1:4] for line in f]
    for path, kind, options in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            return False, path
    for path, kind, _ in mounts:
        if kind == "cgroup2" and "memory" in stall.read(os.path.join(path, "cgroup.controllers")).split():
            return True, path
    sys.exit("crowd.py: there is no cgroup file system that limits memory")


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


class Guest:
    """Its own threads read what it prints, and follow it until it has ended."""

    def __init__(self, cgroup, argv, where, directory):
        os.mkdir(directory)
        argv = list(argv)
        argv[where] = stall.with_monitor(argv[where], directory)
        self.steps, self.monitor, self.socket = 0, None, os.path.join(directory, "qmp")
        self.process = subprocess.Popen(cgroup.join() + argv, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True, errors="replace")
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        for line in self.process.stdout:
            self.steps += "step: " in line

    def ask(self, command):
        try:
            self.monitor = self.monitor or stall.Monitor(self.socket)
            self.monitor.ask(command)
        except OSError:
            pass  # it was killed: the cgroup tells


class Crowd:
    def __init__(self, most, mib, rest, argv):
        self.most, self.rest, self.argv = most, rest, argv
        self.where = stall.value_at(argv, "--qemu")
        self.json = stall.value_at(argv, "--json")
        self.cgroup, self.guests, self.samples = Cgroup(mib), [], []
        self.clock = 0.0

    def wait(self, done, runs=True):
        """False: one was killed first. runs: it counts as time, in which the guests run."""
        while not done():
            if self.cgroup.has_killed():
                return False
            for guest in self.guests:
                if guest.process.poll() is not None and not self.cgroup.has_killed():
                    sys.exit(f"crowd.py: a guest ended with status {guest.process.returncode}")
            began = time.monotonic()
            time.sleep(PERIOD)
            if runs:
                self.clock += time.monotonic() - began
                self.samples.append([round(self.clock, 2), round(self.cgroup.mib(), 1)])
        return True

    def turn(self, directory):
        """One more guest has its turn. False: there was no room for it."""
        for guest in self.guests:
            guest.ask("stop")
        argv = list(self.argv)
        argv[self.json] = os.path.join(directory, "guest.json")
        guest = Guest(self.cgroup, argv, self.where, os.path.join(directory, str(len(self.guests))))
        self.guests.append(guest)
        if (not self.wait(lambda: guest.steps >= first_step(argv), runs=False) or
                not self.wait(lambda: guest.steps >= first_step(argv) + 2)):
            return False
        for other in self.guests[:-1]:
            other.ask("cont")
        end = time.monotonic() + self.rest
        return self.wait(lambda: time.monotonic() >= end)

    def run(self, directory):
        """How many had their turn."""
        for n in range(self.most):
            if not self.turn(directory):
                return n
        return self.most

    def close(self):
        for guest in self.guests:
            guest.process.terminate()
        for guest in self.guests:
            guest.process.wait()
        self.cgroup.remove()


def first_step(argv):
    """How many steps have begun when a guest is up: it begins with one that does nothing."""
    return argv[stall.value_at(argv, "--workload")].startswith("module wait") + 1


def main():
    if sys.argv[1:] == ["--try"]:
        try:
            Cgroup(64).remove()
        except OSError as error:
            sys.exit(f"crowd.py: {error.filename}: {error.strerror}")
        return
    # Whoever ends this ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    most, mib, rest = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    crowd = Crowd(most, mib, rest, sys.argv[4:])
    with tempfile.TemporaryDirectory(prefix="ebb-crowd-") as directory:
        try:
            turns = crowd.run(directory)
        finally:
            crowd.close()
    with open(crowd.argv[crowd.json], "w") as f:
        json.dump({"status": "ok", "turns": turns, "most": most, "killed": turns < most,
                   "samples": crowd.samples}, f)


if __name__ == "__main__":
    main()

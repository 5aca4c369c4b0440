#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""How long guests wait for ebbd's answers: answers.py EBBD [VMS [SECONDS]]

One ebbd, a back end for each VM, and a front-end of the tests in place of each guest: four VMs free 1 GiB again and
again, in eight chains at once; a quarter has a rate limit far below what it reports; the others report 2 MiB each 20
to 40 ms. The answer of a chain is timed from its kick to the call; "without ebbd" is a process that answers at
once. Give it a machine with 6 GiB to spare."""
import os
import platform
import random
import select
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "vhost"))
from daemon import Control, wait_for  # noqa: E402
from frontend import FrontEnd, MIB, REPORTING, WRITE  # noqa: E402

LARGE, RATE = 4, 16 * MIB
CHAINS, BUFFERS, BUFFER = 8, 16, 8 * MIB  # 1 GiB
BASE = 2 * MIB


class Small(FrontEnd):
    """A driver that has one chain out at a time."""

    def begin(self, size, times):
        self.size, self.times, self.sent = size, times, 0.0
        self.next = time.monotonic() + random.random() / 20

    def report(self):
        self.sent, self.next = time.monotonic(), None
        self.add(REPORTING, [(BASE, self.size, WRITE)])

    def answered(self, now):
        os.eventfd_read(self.calls[REPORTING])
        if self.next is not None:  # it is called once when it starts
            return
        self.times.append(now - self.sent)
        self.next = now + 0.02 + random.random() / 50


class Echo:
    """In place of ebbd a process that answers at once: what is the machine's."""

    def __init__(self):
        self.kick, call = os.eventfd(0), os.eventfd(0)
        self.calls = {REPORTING: call}
        self.child = os.fork()
        if self.child == 0:
            while os.eventfd_read(self.kick):
                os.eventfd_write(call, 1)

    begin, answered = Small.begin, Small.answered

    def report(self):
        self.sent, self.next = time.monotonic(), None
        os.eventfd_write(self.kick, 1)

    def end(self):
        os.kill(self.child, 9)
        os.waitpid(self.child, 0)


def large(front, times, end):
    """Its memory is there again before each batch, which is as slow as the host's kernel."""
    call = front.calls[REPORTING]
    while time.monotonic() < end:
        os.posix_fallocate(front.memfd, BASE, CHAINS * BUFFERS * BUFFER)
        used, out, sent = front.used(REPORTING), 0, []
        for chain in range(CHAINS):
            base = BASE + chain * BUFFERS * BUFFER
            sent.append(time.monotonic())
            front.add(REPORTING, [(base + i * BUFFER, BUFFER, WRITE) for i in range(BUFFERS)], chain * BUFFERS)
        while out < CHAINS:
            select.select([call], [], [])
            os.eventfd_read(call)
            back = (front.used(REPORTING) - used) & 0xFFFF
            times += [time.monotonic() - sent[i] for i in range(out, back)]
            out = back


def small(fronts, end):
    """All of them, in one thread, so that what is timed is not Python."""
    poll = select.epoll()
    by_fd = {front.calls[REPORTING]: front for front in fronts}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    while time.monotonic() < end:
        now = time.monotonic()
        for front in fronts:
            if front.next is not None and front.next <= now:
                front.report()
        for fd, _ in poll.poll(0.001):
            by_fd[fd].answered(time.monotonic())


def row(name, times):
    times = sorted(times)
    at = [f"{times[min(len(times) - 1, int(len(times) * p))] * 1000:9.1f}" for p in (0.5, 0.99, 0.999, 1)]
    return f"{name:24}{len(times):9}" + "".join(at)


def run(ebbd, directory, vms, seconds):
    control = os.path.join(directory, "control")
    echo = Echo()
    paths = {f"vm{i}": os.path.join(directory, f"vm{i}.sock") for i in range(vms)}
    argv = [ebbd, "--control", control, "--stats=0"] + [f"--socket={path}" for path in paths.values()]
    with open(os.path.join(directory, "log"), "w", encoding="utf-8") as log:
        daemon = subprocess.Popen(argv, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_for("ebbd is ready", lambda: "ready" in open(log.name, encoding="utf-8").read())
        operator = Control(control)
        groups = {"1 GiB": [], "beyond its rate": [], "2 MiB": []}
        fronts, threads, machine = [echo], [], []
        echo.begin(0, machine)
        end = time.monotonic() + seconds + vms / 20
        for i, (name, path) in enumerate(paths.items()):
            front = (FrontEnd if i < LARGE else Small)(path).start(mib=1024 + 8 if i < LARGE else 16)
            if i < LARGE:
                threads.append(threading.Thread(target=large, args=(front, groups["1 GiB"], end)))
            elif i < LARGE + vms // 4:
                operator.ask("limits", vm=name, rate=RATE)
                front.begin(8 * MIB, groups["beyond its rate"])
                fronts.append(front)
            else:
                front.begin(2 * MIB, groups["2 MiB"])
                fronts.append(front)
        for thread in threads:
            thread.start()
        small(fronts, end)
        for thread in threads:
            thread.join()
        return groups, machine, operator.ask("status")["vms"]
    finally:
        echo.end()
        daemon.send_signal(2)
        daemon.wait()


def main():
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    vms = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 30
    with tempfile.TemporaryDirectory(prefix="ebb-answers-") as directory:
        groups, machine, states = run(os.path.abspath(sys.argv[1]), directory, vms, seconds)
    every = [t for times in groups.values() for t in times]
    print(f"answers.py EBBD {vms} {seconds:g}; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
          f"{platform.system()} {platform.release()}")
    print(f"{'answers, ms':24}{'number':>9}" + "".join(f"{head:>9}" for head in ("50 %", "99 %", "99.9 %", "most")))
    for name, times in groups.items():
        print(row(name, times))
    print(row("all", every))
    print(row("without ebbd", machine))
    for cause in ("late", "rate"):
        left = sum(state["discard"]["not"][cause]["bytes"] for state in states)
        print(f"left, {cause}: {left // MIB} MiB of {sum(s['discard']['asked_bytes'] for s in states) // MIB}")
    print(f"above 250 ms: {sum(t > 0.25 for t in every)}")


if __name__ == "__main__":
    main()

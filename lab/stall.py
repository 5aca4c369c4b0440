#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""How long QEMU's main loop does not answer: `ebb run`, with a question to QEMU's monitor each
10 ms from the last `idle` step on, in which a guest that has freed its memory reports it.

    stall.py [--unasked] ebb run ... --qemu PROGRAM ... --json FILE

All of ebb's own words. FILE gets "stalls" besides: how many questions, the longest and the median time
until the answer, and how much of the time it was late, in milliseconds; and "ebbd_after_ms", ebbd's CPU
time from that step on. With --unasked no question is put: each costs QEMU as much CPU time as the discard
of 2 MiB, so that what QEMU uses is to be seen without.
"""
import glob
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PERIOD = 0.010
LATE_MS = 2  # an answer that comes later than this, while nothing goes on, waited for something


def value_at(argv, name):
    if name not in argv or argv.index(name) + 1 == len(argv):
        sys.exit(f"stall.py: {name} is missing")
    return argv.index(name) + 1


def with_monitor(qemu, directory):
    """A program that is this QEMU with a monitor more."""
    path = os.path.join(directory, "qemu")
    with open(path, "w") as f:
        f.write(f"#!/bin/sh\nexec '{qemu}' \"$@\" -qmp 'unix:{directory}/qmp,server=on,wait=off'\n")
    os.chmod(path, 0o755)
    return path


class Monitor:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.lines = self.sock.makefile("rb")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command):
        self.sock.sendall(json.dumps({"execute": command}).encode())
        while True:
            line = self.lines.readline()
            if not line:
                raise ConnectionError
            if b'"return"' in line:
                return


def measure(path, answers):
    """Until QEMU has ended."""
    try:
        monitor = Monitor(path)
        while True:
            began = time.monotonic()
            try:
                monitor.ask("query-status")
            except TimeoutError:
                answers.append(1000 * (time.monotonic() - began))
                return
            answers.append(1000 * (time.monotonic() - began))
            time.sleep(max(0, PERIOD - (time.monotonic() - began)))
    except OSError:
        pass  # QEMU has ended


def backend_ms(pid):
    """CPU time so far of the ebbd that this `ebb run` has started; None: it has none."""
    for task in glob.glob(f"/proc/{pid}/task/*/children"):
        for child in read(task).split():
            if read(f"/proc/{child}/comm").strip() == "ebbd":
                return sum(int(read(path).split()[0]) / 1e6
                           for path in glob.glob(f"/proc/{child}/task/*/schedstat"))
    return None


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return "0"


def watch(process, last_idle, path, found):
    """Until its end. found: the answers, if there is somebody to ask, and what ebbd used before the last
    `idle` and in all."""
    idles, thread = 0, None
    for line in process.stdout:
        idles += "step: idle" in line
        if idles == last_idle:
            last_idle = None
            found["ebbd_before_ms"] = backend_ms(process.pid)
            if path:
                thread = threading.Thread(target=measure, args=(path, found["answers"]))
                thread.start()
    if thread:
        thread.join()


def run(argv, last_idle, path):
    """(exit status, what was found)"""
    found = {"answers": [], "ebbd_before_ms": None}
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          errors="replace") as process:
        # Whoever ends this ends what it has started.
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        watch(process, last_idle, path, found)
    return process.returncode, found


def stalls(answers):
    answers = sorted(answers)
    if len(answers) < 100:
        sys.exit(f"stall.py: QEMU answered {len(answers)} times only")
    return {"questions": len(answers), "longest_ms": answers[-1],
            "stalled_ms": sum(one - LATE_MS for one in answers if one > LATE_MS),
            "median_ms": statistics.median(answers)}


def main():
    argv = sys.argv[1:]
    unasked = argv[:1] == ["--unasked"]
    argv = argv[unasked:]
    where = value_at(argv, "--qemu")
    last_idle = argv[value_at(argv, "--workload")].count("idle ")
    with tempfile.TemporaryDirectory(prefix="ebb-stall-") as directory:
        if unasked:
            status, found = run(argv, last_idle, None)
        else:
            argv[where] = with_monitor(argv[where], directory)
            status, found = run(argv, last_idle, os.path.join(directory, "qmp"))
    if status:
        sys.exit(status)
    path = argv[value_at(argv, "--json")]
    with open(path) as f:
        result = json.load(f)
    result["stalls"] = None if unasked else stalls(found["answers"])
    result["ebbd_after_ms"] = None
    if found["ebbd_before_ms"] is not None:
        result["ebbd_after_ms"] = result["ebbd_cpu_ms"] - found["ebbd_before_ms"]
    with open(path, "w") as f:
        json.dump(result, f)


if __name__ == "__main__":
    main()

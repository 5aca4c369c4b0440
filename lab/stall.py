#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""How long QEMU's main loop does not answer: `ebb run`, with a question to QEMU's monitor each
10 ms from the last `idle` step on, in which a guest that has freed its memory reports it.

    stall.py ebb run ... --qemu PROGRAM ... --json FILE

All of ebb's own words; FILE gets "stalls" besides: how many questions, and milliseconds until the
answer (the longest, the 99th percentile, the median).
"""
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PERIOD = 0.010


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
            monitor.ask("query-status")
            answers.append(1000 * (time.monotonic() - began))
            time.sleep(max(0, PERIOD - (time.monotonic() - began)))
    except OSError:
        pass


def run(argv, last_idle, path):
    """(exit status, answers)"""
    answers, idles, thread = [], 0, None
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          errors="replace") as process:
        for line in process.stdout:
            idles += "step: idle" in line
            if idles == last_idle and not thread:
                thread = threading.Thread(target=measure, args=(path, answers))
                thread.start()
    if thread:
        thread.join()
    return process.returncode, answers


def main():
    argv = sys.argv[1:]
    where = value_at(argv, "--qemu")
    workload = argv[value_at(argv, "--workload")]
    with tempfile.TemporaryDirectory(prefix="ebb-stall-") as directory:
        argv[where] = with_monitor(argv[where], directory)
        status, answers = run(argv, workload.count("idle "), os.path.join(directory, "qmp"))
    if status:
        sys.exit(status)
    if len(answers) < 100:
        sys.exit(f"stall.py: QEMU answered {len(answers)} times only")
    path = argv[value_at(argv, "--json")]
    with open(path) as f:
        result = json.load(f)
    answers.sort()
    result["stalls"] = {"questions": len(answers), "longest_ms": answers[-1],
                        "p99_ms": answers[len(answers) * 99 // 100],
                        "median_ms": statistics.median(answers)}
    with open(path, "w") as f:
        json.dump(result, f)


main()

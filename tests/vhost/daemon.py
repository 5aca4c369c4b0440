# SPDX-License-Identifier: BSD-2-Clause
"""What tests see of a running ebbd: its control socket, and what /proc says of the process."""
import json
import os
import re
import socket
import time

PATIENCE = 600  # seconds; nothing that is waited for takes nearly so long


def sanitized(program):
    """A sanitizer's runtime looks for leaks in the end by means that the sandbox takes away."""
    with open(program, "rb") as f:
        data = f.read()
    return b"__asan_init" in data or b"__tsan_init" in data


def wait_for(what, condition):
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited for {PATIENCE} s: {what}")
        time.sleep(0.005)


def listens(path):
    """Whether one can connect: a socket has its name before it listens."""
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def descriptors(pid):
    """What it has open, by kind; that an eventfd is another one does not matter. Files with a back end's
    state do not count: ebbd opens them when it looks."""
    base = f"/proc/{pid}/fd"
    found = []
    for fd in os.listdir(base):
        try:
            found.append(re.sub(r"\d+", "N", os.readlink(f"{base}/{fd}")))
        except FileNotFoundError:  # closed meanwhile
            found.append("gone")
    return sorted(name for name in found if ".vm.state" not in name)


def guest_maps(pid):
    with open(f"/proc/{pid}/maps") as f:
        return sum("memfd:guest" in line for line in f)


def own_memory(pid):
    """Bytes of its own, no guest's."""
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"RssAnon:\s+(\d+) kB", f.read())[1]) * 1024


class Control:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data)

    def line(self):
        try:
            line = self.file.readline()
        except ConnectionResetError:  # hung up before it had read everything
            return None
        return json.loads(line) if line else None

    def ask(self, command, **members):
        self.send(json.dumps({"command": command, **members}).encode() + b"\n")
        return self.line()

    def vm(self, name):
        vms = self.ask("status", vm=name)["vms"]
        return vms[0]

    def close(self):
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

# SPDX-License-Identifier: BSD-2-Clause
"""QEMU's monitor against the guest's balloon driver: `balloon`, `info balloon`
and the guest's statistics, on each machine."""
import json
import socket
import subprocess
import tempfile
import time

import e2e

MIB = 1 << 20
MEMORY = 512
SECONDS = e2e.PATIENCE


class Monitor:
    """A QEMU with the guest, and its QMP socket."""

    def __init__(self, machine):
        self.dir = tempfile.TemporaryDirectory(prefix="ebb-e2e-")
        ours, theirs = socket.socketpair()
        device = "virtio-balloon-device" if machine == "microvm" else "virtio-balloon-pci"
        with open(self.dir.name + "/console", "wb") as console:
            self.process = subprocess.Popen(
                [e2e.QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                 "-accel", "tcg,tb-size=64", "-machine", machine, "-m", f"{MEMORY}M",
                 "-global", "virtio-mmio.force-legacy=false",
                 "-device", device + ",id=b0,free-page-reporting=on",
                 "-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control",
                 "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial", "stdio",
                 "-kernel", e2e.GUEST, "-append", 'script="idle 36000"'],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=console,
                stderr=subprocess.STDOUT)
        theirs.close()
        ours.settimeout(SECONDS)
        self.lines = ours.makefile("rw")
        self.socket = ours
        try:
            self.read()  # the greeting
            self.call("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def read(self):
        line = self.lines.readline()
        if not line:
            raise AssertionError("QEMU is gone: " + self.console())
        return json.loads(line)

    def call(self, command, **arguments):
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            answer = self.read()
            if "error" in answer:
                raise AssertionError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def console(self):
        with open(self.dir.name + "/console", errors="replace") as f:
            return f.read()

    def actual(self):
        return self.call("query-balloon")["actual"] // MIB

    def close(self):
        self.process.kill()
        self.process.wait()
        self.lines.close()
        self.socket.close()
        self.dir.cleanup()


class Balloon(e2e.Case):
    def until(self, monitor, what, value):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if what():
                return
            self.assertIsNone(monitor.process.poll(), monitor.console())
            time.sleep(0.05)
        self.fail(f"never {value}, but {monitor.actual()}\n{monitor.console()}")

    def check(self, machine):
        monitor = Monitor(machine)
        self.addCleanup(monitor.close)
        self.assertEqual(monitor.actual(), MEMORY)
        for target in (256, 384, 128, MEMORY):
            monitor.call("balloon", value=target * MIB)
            self.until(monitor, lambda: monitor.actual() == target, f"{target} MiB")

    def check_stats(self, machine):
        monitor = Monitor(machine)
        self.addCleanup(monitor.close)
        path = "/machine/peripheral/b0"
        monitor.call("qom-set", path=path, property="guest-stats-polling-interval", value=1)

        def stats():
            return monitor.call("qom-get", path=path, property="guest-stats")

        self.until(monitor, lambda: stats()["last-update"] > 0, "statistics")
        first = stats()
        total, free = (first["stats"][k] // MIB for k in ("stat-total-memory", "stat-free-memory"))
        self.assertGreater(total, MEMORY - 32)
        self.assertLessEqual(total, MEMORY)
        self.assertGreater(free, total - 16)
        # They go on, and follow the balloon.
        monitor.call("balloon", value=256 * MIB)
        self.until(monitor, lambda: stats()["stats"]["stat-free-memory"] // MIB < 280, "less free")


for m in ("q35", "pc", "microvm"):
    setattr(Balloon, f"test_{m}", lambda self, m=m: self.check(m))
    setattr(Balloon, f"test_stats_{m}", lambda self, m=m: self.check_stats(m))

if __name__ == "__main__":
    e2e.need_qemu()
    e2e.main()

# SPDX-License-Identifier: BSD-2-Clause
"""A program that behaves to `ebb run` like a QEMU with the reference guest, well
or badly: FAKE in the environment says how. It has real memory of the right
size, and gives it back in steps, so that the host's half can be checked.
"""
import mmap
import os
import re
import signal
import sys
import time

MODE = os.environ.get("FAKE", "good")
ARGS = " ".join(sys.argv[1:])
MIB = 1 << 20
STEPS = 7  # in which memory comes back: none of the shares that are timed ends a step
STEP_SECONDS = 0.1


def telemetry():
    return int(re.search(r"-add-fd fd=(\d+)", ARGS).group(1))


def send(text):
    os.write(telemetry(), (text + "\n").encode())


def console(text):
    fd = int(re.search(r"id=console,fd=(\d+)", ARGS).group(1))
    os.write(fd, text.encode())


class Memory:
    """The guest's."""

    def __init__(self):
        self.size = int(re.search(r"-object memory-backend-\w+,id=\w+,size=(\d+)M", ARGS).group(1)) * MIB
        self.shared = "memory-backend-memfd" in ARGS
        if self.shared:
            fd = os.memfd_create("memory-backend-memfd")
            os.ftruncate(fd, self.size)
            self.map = mmap.mmap(fd, self.size, flags=mmap.MAP_SHARED)
        else:
            self.map = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            # As QEMU does; it also keeps the kernel from joining it to other memory.
            self.map.madvise(mmap.MADV_DONTFORK)

    def touch(self, n):
        for offset in range(0, n, mmap.PAGESIZE):
            self.map[offset] = 1

    def drop(self, start, end):
        self.map.madvise(mmap.MADV_REMOVE if self.shared else mmap.MADV_DONTNEED, start, end - start)


def hello():
    send("ebb-telemetry 1")
    send(f"boot ns=1 cpus=2 managed_kib={200 * 1024} zones=1 reporting=1 color=blue")
    send("base ns=2 used_kib=1024")


def end(status=0, errors=0, reports=8):
    send(f"end ns=9 status={status} reports={reports} reported_kib=4096 refaulted_kib=1024 failed=0 "
         f"checks=1000 errors={errors}")
    time.sleep(0.05)


def use(kib, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        send(f"use ns=3 used_kib={kib} free_kib=1 reported_kib=0 in_flight_kib=0 cached_kib=0")
        time.sleep(0.02)


def work(memory):
    """Hold half of the memory, free it, and give it back in steps."""
    half = memory.size // 2
    send("step ns=3 cmd=memhog 50%")
    memory.touch(half)
    send(f"hold ns=4 kib={half // 1024}")
    use(half // 1024, 0.2)
    send(f"release ns=5 freed_kib={half // 1024}")
    send("step ns=6 cmd=idle 1")
    pages = half // mmap.PAGESIZE
    for step in range(STEPS):
        use(1024, STEP_SECONDS)
        memory.drop(pages * step // STEPS * mmap.PAGESIZE, pages * (step + 1) // STEPS * mmap.PAGESIZE)
    use(1024, 0.2)


def good():
    memory = Memory()
    hello()
    use(1024, 0.5)
    work(memory)
    end()
    sys.exit(1)


def early():
    """Three quarters are back before the last free."""
    memory = Memory()
    hello()
    use(1024, 0.5)
    half = memory.size // 2
    send("step ns=3 cmd=memhog 50%")
    memory.touch(half)
    send(f"hold ns=4 kib={half // 1024}")
    use(half // 1024, 0.3)
    memory.drop(0, half * 3 // 4)
    use(half // 4096, 0.5)
    send(f"release ns=5 freed_kib={half // 1024}")
    use(1024, 0.2)
    memory.drop(half * 3 // 4, half)
    use(1024, 0.3)
    end()
    sys.exit(1)


def quick():
    """Frees nothing."""
    Memory()
    hello()
    use(1024, 0.3)
    end()
    sys.exit(1)


def unreported():
    memory = Memory()
    half = memory.size // 2
    hello()
    use(1024, 0.3)
    memory.touch(half)
    send(f"hold ns=4 kib={half // 1024}")
    use(half // 1024, 0.3)
    send(f"release ns=5 freed_kib={half // 1024}")
    use(1024, 0.3)
    memory.map[half] = 1  # the host holds a page more than before
    use(1024, 0.2)
    end(reports=0)
    sys.exit(1)


def regrow():
    """Two releases, and memory taken again after the larger one."""
    memory = Memory()
    hello()
    use(1024, 0.5)
    work(memory)
    send("step ns=7 cmd=memhog 25%")
    use(1024, 0.5)
    memory.touch(memory.size // 4)
    send(f"hold ns=8 kib={memory.size // 4096}")
    use(memory.size // 4096, 0.1)
    send(f"release ns=8 freed_kib={memory.size // 4096}")
    use(1024, 0.1)
    end()
    sys.exit(1)


def measures():
    """Results of steps, some of them damaged; half of the memory held in the second step."""
    memory = Memory()
    hello()
    send("step ns=1 cmd=idle 1")
    use(1024, 0.4)
    memory.touch(memory.size // 2)
    send("step ns=2 cmd=cycle 50% 100 1")
    use(memory.size // 2048, 1)
    send("result ns=3 step=cycle cycles=7 frames=70 busy_ns=18446744073709551615 ratio=0.5 odd=1\x7f")
    for line in ("result", "result ", "result ns", "result ns=", "result =1", "result a b=1", "engine A=1"):
        send(line)
    send("engine ns=4 window_ns=1 passes=1")
    send("result ns=5 step=page_fault1 mode=procs tasks=2 thp=0")
    memory.drop(0, memory.size // 2)
    send("step ns=6 cmd=idle 2")
    use(1024, 0.2)
    send("engine ns=7 window_ns=50000000 passes=9")
    end()
    sys.exit(1)


def noise():
    """Damaged lines among good ones: counted, and not believed."""
    memory = Memory()
    hello()
    for line in ("use ns=1", "use used_kib=-1", "use used_kib=99999999999999999999999",
                 "use used_kib=999999999999", "release ns=1 freed_kib=12x", "hold", "\x00\x01\xff",
                 "use used_kib=1 \x00", "x" * 5000, "end status=0", "BOOT cpus=1", "step ns=1"):
        os.write(telemetry(), line.encode("latin-1") + b"\n")
    send("novelty ns=1 of=a later version")  # fine
    use(1024, 0.5)
    work(memory)
    end()
    sys.exit(1)


def flood():
    Memory()
    hello()
    junk = bytes(range(1, 256)) * 200
    while True:
        os.write(telemetry(), junk)


def corrupted():
    memory = Memory()
    hello()
    use(1024, 0.1)
    work(memory)
    send("fault ns=7 pfn=77 expect=0x1 found=0x0\x1b[2J")
    end(status=1, errors=1)
    sys.exit(3)


def quiet_errors():
    """Errors in the telemetry, but an exit status of success."""
    memory = Memory()
    hello()
    work(memory)
    end(status=0, errors=3)
    sys.exit(1)


def dies_at_start():
    print("fake: no such machine", file=sys.stderr)
    sys.exit(1)


def leaves_at_start():
    sys.exit(0)


def dies():
    Memory()
    hello()
    use(1024, 0.1)
    print("fake: out of luck", file=sys.stderr)
    sys.exit(1)


def killed():
    Memory()
    hello()
    use(1024, 0.1)
    os.kill(os.getpid(), signal.SIGKILL)


def resets():
    Memory()
    hello()
    sys.exit(0)


def panics():
    Memory()
    hello()
    console("PANIC on CPU 0\nrip 0000000000012345\n\x1b[31m")
    end(status=3)
    sys.exit(7)


def refuses():
    Memory()
    hello()
    console("script: no such command\n")
    sys.exit(5)


def hangs():
    Memory()
    hello()
    send("step ns=3 cmd=churn 10% 5")
    time.sleep(3600)


def mute():
    Memory()
    time.sleep(3600)


def ends_and_stays():
    memory = Memory()
    hello()
    work(memory)
    end()
    time.sleep(3600)


def newer():
    Memory()
    send("ebb-telemetry 2")
    time.sleep(3600)


def no_memory():
    hello()
    use(1024, 3600)


def refuses_device():
    """Its balloon is of a kind that the guest cannot use."""
    memory = Memory()
    send("ebb-telemetry 1")
    send(f"boot ns=1 cpus=2 managed_kib={200 * 1024} zones=1 reporting=0")
    send("base ns=2 used_kib=1024")
    console("virtio device at 00:02.0 speaks legacy virtio only: not used\n")
    work(memory)
    end()
    sys.exit(1)


def chatters():
    """Says more than any pipe takes, and a line without an end."""
    Memory()
    hello()
    console("one\n" * 100000 + "x" * 100000)
    end()
    sys.exit(1)


def idle():
    Memory()
    hello()
    use(1024, 3600)


if "--version" in sys.argv:
    if MODE == "version_fails":
        print("fake: cannot", file=sys.stderr)
        sys.exit(1)
    if MODE == "version_hangs":
        time.sleep(3600)
    print("QEMU emulator version 99.1.2 (Fake 1:99.1)\nCopyright (c) nobody")
    sys.exit(0)
try:
    globals()[MODE]()
except BrokenPipeError:
    sys.exit(1)

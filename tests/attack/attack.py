#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Front-ends that attack: does ebbd hold, and do other VMs notice?

    attack.py EBBD [SECONDS] [ID]...

Each row of TABLE is run by itself, on an ebbd with the VMs a and b. A process of its own attacks a.
Meanwhile b reports, and an operator asks for the status: both must be answered within PATIENCE_S.
Afterwards a new front-end must be served on a.sock within the row's bound, and nothing may be left:
processes of ebbd, its descriptors, those of the back end, mappings. Bounds are generous, for a
machine that does much else. With SECONDS the rows follow each other for so long (0: each once), and
what was measured is printed; without, some run at once, and only the verdicts mean something. Exit
status 0: all held; 77: some could not be tried.
"""
import concurrent.futures
import ctypes
import fcntl
import mmap
import os
import random
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import traceback

for folder in ("tests/vhost", "lab"):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..", folder))

import crowd  # noqa: E402
import frontend  # noqa: E402
from daemon import Control, descriptors, guest_maps, sanitized, wait_for  # noqa: E402
import stall  # noqa: E402
from frontend import FrontEnd, Gone, INFLATE, MIB, PAGE, REPORTING, STATS, WRITE  # noqa: E402

PATIENCE_S = 15  # for each report of b, and each status
QUIET_S = 1  # in which b's own figure is taken
AT_ONCE = 3  # rows, where nothing is measured
HELD_S = 8  # how long what blocks is held: longer than any watchdog
GET_INFLIGHT_FD, SET_INFLIGHT_FD, P_INFLIGHT = 31, 32, 1 << 12
INFLIGHT = struct.pack("<QQHH", 0, 0, 5, frontend.SIZE)
FDS = 253  # in one message
SHRINK, FUTURE_WRITE = 2, 16  # F_SEAL_
SEED = int(os.environ.get("EBB_SEED", str(random.SystemRandom().randrange(1 << 32))))
libc = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    """This kernel or user cannot do that."""


class Failure(Exception):
    """It did not hold."""


def own_group():
    """A process that ends with its parent, and what it starts with its group."""
    os.setsid()
    libc.prctl(1, signal.SIGKILL)


def fork(function):
    """Run function in a process of its own; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        function()
    except BaseException:  # of a process that has no other way to tell
        traceback.print_exc()
    os._exit(0)


# ---- the neighbour: VM b ----

def neighbour(path, commands, answers):
    """Report without end; for each byte in `commands` tell how long reports took since the last."""
    with FrontEnd(path) as front:
        front.start(mib=16)
        took = []
        while True:
            front.fill(8 * MIB, MIB)
            began = time.monotonic()
            front.add(REPORTING, [(8 * MIB, MIB, WRITE)])
            select.select([front.calls[REPORTING]], [], [])
            took.append(time.monotonic() - began)
            os.eventfd_read(front.calls[REPORTING])
            if select.select([commands], [], [], 0.02)[0]:
                if not os.read(commands, 1):
                    return
                data = struct.pack(f"<{len(took)}d", *took)
                answers.write(struct.pack("<I", len(data)) + data)
                answers.flush()
                took = []


class Neighbour:
    def __init__(self, path):
        commands, self.commands = os.pipe()
        answers, theirs = os.pipe()
        self.answers = os.fdopen(answers, "rb")

        def run():
            own_group()
            os.close(self.commands)
            neighbour(path, commands, os.fdopen(theirs, "wb"))
        self.pid = fork(run)
        os.close(commands)
        os.close(theirs)

    def took(self):
        """The median and the worst since this was asked last, in ms."""
        os.write(self.commands, b"?")
        if not select.select([self.answers], [], [], PATIENCE_S)[0]:
            raise Failure(f"b's report did not come back in {PATIENCE_S} s")
        size = self.answers.read(4)
        if not size:
            raise Failure("b was disconnected")
        data = self.answers.read(struct.unpack("<I", size)[0])
        took = [1000 * s for s in struct.unpack(f"<{len(data) // 8}d", data)]
        if max(took) > 1000 * PATIENCE_S:
            raise Failure(f"a report of b took {max(took):.0f} ms")
        return statistics.median(took), max(took)

    def end(self):
        os.close(self.commands)
        self.answers.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


# ---- what attackers have ----

class Rings(FrontEnd):
    """Its rings are not at page 0."""

    @staticmethod
    def ring_at(queue):
        base = MIB // 2 + queue * 4 * PAGE
        return base, base + 2 * PAGE, base + 3 * PAGE


class Vm:
    """VM a, as the attacker has it, in a process of its own."""

    def __init__(self, path, control, long):
        self.path, self.control, self.long = path, control, long

    def connect(self, kind=FrontEnd):
        """As soon as there is room: the last session may still be ending."""
        end = time.monotonic() + 60
        while True:
            front = kind(self.path, timeout=60)
            try:
                front.greet(protocol=frontend.P_REPLY_ACK | frontend.P_BACKEND_REQ | frontend.P_MEM_SLOTS |
                            frontend.P_CONFIG | P_INFLIGHT)
                return front
            except (Gone, ConnectionError):
                front.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def start(self, mib=16, kind=FrontEnd, queues=range(5)):
        front = self.connect(kind)
        front.set_features()
        front.share(mib)
        front.kicks, front.calls = {}, {}
        for queue in queues:
            front.start_queue(queue)
        front.config()
        return front

    def ask(self, *args, **members):
        control = Control(self.control)
        try:
            return control.ask(*args, **members)
        finally:
            control.close()

    def back_end(self):
        return self.ask("status", vm="a")["vms"][0]["back_end"]["pid"]


def lingering(keep=[]):
    """A TCP socket whose last close() waits: what it has to send is never read."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one = socket.create_connection(listener.getsockname())
        keep.append(listener.accept()[0])
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    one.setblocking(False)
    try:
        while True:
            one.send(bytes(1 << 20))
    except BlockingIOError:
        return one


def close_now(one):
    """Who closes it last waits, unless that is a process that ends."""
    pid = fork(signal.pause)
    one.close()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def leave(front, sockets):
    """In its queue, and nowhere else."""
    front.raw(b"\1", [one.fileno() for one in sockets])
    for one in sockets:
        close_now(one)


def stuff(front, request=FrontEnd.message(frontend.GET_FEATURES), times=1000):
    """So many answers that nobody reads that it stops reading requests: what follows stays queued."""
    front.raw(request * times)
    time.sleep(0.5)


def page_that_never_comes():
    """An address that a system call waits at, or None."""
    try:
        with open("/dev/userfaultfd", "rb", buffering=0) as f:
            fd = fcntl.ioctl(f, 0xAA00, os.O_CLOEXEC)
        fcntl.ioctl(fd, 0xC018AA3F, struct.pack("<QQQ", 0xAA, 0, 0))
        page = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        fcntl.ioctl(fd, 0xC020AA00, struct.pack("<QQQQ", address, PAGE, 1, 0))
        return address, page, fd
    except OSError:
        return None


def hold(fd, seconds):
    """Hold the lock of a file; the pid of who does."""
    def run():
        never = page_that_never_comes()
        if never:
            signal.alarm(seconds)
            libc.pwrite(fd, ctypes.c_void_p(never[0]), ctypes.c_size_t(PAGE), ctypes.c_long(0))
            return
        print("no userfaultfd: the lock is held by fallocate(), not all of the time", file=sys.stderr)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            os.posix_fallocate(fd, 64 * MIB, 1024 * MIB)
            libc.fallocate(fd, 3, ctypes.c_long(64 * MIB), ctypes.c_long(1024 * MIB))
    if page_that_never_comes() is None:
        os.ftruncate(fd, 1088 * MIB)
    pid = fork(run)
    time.sleep(0.3)
    return pid


def let_go(front, pid):
    front.close()
    os.waitpid(pid, 0)


# ---- attacks ----

def linger_in_message(vm):
    front = vm.connect()
    leave(front, [lingering()])
    time.sleep(0.2)
    front.close()


def linger_behind_answers(vm):
    front = vm.connect()
    stuff(front)
    leave(front, [lingering()])
    front.close()


def linger_not_accepted(vm):
    """Beside a session, which goes on or ends; the back end is stopped, to be the slower one."""
    for ends in (False, True):
        front = vm.connect()
        pid = vm.back_end()
        os.kill(pid, signal.SIGSTOP)
        others = [FrontEnd(vm.path) for _ in range(3)]
        for other in others:
            leave(other, [lingering()])
            other.close()
        if ends:
            front.close()
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)
        front.close()


def linger_in_listener(vm):
    """There is no back end when the operator removes the VM: ebbd closes the listening socket."""
    for _ in range(4):  # each next one is started later
        os.kill(wait_for("it is up", vm.back_end), signal.SIGKILL)
        wait_for("it is down", lambda: not vm.back_end())
    other = FrontEnd(vm.path)
    leave(other, [lingering()])
    other.close()
    answer = vm.ask("remove", vm="a")
    if "error" in answer:
        raise Failure(f"remove: {answer}")
    vm.ask("add", vm="a")


def seals_between(vm):
    end = time.monotonic() + 3 * vm.long
    rng = random.Random(SEED)
    tries = 0
    while time.monotonic() < end:
        tries += 1
        try:
            front = vm.connect()
            front.set_features()
            hugetlb = rng.random() < 0.5
            front.share(16)
            if hugetlb:
                huge = huge_memfd(16)
                if huge >= 0:
                    front.fds.append(huge)
                    front.send(frontend.SET_MEM_TABLE, front.table, [huge])
            seal = os.fork()
            if not seal:
                time.sleep(rng.random() * 0.002)
                try:
                    fcntl.fcntl(front.memfd, fcntl.F_ADD_SEALS, FUTURE_WRITE)
                    os.ftruncate(front.memfd, rng.choice((0, 0, MIB // 4, MIB)))
                finally:
                    os._exit(0)
            front.kicks, front.calls = {}, {}
            for queue in range(5):
                front.start_queue(queue)
            for kick in front.kicks.values():
                os.eventfd_write(kick, 1)
            os.waitpid(seal, 0)
            front.send(frontend.SET_MEM_TABLE, front.table, [front.memfd])
            front.config()
        except (Gone, OSError):
            pass
        front.close()
    return f"{tries} tries"


def huge_memfd(mib):
    try:
        fd = os.memfd_create("guest", os.MFD_HUGETLB | os.MFD_ALLOW_SEALING)
    except OSError:
        return -1
    os.ftruncate(fd, mib * MIB)
    return fd


def locked_memory(vm):
    """Its session goes on: requests, commands of the operator, a new table."""
    front = vm.start()
    pid = hold(front.memfd, HELD_S)
    front.add(REPORTING, [(8 * MIB, 4 * MIB, WRITE)])
    front.send(frontend.SET_MEM_TABLE, front.table, [front.memfd])
    control = Control(vm.control)
    control.send(b'{"command":"inhibit","vm":"a","on":true}\n')
    time.sleep(HELD_S / 2)
    control.send(b'{"command":"inhibit","vm":"a","on":false}\n')
    let_go(front, pid)
    control.close()
    vm.ask("inhibit", vm="a", on=False)


def locked_inflight(vm):
    front = vm.connect()
    front.send(GET_INFLIGHT_FD, INFLIGHT)
    data, fds, _, _ = socket.recv_fds(front.sock, 4096, 4)
    if not fds:
        raise Skip("there is no in-flight memory")
    front.fds += fds
    pid = hold(fds[0], HELD_S)
    try:
        front.send(SET_INFLIGHT_FD, data[12:], [fds[0]])
        front.set_features()
        front.share(16)
        front.kicks, front.calls = {}, {}
        for queue in range(5):
            front.start_queue(queue)
        front.add(REPORTING, [(8 * MIB, MIB, WRITE)])
        front.config()
    except Gone:
        pass
    time.sleep(HELD_S / 2)
    let_go(front, pid)


def tcp_channel(vm):
    for one in (lingering(), socket.socket(socket.AF_INET), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)):
        front = vm.connect()
        try:
            front.send(frontend.SET_BACKEND_REQ_FD, fds=[one.fileno()])
            close_now(one)
            front.u64(frontend.GET_FEATURES)
        except Gone:
            pass
        front.close()


def other_kicks(vm):
    """An epoll that watches another, a timer, a pipe: all are no eventfd."""
    inner, outer = select.epoll(), select.epoll()
    outer.register(inner.fileno(), select.EPOLLIN)
    read, write = os.pipe()
    os.write(write, b"x")
    timer = libc.timerfd_create(1, 0)
    libc.timerfd_settime(timer, 0, struct.pack("<qqqq", 0, 1000, 0, 1), None)
    for kick in (outer.fileno(), read, timer):
        front = vm.connect()
        try:
            front.send(frontend.SET_VRING_KICK, struct.pack("<Q", REPORTING), [kick])
            front.u64(frontend.GET_FEATURES)
            raise Failure("a kick that is no eventfd was taken")
        except Gone:
            pass
        front.close()


def batch_without_end(vm):
    front = vm.start()
    pid = hold(front.memfd, HELD_S)
    front.add(REPORTING, [(8 * MIB, 4 * MIB, WRITE)])
    time.sleep(0.2)
    front.close()
    os.waitpid(pid, 0)


def batch_at_the_end(vm):
    """Held for so long that ebbd, which is told to end meanwhile, would be seen to wait for it."""
    front = vm.start()
    hold(front.memfd, 10 * PATIENCE_S)
    front.add(REPORTING, [(8 * MIB, 4 * MIB, WRITE)])
    time.sleep(0.2)
    front.close()


def mapped_often(vm):
    """Each discard has to look at all of the mappings."""
    front = vm.start(256)
    maps = [mmap.mmap(front.memfd, front.bytes) for _ in range(10000)]
    end = time.monotonic() + 4 * vm.long
    reports = 0
    while time.monotonic() < end:
        front.fill(8 * MIB, 32 * MIB)
        used = front.used(REPORTING)
        front.add(REPORTING, [(8 * MIB + i * 2 * MIB, 2 * MIB, WRITE) for i in range(120)])
        while front.used(REPORTING) == used and time.monotonic() < end:
            time.sleep(0.005)
        reports += front.used(REPORTING) != used
    for one in maps:
        one.close()
    front.close()
    return f"{reports} batches of 240 MiB"


def thousands_of_descriptors(vm):
    null = os.open("/dev/null", os.O_RDONLY)
    for _ in range(80 * vm.long):
        front = vm.connect()
        try:
            for byte in FrontEnd.message(frontend.SET_MEM_TABLE, bytes(40))[:8]:
                front.raw(bytes([byte]), [null] * FDS)
        except (Gone, OSError):
            pass
        front.close()
    # In a queue that it does not read, too.
    front = vm.connect()
    stuff(front, times=500)
    front.sock.setblocking(False)
    try:
        for _ in range(60):
            front.raw(b"\1", [null] * FDS)
    except OSError:
        pass
    front.close()


def untouched_pages(vm):
    """Each buffer in a page of its own that nobody touched: to look at it must not make it."""
    mib = 512
    front = vm.start(mib, Rings)
    pid = vm.back_end()
    before, blocks, at = shared_memory(pid), front.blocks(), 2 * MIB
    for queue in (INFLATE, STATS, REPORTING):
        while at + frontend.SIZE * PAGE <= (mib - 8) * MIB * (1 + queue) // 5:
            used = front.used(queue)
            front.add(queue, [(at + i * PAGE + 64, 12, 0) for i in range(frontend.SIZE)])
            at += frontend.SIZE * PAGE
            end = time.monotonic() + 60
            while queue != STATS and front.used(queue) == used:
                if time.monotonic() > end:
                    raise Failure("a chain does not come back")
                time.sleep(0)
            if queue == STATS:
                vm.ask("stats", vm="a", timeout_ms=1)
                break
    grown = max(shared_memory(pid) - before, front.blocks() - blocks)
    front.close()
    if grown > 32 * MIB:
        raise Failure(f"{grown // MIB} MiB were made by looking at them")
    return f"{at // PAGE} pages looked at, {grown >> 10} KiB made"


def untouched_pages_and_a_limit(vm):
    """The same of a guest of 512 MiB, whose back end may have 200 MiB."""
    try:
        cgroup = crowd.Cgroup(200)
    except (OSError, SystemExit) as why:
        raise Skip(f"no memory cgroup can be made: {why}") from None
    try:
        pid = vm.back_end()
        crowd.write(os.path.join(cgroup.dir, "cgroup.procs"), str(pid))
        said = untouched_pages(vm)
        if cgroup.has_killed() or vm.back_end() != pid:
            raise Failure("its back end was killed for want of memory")
        return f"{said}, {cgroup.mib():.0f} MiB in the cgroup"
    finally:
        for pid in stall.read(os.path.join(cgroup.dir, "cgroup.procs")).split():
            crowd.write(os.path.join(os.path.dirname(cgroup.dir), "cgroup.procs"), pid)
        cgroup.remove()


def shared_memory(pid):
    with open(f"/proc/{pid}/status") as f:
        return 1024 * int(next(line for line in f if line.startswith("RssShmem")).split()[1])


def large_memory(vm):
    """The last reference to all of it is the back end's."""
    mib = 1024 * vm.long
    front = vm.start(mib)
    os.posix_fallocate(front.memfd, 0, front.bytes)
    front.add(REPORTING, [(8 * MIB, (mib - 16) * MIB, WRITE)])
    os.posix_fallocate(front.memfd, 0, front.bytes)
    front.memory.close()
    front.close()
    return f"{mib} MiB"


def cpu(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def always():
    fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)
    os.eventfd_write(fd, (1 << 64) - 2)
    return fd


def always_readable(vm):
    seconds = 3 * vm.long
    front = vm.start(queues=(0, 1, 2, 3))
    front.event = always
    front.start_queue(REPORTING)
    pid = vm.back_end()
    before = cpu(pid)
    time.sleep(seconds)
    share = 100 * (cpu(pid) - before) / seconds
    front.close()
    if share > 30:
        raise Failure(f"a's back end takes {share:.0f} % of a CPU")
    return f"{share:.0f} % of a CPU"


def answers_never_read(vm, kept=[]):
    """As many descriptors under way as ebbd may have, and more; the sockets stay."""
    for _ in range(150):
        front = vm.connect()
        try:
            front.raw(FrontEnd.message(GET_INFLIGHT_FD, INFLIGHT) * 150)
            front.sock.shutdown(socket.SHUT_WR)
        except (Gone, OSError):
            pass
        kept.append(front)
    return f"{len(kept)} sockets"


def own_end_as_channel(vm):
    """The session holds the other end of its own connection, which therefore never ends."""
    front = FrontEnd(vm.path)
    front.greet(protocol=frontend.P_REPLY_ACK | frontend.P_BACKEND_REQ)
    front.send(frontend.SET_BACKEND_REQ_FD, fds=[front.sock.fileno()])
    front.close()


def own_end_in_queue(vm):
    """Behind answers that nobody reads."""
    front = vm.connect()
    stuff(front)
    front.raw(b"\1", [front.sock.fileno()])
    front.close()


class Row:
    def __init__(self, name, what, attack, bound=60, ends=False, stays=True, removes=False, alone=False):
        self.name, self.what, self.attack, self.bound = name, what, attack, bound
        self.ends = ends  # ebbd is told to end meanwhile
        self.stays = stays  # the attacker, while the next front-end comes
        self.alone = alone  # it is tried when it is asked for: not every machine has what it takes
        self.removes = removes  # it is over when the operator removes and adds the VM


TABLE = [
    Row("F1a", "a lingering TCP socket in a message", linger_in_message),
    Row("F1b", "one behind answers that nobody reads, then hang-up", linger_behind_answers),
    Row("F1c", "one in connections that are not accepted yet", linger_not_accepted),
    Row("F1d", "one in the listening socket of a VM that is removed", linger_in_listener),
    Row("F2", "seals set and the file cut, between two calls", seals_between),
    Row("F3a", "the lock of guest memory held", locked_memory),
    Row("F3b", "the lock of in-flight memory held", locked_inflight),
    Row("F3c", "a channel that is TCP, or datagrams", tcp_channel),
    Row("F3d", "kicks that are an epoll, a pipe, a timer", other_kicks),
    Row("F4a", "a batch that does not end, then hang-up", batch_without_end),
    Row("F4b", "the same when ebbd is told to end", batch_at_the_end, ends=True),
    Row("F5", "a file mapped 10,000 times, batches of 240 MiB", mapped_often),
    Row("F6", "20,000 descriptors in messages and a queue", thousands_of_descriptors),
    Row("F7", "small buffers in pages that nobody touched", untouched_pages),
    Row("F7b", "the same, with a back end that may have 200 MiB", untouched_pages_and_a_limit, alone=True),
    Row("F8", "large memory, of which it has the last reference", large_memory),
    Row("F9", "a kick that is always readable", always_readable),
    Row("F10", "answers with descriptors that nobody reads", answers_never_read),
    # Nothing tells a connection that its own back end holds from one that another process has.
    Row("F11a", "a session with its own other end as channel", own_end_as_channel, stays=False, removes=True),
    Row("F11b", "a session with its own other end in its queue", own_end_in_queue, stays=False, removes=True),
]


# ---- one row ----

class Attacker:
    """The process that attacks; it stays when it is done, with all that it has."""

    def __init__(self, row, vm):
        read, write = os.pipe()

        def run():
            own_group()
            os.close(read)
            try:
                said = "ok " + (row.attack(vm) or "")
            except Skip as why:
                said = f"skip {why}"
            except Failure as why:
                said = f"failed {why}"
            except BaseException:
                said = "failed " + traceback.format_exc()
            os.write(write, said.encode())
            os.close(write)
            signal.pause()
        self.pid = fork(run)
        os.close(write)
        self.read = read

    def said(self, wait=0.0):
        """What came of it, once it is done."""
        if not select.select([self.read], [], [], wait)[0]:
            return None
        return os.read(self.read, 65536).decode() or "failed it died"

    def end(self):
        if self.pid:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.read)
        self.pid = 0


class Stage:
    """An ebbd with the VMs a and b."""

    def __init__(self, ebbd):
        self.dir = tempfile.mkdtemp(prefix="ebb-attack-")
        vms = os.path.join(self.dir, "vms")
        os.mkdir(vms)
        self.control_path = os.path.join(self.dir, "control")
        self.log = open(os.path.join(self.dir, "log"), "a+")
        self.daemon = subprocess.Popen(
            [ebbd, "--control", self.control_path, "--socket-dir", vms, "--stats=0"] +
            ["--no-sandbox"] * sanitized(ebbd), stderr=self.log, stdin=subprocess.DEVNULL)
        wait_for("ebbd is ready", lambda: "ready" in self.said() or self.daemon.poll() is not None)
        if self.daemon.poll() is not None:
            sys.exit(f"ebbd does not start: {self.said()}")
        self.control = Control(self.control_path)
        self.a, self.b = (self.control.ask("add", vm=vm)["socket"] for vm in "ab")
        self.control.sock.settimeout(PATIENCE_S)
        self.status_ms = 0.0
        wait_for("both are up", lambda: all(vm["back_end"]["state"] == "up" for vm in self.status()))
        self.neighbour = Neighbour(self.b)
        self.served(PATIENCE_S)
        self.before = self.sight()

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def status(self):
        began = time.monotonic()
        try:
            answer = self.control.ask("status")
        except TimeoutError:
            raise Failure(f"no status in {PATIENCE_S} s") from None
        self.status_ms = max(self.status_ms, 1000 * (time.monotonic() - began))
        if answer is None:
            raise Failure("ebbd has ended")
        return answer["vms"]

    def serve_once(self):
        """A front-end at a.sock that reports. False: not yet."""
        front = None
        try:
            front = FrontEnd(self.a, timeout=5)
            front.start(mib=16)
            front.add(REPORTING, [(8 * MIB, MIB, WRITE)])
            return bool(select.select([front.calls[REPORTING]], [], [], 5)[0])
        except (Gone, OSError):
            return False
        finally:
            if front:
                front.close()

    def served(self, bound):
        """Seconds until a new front-end was served on a.sock."""
        began = time.monotonic()
        while not self.serve_once():
            self.status()
            if time.monotonic() - began > bound:
                raise Failure(f"a is not served {bound} s after the attack")
            time.sleep(0.05)
        return time.monotonic() - began

    def sight(self):
        """What must be as before, when a has no front-end."""
        pid = self.daemon.pid
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            back_ends = f.read().split()
        a = next(vm["back_end"]["pid"] for vm in self.status() if vm["name"] == "a")
        return descriptors(pid), len(back_ends), descriptors(a), guest_maps(a), len(os.listdir(f"/proc/{a}/task"))

    def anew(self):
        """The operator removes VM a, and adds it."""
        for command in ("remove", "add"):
            answer = self.control.ask(command, vm="a")
            if "error" in answer:
                raise Failure(f"{command}: {answer}")
        wait_for("it is up", lambda: all(vm["back_end"]["state"] == "up" for vm in self.status()))

    def nothing_left(self, bound):
        end = time.monotonic() + bound
        while True:
            try:
                now = self.sight()
            except OSError:
                now = None
            if now == self.before:
                return
            if time.monotonic() > end:
                raise Failure(f"left of it: {now} instead of {self.before}")
            time.sleep(0.05)

    def end(self):
        """Told to, it ends in time; and so do its back ends."""
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGINT)
            try:
                self.daemon.wait(4 * PATIENCE_S)
            except subprocess.TimeoutExpired:
                raise Failure(f"ebbd does not end in {4 * PATIENCE_S} s") from None
        if self.daemon.returncode:
            raise Failure(f"ebbd ended with {self.daemon.returncode}")

    def clear(self):
        """Whatever is left is killed."""
        if self.daemon.poll() is None:
            with open(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children") as f:
                back_ends = [int(pid) for pid in f.read().split()]
            self.daemon.kill()
            for pid in back_ends:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:  # it ended with ebbd
                    pass
            self.daemon.wait()
        self.neighbour.end()
        self.control.close()
        self.log.close()
        shutil.rmtree(self.dir)


def watch(stage, attacker, seconds):
    """Until the attack is done: it is well, as far as others see. What the attacker says."""
    end = time.monotonic() + seconds
    while True:
        stage.status()
        said = attacker.said(0.05)
        if said is not None:
            return said
        if time.monotonic() > end:
            raise Failure(f"the attack was not done in {seconds:.0f} s")


def act(stage, row, long, figures):
    time.sleep(QUIET_S)
    figures["quiet"] = stage.neighbour.took()
    stage.status_ms = 0.0
    attacker = Attacker(row, Vm(stage.a, stage.control_path, long))
    try:
        said = watch(stage, attacker, 300 * long)
        if said.startswith("skip "):
            raise Skip(said[5:])
        if said.startswith("failed "):
            raise Failure(said[7:])
        figures["said"] = said[3:]
        if row.ends:
            time.sleep(QUIET_S)
            figures["attack"] = stage.neighbour.took()
            back_ends = [vm["back_end"]["pid"] for vm in stage.status()]
            stage.end()
            attacker.end()
            wait_for("the back ends end", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in back_ends))
            return
        if not row.stays:
            attacker.end()
        if row.removes:
            stage.anew()
        figures["served"] = stage.served(row.bound)
        figures["attack"] = stage.neighbour.took()
        attacker.end()
        stage.nothing_left(row.bound)
        stage.end()
    finally:
        attacker.end()


def run(row, ebbd, long):
    """The verdict, which is printed: held, FAILED or SKIP."""
    stage, figures, why, log = Stage(ebbd), {}, "", ""
    try:
        act(stage, row, long, figures)
        verdict = "held"
    except Skip as error:
        verdict, why = "SKIP", str(error)
    except Failure as error:
        verdict, why = "FAILED", str(error)
        log = stage.said()[-2000:]
    if os.environ.get("ATTACK_LOG"):
        log = stage.said()
    stage.clear()
    quiet, attack = (figures.get(key, (float("nan"),) * 2) for key in ("quiet", "attack"))
    print(f"{row.name:5} {row.what:51} {quiet[0]:6.1f} {quiet[1]:6.1f} {attack[0]:6.1f} {attack[1]:7.1f} "
          f"{stage.status_ms:7.1f} {figures.get('served', float('nan')):6.2f} {row.bound:5} {verdict} "
          f"{why or figures.get('said', '')}", flush=True)
    if log:
        print(log, file=sys.stderr, flush=True)
    return verdict


HEAD = f"""{'':57} b quiet, ms  b attacked, ms  status  a again  bound
{'id':5} {'attack':51} {'median':>6} {'worst':>6} {'median':>6} {'worst':>7} {'worst':>7} {'s':>6} {'s':>5}"""


def side_by_side(ebbd):
    """Each row once, in a process of its own: most of their time they wait. The exit statuses."""
    def one(row):
        done = subprocess.run([sys.executable, __file__, ebbd, "0", row.name], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print("\n".join(done.stdout.splitlines()[3:]), flush=True)
        return done.returncode
    print(HEAD, flush=True)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, (row for row in TABLE if not row.alone)))


def main():
    if len(sys.argv) < 2 or not os.access(sys.argv[1], os.X_OK):
        print("SKIP: there is no ebbd: NOTHING of it was attacked", file=sys.stderr)
        sys.exit(77)
    ebbd, seconds = os.path.abspath(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0
    if len(sys.argv) == 2:
        statuses = side_by_side(ebbd)
        sys.exit(1 if set(statuses) - {0, 77} else max(statuses))
    rows = [row for row in TABLE if len(sys.argv) < 4 or row.name in sys.argv[3:]]
    print(f"EBB_SEED={SEED}\n{HEAD}", flush=True)
    began, verdicts = time.monotonic(), []
    while not verdicts or time.monotonic() - began < seconds:
        verdicts += [run(row, ebbd, 3 if seconds else 1) for row in rows]
    sys.exit(1 if "FAILED" in verdicts else 77 if "SKIP" in verdicts else 0)


if __name__ == "__main__":
    main()

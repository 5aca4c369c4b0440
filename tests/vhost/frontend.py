# SPDX-License-Identifier: BSD-2-Clause
"""A vhost-user front-end with a guest's half of the rings, as small as tests can use."""
import array
import fcntl
import mmap
import os
import socket
import struct

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = 12, 13, 14
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM = 15, 16, 17
SET_VRING_ENABLE, SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG = 18, 21, 24, 25
GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 36, 37, 38

F_PROTOCOL, F_VERSION_1 = 1 << 30, 1 << 32
F_STATS, F_DEFLATE_ON_OOM, F_HINT, F_POISON, F_REPORTING = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
P_MQ, P_REPLY_ACK, P_BACKEND_REQ, P_CONFIG, P_MEM_SLOTS = 1 << 0, 1 << 3, 1 << 5, 1 << 9, 1 << 15

NEED_REPLY = 8
WRITE, NEXT = 2, 1

PAGE = 4096
MIB = 1 << 20
USER = 0x7F0000000000  # what the front-end's addresses begin with
INFLATE, DEFLATE, STATS, HINT, REPORTING = range(5)
SIZE = 128  # of each ring


class Gone(Exception):
    """The back-end hung up."""


class FrontEnd:
    """One connection. Requests as methods, messages by send() and reply()."""

    def __init__(self, path=None, sock=None, timeout=600):
        self.sock = sock
        if path is not None:
            self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        if path is not None:
            self.sock.connect(path)
        self.fds = []  # to be closed
        self.backend = None

    def close(self):
        self.sock.close()
        if self.backend:
            self.backend.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- messages ----

    def raw(self, data, fds=()):
        try:
            if fds:
                self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                            array.array("i", fds))])
            else:
                self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Gone from error

    @staticmethod
    def message(request, payload=b"", flags=1):
        return struct.pack("<III", request, flags, len(payload)) + payload

    def send(self, request, payload=b"", fds=(), flags=1):
        self.raw(self.message(request, payload, flags), fds)

    def receive(self, n):
        data = b""
        while len(data) < n:
            try:
                part = self.sock.recv(n - len(data))
            except ConnectionResetError as error:
                raise Gone from error
            if not part:
                raise Gone
            data += part
        return data

    def reply(self, request):
        got, flags, size = struct.unpack("<III", self.receive(12))
        payload = self.receive(size)
        if got != request or not flags & 4:
            raise AssertionError(f"answer to {got}, flags {flags}, instead of to {request}")
        return payload

    def ask(self, request, payload=b"", fds=()):
        self.send(request, payload, fds)
        return self.reply(request)

    def u64(self, request):
        return struct.unpack("<Q", self.ask(request))[0]

    def ack(self, request, payload=b"", fds=()):
        """With REPLY_ACK: 0 if it was granted."""
        self.send(request, payload, fds, 1 | NEED_REPLY)
        return struct.unpack("<Q", self.reply(request))[0]

    def hung_up(self):
        """Wait until the back-end hangs up; what it still says is thrown away."""
        try:
            while self.sock.recv(4096):
                pass
        except ConnectionResetError:
            pass
        return True

    # ---- a session, step by step ----

    def greet(self, features=F_STATS | F_HINT | F_REPORTING,
              protocol=P_MQ | P_REPLY_ACK | P_BACKEND_REQ | P_CONFIG):
        offered = self.u64(GET_FEATURES)
        self.features = features & offered | F_VERSION_1
        self.protocol = protocol & self.u64(GET_PROTOCOL_FEATURES)
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", self.protocol))
        self.send(SET_OWNER)
        if self.protocol & P_BACKEND_REQ:
            self.backend, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self.backend.settimeout(600)
            self.send(SET_BACKEND_REQ_FD, fds=[theirs.fileno()])
            theirs.close()
        return offered

    def config(self):
        payload = self.ask(GET_CONFIG, struct.pack("<III", 0, 16, 0) + bytes(16))
        return struct.unpack("<IIII", payload[12:])

    def set_actual(self, pages):
        self.send(SET_CONFIG, struct.pack("<III", 0, 16, 0) + struct.pack("<IIII", 0, pages, 0, 0))

    def share(self, mib=64, seals=0):
        """Guest memory: one memfd at guest address 0."""
        self.memfd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.fds.append(self.memfd)
        os.ftruncate(self.memfd, mib * MIB)
        self.bytes = mib * MIB
        if seals:
            fcntl.fcntl(self.memfd, fcntl.F_ADD_SEALS, seals)
        self.memory = mmap.mmap(self.memfd, self.bytes)
        # Rings and buffers take their memory now, so that what is measured is not theirs.
        self.memory[:2 * MIB] = bytes(2 * MIB)
        self.table = struct.pack("<IIQQQQ", 1, 0, 0, self.bytes, USER, 0)
        self.send(SET_MEM_TABLE, self.table, [self.memfd])

    def set_features(self):
        self.send(SET_FEATURES, struct.pack("<Q", self.features | F_PROTOCOL))

    def event(self):
        fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.fds.append(fd)
        return fd

    @staticmethod
    def ring_at(queue):
        base = queue * 4 * PAGE
        return base, base + PAGE * 2, base + PAGE * 3

    def start_queue(self, queue):
        desc, avail, used = self.ring_at(queue)
        self.kicks[queue], self.calls[queue] = self.event(), self.event()
        self.send(SET_VRING_NUM, struct.pack("<II", queue, SIZE))
        self.send(SET_VRING_BASE, struct.pack("<II", queue, 0))
        self.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", queue, 0, USER + desc, USER + used,
                                              USER + avail, 0))
        self.send(SET_VRING_KICK, struct.pack("<Q", queue), [self.kicks[queue]])
        self.send(SET_VRING_CALL, struct.pack("<Q", queue), [self.calls[queue]])
        self.send(SET_VRING_ENABLE, struct.pack("<II", queue, 1))

    def start(self, mib=64, queues=range(5), **greeting):
        """All of it, as QEMU does."""
        self.greet(**greeting)
        self.set_features()
        self.share(mib)
        self.kicks, self.calls = {}, {}
        for queue in queues:
            self.start_queue(queue)
        self.config()  # an answer: all before was taken
        return self

    # ---- the guest ----

    def blocks(self):
        """Bytes that guest memory takes on the host."""
        return os.fstat(self.memfd).st_blocks * 512

    def put16(self, at, value):
        self.memory[at:at + 2] = struct.pack("<H", value)

    def get16(self, at):
        return struct.unpack("<H", self.memory[at:at + 2])[0]

    def add(self, queue, buffers, head=0):
        """Add a chain of (gpa, length, flags) in descriptors from `head` on, and kick."""
        desc, avail, _ = self.ring_at(queue)
        for i, (gpa, length, flags) in enumerate(buffers, head):
            more = NEXT if i + 1 < head + len(buffers) else 0
            self.memory[desc + 16 * i:desc + 16 * i + 16] = struct.pack(
                "<QIHH", gpa, length, flags | more, (i + 1) % SIZE)
        index = self.get16(avail + 2)
        self.put16(avail + 4 + 2 * (index % SIZE), head)
        self.put16(avail + 2, (index + 1) & 0xFFFF)
        os.eventfd_write(self.kicks[queue], 1)

    def used(self, queue):
        return self.get16(self.ring_at(queue)[2] + 2)

    def fill(self, at, length):
        self.memory[at:at + length] = b"\x5a" * length

    def inflate(self, pfns, at=MIB):
        self.memory[at:at + 4 * len(pfns)] = struct.pack(f"<{len(pfns)}I", *pfns)
        self.add(INFLATE, [(at, 4 * len(pfns), 0)])

    def give_stats(self, values, at=MIB + PAGE):
        data = b"".join(struct.pack("<HQ", tag, value) for tag, value in values.items())
        self.memory[at:at + len(data)] = data
        self.add(STATS, [(at, len(data), 0)])



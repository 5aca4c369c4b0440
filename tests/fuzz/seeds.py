#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes seeds/: inputs from which fuzzing begins, of valid sessions above all, and those that
once showed a defect. Formats are at the head of each target."""
import json
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seeds")


def write(target, name, data):
    os.makedirs(os.path.join(HERE, target), exist_ok=True)
    with open(os.path.join(HERE, target, name), "wb") as file:
        file.write(data)


def le(value, size):
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def desc(addr, length, flags=0, after=0):
    return struct.pack("<QIHH", addr, length, flags, after)


NEXT, WRITE, INDIRECT = 1, 2, 4

# ---- ring ----

AVAIL, USED = 0x1000, 0x2000


def ring_start(log2, first=0, memory=None):
    head = bytes([log2 | (0x20 if memory is not None else 0)]) + struct.pack("<HHHH", 0, AVAIL, USED, first)
    return head + (struct.pack("<H", len(memory)) + memory if memory is not None else b"")


TAKE, PUT, CALLS = b"\0", b"\1\7", b"\6"


def ring_desc(index, data):
    return bytes([3, index]) + data


def ring_offer(head):
    return b"\4" + struct.pack("<H", head)


def ring_seeds():
    write("ring", "one-buffer", ring_start(3) + ring_desc(0, desc(0x3000, 64, WRITE)) + ring_offer(0) +
          TAKE + PUT + CALLS + b"\5\0" + TAKE + b"\5\1")
    table = desc(1, 2, NEXT, 1) + desc(3, 4, NEXT | WRITE, 2) + desc(5, 6, WRITE)
    write("ring", "chains", ring_start(2, 0xfffe, table) + b"\2" + struct.pack("<HB", AVAIL + 2, 2) + b"\xfe\xff" +
          ring_offer(0) + ring_offer(2) + ring_offer(1) + TAKE * 3 + PUT * 3)
    write("ring", "loop", ring_start(2, 0, desc(1, 2, NEXT, 1) + desc(3, 4, NEXT, 0)) + ring_offer(0) + TAKE + TAKE)
    write("ring", "indirect", ring_start(1, 0, desc(1, 32, INDIRECT)) + ring_offer(0) + TAKE)
    write("ring", "too-far", ring_start(4) + b"\2" + struct.pack("<HB", AVAIL + 2, 2) + b"\x20\0" + TAKE)
    odd = ring_start(3) + ring_desc(0, desc(0x3000, 64, WRITE)) + ring_offer(0) + TAKE
    write("ring", "odd-address", bytes([odd[0] | 0x40]) + odd[1:])
    write("ring", "anew", ring_start(10) + b"\7" + ring_start(0) + ring_desc(0, desc(9, 0)) + ring_offer(0) + TAKE)


# ---- device ----

(KICK, WORK, STEP, CHAIN, PFNS, START, ACCEPT, STOP, ENABLE, DESC, WRITE_MEM, OFFER, INDEX, ADD, REMOVE, CFG_WRITE,
 CFG_READ, RESIZE, POLL, HINT, INHIBIT, FAILS, TIME, QUIESCE, RESET, SAVE, NEW) = range(27)
ALL = 0x3f


def place(slot, offset=0):
    return bytes([slot]) + le(offset, 3)


def start(queue, log2=4, kind=0, rest=b""):
    return bytes([START, queue, log2, kind]) + rest


def begin(config=b"\1\0\0\0", features=ALL, queues=5):
    script = config + bytes([ADD, 1, ADD, 2, ADD, 3, ADD, 4, ADD, 5, ACCEPT, features])
    return script + b"".join(start(q) for q in range(queues))


def chain(queue, first, *buffers):
    script = bytes([CHAIN, queue, len(buffers) - 1 | first << 3])
    return script + b"".join(place(s, o) + bytes([n, w]) for s, o, n, w in buffers)


def pfns(queue, index, n, slot, offset=0, step=1):
    return bytes([PFNS, queue, index]) + place(0, 0xa000 + 0x400 * index) + bytes([n]) + place(slot, offset) + bytes([step])


def kick(queue):
    return bytes([KICK, queue])


DONE = bytes([STEP, WORK])
KIB4, KIB16, KIB64 = 0x43, 0x4f, 0x7f  # lengths


def hint_command(identifier):
    return bytes([WRITE_MEM]) + place(0, 0xf000) + b"\4" + le(identifier, 4) + chain(3, 0, (0, 0xf000, 4, 0)) + kick(3)


def device_seeds():
    write("device", "report", begin() + chain(4, 0, (2, 0, KIB16, 1), (3, 0x8000, KIB64, 1), (5, 0, KIB4, 1)) +
          kick(4) + DONE + bytes([QUIESCE]))
    inflate = pfns(0, 0, 8, 3, 0x18000) + kick(0) + DONE + pfns(0, 1, 8, 4, 0) + kick(0) + DONE
    write("device", "inflate-gather", begin() + inflate + pfns(1, 0, 4, 3, 0x1c000) + kick(1) + bytes([WORK, QUIESCE]))
    stats = bytes([WRITE_MEM]) + place(0, 0xf000) + b"\x14" + le(4, 2) + le(1 << 30, 8) + le(5, 2) + le(1 << 31, 8)
    write("device", "stats", begin() + stats + chain(2, 0, (0, 0xf000, 20, 0)) + kick(2) + bytes([POLL]) +
          chain(2, 1, (0, 0xf000, 20, 0)) + kick(2) + chain(2, 2, (0, 0xf000, 13, 0)) + kick(2))
    write("device", "hints", begin(b"\x11\0\0\0") + bytes([HINT, 0]) + hint_command(2) +
          chain(3, 1, (2, 0, KIB64, 1)) + kick(3) + DONE + hint_command(0) + DONE + bytes([HINT, 1]))
    write("device", "save-restore", begin() + chain(4, 0, (2, 0, KIB16, 1)) + kick(4) + bytes([SAVE, 0]) +
          chain(4, 1, (2, 0, KIB16, 1)) + kick(4) + DONE + bytes([SAVE, 1]) + le(24, 2) + b"\0")
    write("device", "memory", begin() + chain(4, 0, (2, 0, KIB16, 1)) + kick(4) + bytes([REMOVE, 2, WORK, REMOVE, 0, WORK,
          ADD, 10, ADD, 0, RESET]))
    config = bytes([CFG_WRITE, 0, 0, 16]) + le(1, 4) + le(2, 4) + le(0, 4) + le(0xaa, 4)
    write("device", "config", b"\1\0\0\0" + bytes([ACCEPT, ALL]) + config + bytes([RESIZE]) + le(1000, 4) +
          bytes([CFG_READ, 0, 0, 20]) + start(4) + bytes([ADD, 2]) + chain(4, 0, (2, 0, KIB16, 1)) + kick(4))
    write("device", "hint-renegotiated", b"\1\0\0\0" + bytes([ACCEPT, ALL, HINT, 0, ACCEPT, 1, SAVE, 0]))
    write("device", "disabled", begin() + bytes([ENABLE, 4]) + chain(4, 0, (2, 0, KIB16, 1)) + kick(4) + bytes([ENABLE, 12, WORK]) +
          bytes([INHIBIT, 1]) + chain(4, 1, (2, 0, KIB16, 1)) + kick(4) + DONE + bytes([INHIBIT, 0, STOP, 4]))
    write("device", "failures", begin(b"\3\3\5\0") + bytes([FAILS, 3, 1, 1]) + chain(4, 0, (2, 0, KIB16, 1)) + kick(4) +
          bytes([TIME, 9]) + bytes([WORK]) + DONE + bytes([FAILS, 0, 0, 2]) + chain(4, 1, (3, 0x8000, KIB64, 1)) + kick(4) + bytes([QUIESCE]))
    write("device", "hostile", begin(b"\5\2\0\0") + chain(4, 0, (2, 0xf000, KIB64, 1), (0, 0, 0, 1), (2, 0, KIB4, 0)) + kick(4) +
          bytes([DESC, 0, 0]) + place(0, 0xa000) + bytes([16, 1, 0, OFFER, 0, 0]) + kick(0) + bytes([INDEX, 1]) + le(0, 2) + le(500, 2) + kick(1))


# ---- vhost-user ----

(MESSAGE, RAW, V_KICK, V_WORK, V_STEP, V_TIME, V_WRITE, CUT, FILL, MODE, OPERATE, V_FAILS, EOF, VANISH) = range(14)
SEALED, OPEN, SHORT, READONLY, FUTURE, EVENT_A, EVENT_B, PIPE_IN, PIPE_OUT, NULL, EPOLL, SOCKET, INFLIGHT = range(13)
NEED_REPLY = 8
RAM, USER = 0x40000, 0x100000
FEATURES = 1 << 32 | 0x3b
P_MQ, P_ACK, P_REQ, P_CONFIG, P_INFLIGHT, P_RESET, P_SLOTS = 1, 8, 32, 1 << 9, 1 << 12, 1 << 13, 1 << 15
PROTOCOL = P_MQ | P_ACK | P_REQ | P_CONFIG | P_INFLIGHT | P_RESET | P_SLOTS


def message(request, payload=b"", fds=(), flags=0, how=0):
    return bytes([MESSAGE, request, flags, how, len(fds), *fds]) + struct.pack("<H", len(payload)) + payload


def u64(request, value, **more):
    return message(request, le(value, 8), **more)


def state(request, index, number, **more):
    return message(request, struct.pack("<II", index, number), **more)


def region(gpa=0, size=RAM, user=USER, offset=0):
    return struct.pack("<QQQQ", gpa, size, user, offset)


def table(*regions, fds):
    return message(5, struct.pack("<II", len(regions), 0) + b"".join(regions), fds=fds)


def hello(protocol=PROTOCOL):
    opening = message(1) + message(15) + u64(16, protocol) + message(17) + message(3) + message(36)
    return opening + message(21, fds=[SOCKET], flags=NEED_REPLY) + u64(2, FEATURES | 1 << 30, flags=NEED_REPLY)


def queue(index, size=8, base=0, user=USER):
    at = user + 0x2000 * index
    addr = struct.pack("<IIQQQQ", index, 0, at, at + 0x1800, at + 0x1000, 0)
    return (state(8, index, size) + state(10, index, base) + message(9, addr) +
            u64(13, index, fds=[EVENT_B]) + u64(14, index, fds=[EVENT_A]) + u64(12, index, fds=[EVENT_A]))


def guest(offset, data, which=0):
    return bytes([V_WRITE, which]) + le(offset, 3) + bytes([len(data)]) + data


def report(index, gpa, length, count=1, which=0):
    at = 0x2000 * index
    return (guest(at, desc(gpa, length, WRITE), which) + guest(at + 0x1000, struct.pack("<HHH", 0, count, 0), which) +
            bytes([V_KICK, index, V_STEP, V_WORK]))


def inflight(queues=5, size=8):
    return struct.pack("<QQHH", queues * (16 + size * 16 + 63) // 64 * 64 + 320, 0, queues, size)


def enable(*queues):
    return b"".join(state(18, q, 1, flags=NEED_REPLY) for q in queues)


def vhost_user_seeds():
    config = message(24, struct.pack("<III", 0, 16, 0) + bytes(16)) + message(25, struct.pack("<III", 0, 16, 0) + bytes(16))
    one = hello() + message(31, inflight()) + message(32, inflight(), fds=[INFLIGHT]) + config
    one += table(region(), fds=[SEALED]) + b"".join(queue(q) for q in range(5)) + enable(0, 1, 2, 3, 4)
    one += report(4, 0x20000, 0x8000) + bytes([OPERATE, 0]) + le(100, 4) + config
    write("vhost_user", "session", b"\0" + one + b"".join(state(11, q, 0) for q in range(5)) + bytes([EOF]))
    slots = hello() + message(37, bytes(8) + region(), fds=[OPEN], flags=NEED_REPLY) + queue(4) + enable(4)
    slots += message(37, bytes(8) + region(0x100000, 0x10000, 0x900000, 0x8000), fds=[SEALED], flags=NEED_REPLY)
    slots += report(4, 0x100000, 0x4000, which=1) + message(38, bytes(8) + region(0x100000, 0x10000, 0x900000, 0x8000), fds=[SEALED])
    slots += message(38, bytes(8) + region()) + message(34) + bytes([VANISH])
    write("vhost_user", "slots", b"\0" + slots)
    write("vhost_user", "cut-file", b"\0" + hello() + table(region(), fds=[OPEN]) + queue(4) + enable(4) + bytes([CUT, 1]) +
          bytes([V_KICK, 4, V_WORK]) + hello())
    write("vhost_user", "held", b"\x80" + hello() + table(region(), fds=[SEALED]) + queue(4) + report(4, 0x20000, 0x8000) +
          bytes([V_TIME]) + le(1001, 2) + bytes([V_WORK, V_STEP, V_WORK]))
    write("vhost_user", "reconnect", b"\0" + hello() + message(31, inflight()) + message(32, inflight(), fds=[INFLIGHT]) +
          table(region(), fds=[SEALED]) + queue(4) + enable(4) + report(4, 0x20000, 0x8000) + bytes([VANISH]) +
          hello() + message(32, inflight(), fds=[INFLIGHT]) + table(region(), fds=[SEALED]) + queue(4) + bytes([EOF]))
    bytewise = b"".join(message(r, how=2) for r in (1, 15, 17, 3)) + u64(2, FEATURES, how=5)
    joined = message(3, how=1) + u64(2, FEATURES, how=1) + u64(16, PROTOCOL, how=1) + message(1)
    write("vhost_user", "cut-and-joined", b"\0" + bytewise + joined + bytes([RAW, 0, 0, 12]) + struct.pack("<III", 2, 1, 8) +
          bytes([RAW, 0, 1, NULL, 8]) + le(FEATURES, 8))
    wrong = b"".join(hello() + m for m in (table(region(), fds=[SHORT]), table(region(), region(), fds=[SEALED, OPEN])))
    write("vhost_user", "wrong-memory", b"\1" + wrong + hello() + message(37, bytes(8) + region(), fds=[READONLY], flags=NEED_REPLY) +
          message(37, bytes(8) + region(), fds=[FUTURE], flags=NEED_REPLY) + message(37, bytes(8) + region(), fds=[NULL], flags=NEED_REPLY))
    ring = guest(0x800f, desc(0x20000, 0x8000, WRITE)) + guest(0x900f, struct.pack("<HHH", 0, 1, 0))
    write("vhost_user", "odd-address", b"\0" + hello() + table(region(user=USER + 1), fds=[SEALED]) + queue(4, user=USER + 16) +
          enable(4) + ring + bytes([V_KICK, 4, V_STEP, V_WORK]))
    odd = u64(12, 0, fds=[EPOLL], flags=NEED_REPLY) + u64(13, 1, fds=[PIPE_OUT], flags=NEED_REPLY) + u64(14, 0x102, flags=NEED_REPLY)
    write("vhost_user", "odd-events", b"\0" + hello() + table(region(), fds=[SEALED]) + odd + queue(0) + bytes([FILL, 3, V_KICK, 0]) +
          u64(12, 0, fds=[EPOLL], flags=NEED_REPLY) + bytes([V_KICK, 0]))


# ---- control ----

def ask(command, vm=None, **members):
    if vm:
        members = {"vm": vm, **members}
    return json.dumps({"command": command, **members})


CONTROL = {
    "sight": [ask("version"), ask("list"), ask("status"), ask("status", "a"), ask("hello")],
    "operate": [ask("resize", "a", memory_bytes=1 << 25, id="x"), ask("inhibit", "b", on=True), ask("inhibit", on=False),
                ask("limits", rate=1 << 20, id=7), ask("limits", "a"), ask("hint", "a", action="start"),
                ask("hint", "a", action="status"), ask("hint", "a", action="done")],
    "wait": [ask("stats", "a"), "!s", "!t", ask("stats", "a", timeout_ms=10), ask("flush", id=1), ask("flush", "a", timeout_ms=1), "!t"],
    "watch": [ask("watch", interval_ms=100), "!t", "!b", "!t", "!b", "!t", ask("watch", "b"), "!n", ask("list")],
    "come-and-go": [ask("supervise"), ask("list"), "!n", ask("end", when="idle"), ask("end", when="x"), "!c",
                    ask("resize", "a", balloon_bytes=4096), "!c", ask("stats", "a"), ask("end", "a", when="now")],
}


def control_seeds():
    for name, lines in CONTROL.items():
        write("control", name, "\n".join(lines).encode() + b"\n")
    name = "x" + "\u00e4" * 40  # is cut in an answer
    write("control", "long-name", ('{"command":"list","' + name + '":1}\n').encode())
    write("control", "wrong", b'{}\n[]\n{"command":1}\n{"command":"list","x":null}\n{"command":"list","command":"status"}\n'
          b'{"command":"limits","rate":-1}\n{"command":"limits","rate":1e3}\n{"command":"resize","vm":"a"}\nnonsense\n'
          b'{"command":"status","vm":"../x"}\n{"id":{"a":[1]},"command":"list"}\n{"command":"list"\n')


ring_seeds()
device_seeds()
vhost_user_seeds()
control_seeds()

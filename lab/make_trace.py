#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Make the trace lab/traces/phases.trace.zst, a small load in phases (PFT1, see SPEC.md).

    lab/make_trace.py | zstd -19 --no-check -o lab/traces/phases.trace.zst

The same trace each time: it depends on nothing but this file. Not recorded from
anything; it has in 18 seconds what recorded traces spread over minutes: a build-up and
its release, pauses, churn of small blocks, huge blocks freed in parts.
"""
import struct
import sys

RAM, FREE = 32768, 29696  # frames: 128 MiB, of which 12 MiB are in use before
FREE_WHOLE, ALLOC, FREE_PART = 0, 1, 2
UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC = 0, 1, 2, 3
MS, S = 1000, 1000000


class Trace:
    def __init__(self, seed):
        self.records = []  # (us, id, op, order, mt, cpu, off)
        self.now = 0
        self.ids = 0
        self.orders = {}  # of the live blocks, by id
        self.state = seed

    def random(self, n):
        """0 to n - 1."""
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % n

    def put(self, number, op, order, mt=0, off=0):
        # A task stays on its CPU for a while.
        cpu = self.now // (200 * MS) % 2
        self.records.append((self.now, number, op, order, mt, cpu, off))

    def alloc(self, order, mt):
        number = self.ids
        self.ids += 1
        self.orders[number] = order
        self.put(number, ALLOC, order, mt)
        return number

    def free(self, number):
        self.put(number, FREE_WHOLE, self.orders.pop(number))

    def free_parts(self, number, order):
        """In pieces, from the last to the first."""
        pieces = 1 << (self.orders.pop(number) - order)
        for i in reversed(range(pieces)):
            self.put(number, FREE_PART, order, 1 if i == 0 else 0, i << order)

    def pause(self, us):
        self.now += us

    # ---- phases ----

    def build_up(self, seconds, pages, huge):
        """Page cache and anonymous memory, and some of the kernel's own."""
        blocks, kernel = [], []
        step = int(seconds * S) // pages
        for i in range(pages):
            if huge and i % (pages // huge) == 0:
                blocks.append(self.alloc(9, MOVABLE))
            blocks.append(self.alloc(0, MOVABLE))
            if i % 40 == 0:
                kernel.append(self.alloc(self.random(4), RECLAIMABLE if i % 3 else UNMOVABLE))
            self.pause(step)
        return blocks, kernel

    def release(self, seconds, blocks):
        step = int(seconds * S) // len(blocks)
        for number in blocks:
            self.free(number)
            self.pause(step)

    def churn(self, seconds, rate):
        """Blocks of small orders that live for a few milliseconds."""
        young = []
        for _ in range(int(seconds * rate)):
            order = (0, 0, 0, 0, 0, 1, 1, 2, 3)[self.random(9)]
            mt = HIGHATOMIC if self.random(100) == 0 else self.random(3)
            young.append(self.alloc(order, mt))
            if len(young) > 16:
                self.free(young.pop(0 if self.random(2) else self.random(16)))
            self.pause(S // rate)
        for number in young:
            self.free(number)


def make():
    trace = Trace(20)
    blocks, kernel = trace.build_up(2, 3000, 20)
    trace.churn(1, 500)
    stay = blocks[::97]  # some pages stay, all over the place
    trace.release(0.5, [b for b in blocks if b not in set(stay)])
    trace.pause(3 * S)
    trace.churn(2, 500)
    huge = [trace.alloc(9, MOVABLE) for _ in range(24)]
    trace.pause(1 * S)
    for number in huge[:12]:  # an unmapped mapping of huge pages that were split
        trace.free_parts(number, 5)
        trace.pause(2 * MS)
    for number in huge[12:]:
        trace.free_parts(number, 7)
        trace.pause(20 * MS)
    trace.pause(3 * S)
    more, more_kernel = trace.build_up(1, 2000, 10)
    trace.release(0.3, more + more_kernel[::2])
    trace.churn(1, 300)
    trace.pause(2 * S)
    trace.release(0.2, stay + kernel + more_kernel[1::2])
    trace.pause(1 * S)
    trace.free(trace.alloc(0, MOVABLE))
    return trace


def encode(trace):
    header = f"PFT1 ram={RAM} free={FREE} n={len(trace.records)} ids={trace.ids} w=phases\n"
    out = [header.encode().ljust(64, b"\0")]
    last = 0
    for us, number, op, order, mt, cpu, off in trace.records:
        out.append(struct.pack("<IIBBBBI", us - last, number, op, order, mt, cpu, off))
        last = us
    return b"".join(out)


if __name__ == "__main__":
    sys.stdout.buffer.write(encode(make()))

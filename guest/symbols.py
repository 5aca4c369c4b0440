#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Fill the guest's symbol table (x86_64/symbols.c) in after the link.

usage: symbols.py IN.elf OUT.elf

The section .symbols receives: a count, then count pairs of 32-bit numbers
(offset of a function from the start of .text, offset of its name in the
section), sorted, then the names. Functions that do not fit are left out.
"""
import os
import struct
import sys


def sections(elf):
    """Name -> (type, address, offset, size, link) of a 64-bit little-endian ELF file."""
    shoff = struct.unpack_from('<Q', elf, 0x28)[0]
    entsize, count, names = struct.unpack_from('<HHH', elf, 0x3a)
    rows = [struct.unpack_from('<IIQQQQI', elf, shoff + i * entsize) for i in range(count)]
    table = {}
    for name, kind, _flags, address, offset, size, link in rows:
        start = rows[names][4] + name
        table[elf[start:elf.index(b'\0', start)].decode()] = (kind, address, offset, size, link)
    return table


def functions(elf, table):
    """(offset in .text, name) of every function, sorted."""
    _, text, _, text_size, _ = table['.text']
    _, _, offset, size, _ = table['.symtab']
    _, _, strings, _, _ = table['.strtab']
    found = {}
    for at in range(offset, offset + size, 24):
        name, info, _, _, value, _ = struct.unpack_from('<IBBHQQ', elf, at)
        start = strings + name
        label = elf[start:elf.index(b'\0', start)]
        is_code = info & 15 == 2 or (info & 15 == 0 and not label.startswith(b'trap_stub_'))
        if label and is_code and text <= value < text + text_size and b'.' not in label[:1]:
            found.setdefault(value - text, label.split(b'.')[0])  # .constprop.0 and the like
    return sorted(found.items())


def build(entries, size):
    """The section's bytes."""
    while sum(len(name) + 9 for _, name in entries) + 4 > size:
        entries = entries[:-1]
    names_at = 4 + 8 * len(entries)
    table = struct.pack('<I', len(entries))
    names = b''
    for offset, name in entries:
        table += struct.pack('<II', offset, names_at + len(names))
        names += name + b'\0'
    return (table + names).ljust(size, b'\0')


def main():
    with open(sys.argv[1], 'rb') as f:
        elf = bytearray(f.read())
    table = sections(elf)
    _, _, offset, size, _ = table['.symbols']
    elf[offset:offset + size] = build(functions(elf, table), size)
    with open(sys.argv[2], 'wb') as f:
        f.write(elf)
    os.chmod(sys.argv[2], 0o755)


if __name__ == '__main__':
    main()

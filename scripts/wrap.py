#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Wrap the prose of Markdown files at 80 columns: paragraphs and lists that have a longer line. Tables,
code, headings and comments stay as they are.

    wrap.py FILE...            in place
    wrap.py --check FILE...    only say which lines are too long; exit status 1 if there are any
"""
import re
import sys
import textwrap

WIDTH = 80
ITEM = re.compile(r"( *)([-*]|\d+\.) +(?=\S)")
# Not prose. Code is indented by four columns behind an empty line that ends no list item.
OTHER = re.compile(r"\||#|<!--|\s*$")
# What would begin an item, were it the first word of a line.
MARKER = re.compile(r" ([-+*#]|\d+\.) ")


def is_long(line):
    """A single long word, a link say, cannot be shorter."""
    return len(line) > WIDTH and " " in line.strip()[:WIDTH]


def fill(lines):
    """One paragraph or item, whose first line says where the others begin."""
    item = ITEM.match(lines[0])
    first = item[0] if item else re.match(" *", lines[0])[0]
    text = " ".join([lines[0][len(first):].strip()] + [line.strip() for line in lines[1:]])
    text = MARKER.sub("\0\\1 ", text)
    filled = textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first),
                           break_long_words=False, break_on_hyphens=False)
    return filled.replace("\0", " ").split("\n")


def paragraphs(text):
    """(is it prose, its lines, the number of the first)"""
    block, began, fenced, in_list, blank = [], 0, False, False, True
    for number, line in enumerate(text.split("\n"), 1):
        fence = line.lstrip().startswith("```")
        code = fenced or fence or (line.startswith("    ") and blank and not in_list)
        other = code or OTHER.match(line)
        if other or ITEM.match(line):
            if block:
                yield True, block, began
            block = []
        if other:
            yield False, [line], number
        else:
            began = began if block else number
            block.append(line)
        fenced ^= fence
        if line.strip() and not line.startswith(" "):
            in_list = bool(ITEM.match(line))
        in_list = in_list or bool(ITEM.match(line))
        blank = not line.strip() or code
    if block:
        yield True, block, began


def wrap(text):
    lines = []
    for prose, block, _ in paragraphs(text):
        lines += fill(block) if prose and any(map(is_long, block)) else block
    return "\n".join(lines)


def too_long(text):
    return [began + i for prose, block, began in paragraphs(text) if prose
            for i, line in enumerate(block) if is_long(line)]


def main():
    check = sys.argv[1:2] == ["--check"]
    bad = 0
    for path in sys.argv[1 + check:]:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        if check:
            for number in too_long(text):
                bad += 1
                print(f"{path}:{number}: longer than {WIDTH} columns; scripts/wrap.py {path}")
        elif wrap(text) != text:
            with open(path, "w", encoding="utf-8") as f:
                f.write(wrap(text))
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()

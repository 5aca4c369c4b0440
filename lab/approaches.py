#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measure all trackers, and renew the tables and pictures of docs/approaches.md.

    lab/approaches.py build/cmd/ebb TRACES...     measure (some minutes; keep the machine quiet)
    lab/approaches.py build/cmd/ebb --saved       from lab/results/trackers.json, as it is

TRACES are directories of recorded traces. What stands between the two marks in
docs/approaches.md is replaced; the text around them is written by hand and has to be read
again after that.
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

HOME = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
PAGE = os.path.join(HOME, "docs", "approaches.md")
SAVED = os.path.join(HOME, "lab", "results", "trackers.json")
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def gather(directories, into):
    """All traces under names that say nothing of this machine."""
    os.mkdir(into)
    for directory in directories:
        for path in glob.glob(os.path.join(directory, "*.trace*")):
            os.symlink(os.path.abspath(path), os.path.join(into, os.path.basename(path)))


def measure(ebb, directories, scratch):
    gather(directories, os.path.join(scratch, "traces"))
    subprocess.run([ebb, "bench", "trackers", "--json", "trackers.json", "--traces", "traces"],
                   cwd=scratch, check=True, stdout=subprocess.DEVNULL)
    os.makedirs(os.path.dirname(SAVED), exist_ok=True)
    shutil.copy(os.path.join(scratch, "trackers.json"), SAVED)


def splice(tables):
    with open(PAGE) as f:
        page = f.read()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    with open(PAGE, "w") as f:
        f.write(f"{before}{BEGIN}\n\n{tables.strip()}\n\n{END}{after}")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    ebb = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        if sys.argv[2:] != ["--saved"]:
            measure(ebb, sys.argv[2:], scratch)
    done = subprocess.run([ebb, "bench", "trackers", "--from", SAVED, "--markdown", "--plot",
                           os.path.join(HOME, "docs")], check=True, text=True,
                          stdout=subprocess.PIPE)
    splice(done.stdout)


main()

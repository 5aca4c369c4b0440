# SPDX-License-Identifier: BSD-2-Clause
"""One line "NAME OK|FAIL|SKIP" per test of the last `meson test` in a build directory. What a test
that failed said last is appended to the file EBB_SAID, for whoever reads only the end of a long run."""
import json
import os
import pathlib
import sys

LINES = 60
build, matrix = sys.argv[1:]
log = pathlib.Path(build, "meson-logs", "testlog.json")
seen = 0
for line in log.read_text().splitlines() if log.exists() else []:
    test = json.loads(line)
    result = {"OK": "OK", "EXPECTEDFAIL": "OK", "SKIP": "SKIP"}.get(test["result"], "FAIL")
    name = test["name"].rsplit(" / ", 1)[-1]  # it begins with the suites
    print(f"{matrix}/{name.replace(' ', '_')} {result}")
    seen += 1
    if result == "FAIL" and "EBB_SAID" in os.environ:
        said = (test.get("stdout", "") + test.get("stderr", "")).splitlines()[-LINES:]
        with open(os.environ["EBB_SAID"], "a", encoding="utf-8") as f:
            print(f"== {matrix}/{name} ({test['result']}):", *said, sep="\n", file=f)
if not seen:
    print(f"{matrix}/no-tests-ran FAIL")

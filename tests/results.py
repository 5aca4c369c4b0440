# SPDX-License-Identifier: BSD-2-Clause
"""One line "NAME OK|FAIL|SKIP" per test of the last `meson test` in a build directory."""
import json
import pathlib
import sys

build, matrix = sys.argv[1:]
log = pathlib.Path(build, "meson-logs", "testlog.json")
seen = 0
for line in log.read_text().splitlines() if log.exists() else []:
    test = json.loads(line)
    result = {"OK": "OK", "EXPECTEDFAIL": "OK", "SKIP": "SKIP"}.get(test["result"], "FAIL")
    name = test["name"].rsplit(" / ", 1)[-1]  # it begins with the suites
    print(f"{matrix}/{name.replace(' ', '_')} {result}")
    seen += 1
if not seen:
    print(f"{matrix}/no-tests-ran FAIL")

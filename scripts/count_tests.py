#!/usr/bin/env python3
"""Counts single test cases in meson's logs and prints the closing line: N passed, N failed.
Every test program reports a case as cmocka does, "[       OK ] name" or "[  FAILED  ] name"; a program
that ended badly without naming a case counts as one failure."""
import json
import pathlib
import re
import sys


def main():
    passed = failed = 0
    for build in sys.argv[1:]:
        log = pathlib.Path(build) / "meson-logs" / "testlog.json"
        if not log.exists():
            continue
        for line in log.read_text().splitlines():
            test = json.loads(line)
            text = test.get("stdout", "") + test.get("stderr", "")
            ok = len(re.findall(r"^\[       OK \] ", text, re.M))
            bad = len(set(re.findall(r"^\[  FAILED  \] (\S+)$", text, re.M)))
            if test["result"] not in ("OK", "SKIP") and bad == 0:
                bad = 1
            if test["result"] == "OK" and ok == 0:
                ok = 1
            if bad:
                print(f"failed: {test['name']} ({test['result']})")
            passed += ok
            failed += bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


sys.exit(main())

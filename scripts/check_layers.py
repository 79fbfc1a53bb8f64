#!/usr/bin/env python3
"""Refuses an #include that breaks the house: a folder may include its own files and the public header
of folders below it (docs/architecture.md). meson setup runs this, and so do the tests."""
import pathlib
import re
import sys

PUBLIC = {"base": "base/base.h", "schemas": "schemas/schema.h", "sandbox": "sandbox/sandbox.h",
          "engine": "engine/engine.h", "tools": "tools/tool.h", "traces": "traces/trace.h"}
BELOW = {"base": [], "schemas": ["base"], "sandbox": ["base"], "engine": ["schemas", "base"],
         "tools": ["schemas", "sandbox", "base"], "traces": ["base"],
         "agent": ["tools", "traces", "engine", "sandbox", "schemas", "base"]}


def main():
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1]
    bad = []
    for folder, below in BELOW.items():
        for path in sorted((root / folder).rglob("*.[ch]")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
                if not m:
                    continue
                target = m.group(1)
                owner = target.split("/")[0]
                if "/" not in target:
                    bad.append(f"{path}:{number}: write the path from the root: \"{target}\"")
                elif owner == folder:
                    continue
                elif owner not in below:
                    bad.append(f"{path}:{number}: {folder}/ must not include {target}")
                elif owner != "base" and target != PUBLIC[owner]:
                    bad.append(f"{path}:{number}: {target} is private to {owner}/")
    print("\n".join(bad) or "layers: ok")
    return 1 if bad else 0


sys.exit(main())

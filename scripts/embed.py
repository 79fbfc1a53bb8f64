#!/usr/bin/env python3
"""Writes files as C arrays: embed.py OUT.c FILE...; a/b.json becomes `const char embedded_b[]`, NUL-terminated.

Arrays of numbers and not string literals: C99 promises no more than 4,095 characters of a literal."""
import pathlib
import sys


def main():
    out, *files = map(pathlib.Path, sys.argv[1:])
    text = ["/* Written by scripts/embed.py. */\n"]
    for file in files:
        name = "embedded_" + file.stem
        numbers = [str(b) for b in file.read_bytes()] + ["0"]
        rows = [",".join(numbers[i:i + 24]) for i in range(0, len(numbers), 24)]
        text.append(f"extern const char {name}[];\nconst char {name}[] = {{\n" + ",\n".join(rows) + "};\n")
    out.write_text("".join(text))


main()

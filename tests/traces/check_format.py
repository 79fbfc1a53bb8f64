#!/usr/bin/env python3
"""Recomputes a trace from its stored bytes with the standard library alone, following docs/trace.md and
nothing of weft's code. Prints the number of events and the last leaf; exits 1 at the first difference."""
import hashlib
import json
import re
import sqlite3
import sys

db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
run = sys.argv[2]


def check(condition, *what):
    if not condition:
        print("check_format:", *what)
        sys.exit(1)


check(db.execute("PRAGMA application_id").fetchone()[0] == 0x77656674, "application_id")
check(db.execute("PRAGMA journal_mode").fetchone()[0] == "wal", "journal_mode")
tables = dict(db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))
check(tables == {
    "ev": "CREATE TABLE ev(seq INTEGER PRIMARY KEY, hdr BLOB NOT NULL, salt BLOB, body BLOB)",
    "ckpt": "CREATE TABLE ckpt(size INTEGER PRIMARY KEY, note TEXT NOT NULL)",
    "blob": "CREATE TABLE blob(h BLOB PRIMARY KEY, z BLOB)"}, "tables", tables)
check(db.execute("SELECT count(*) FROM ckpt").fetchone()[0] == 0, "ckpt is not empty")

prev, size = bytes(32), 0
salts = set()
for seq, hdr, salt, body in db.execute("SELECT * FROM ev ORDER BY seq"):
    check(seq == size, "gap at", size)
    check(isinstance(hdr, bytes) and isinstance(salt, bytes) and isinstance(body, bytes), "column types")
    check(len(salt) == 16 and salt not in salts, "salt of", seq)
    salts.add(salt)
    h = json.loads(hdr)
    check(list(h) == ["body", "len", "prev", "run", "seq", "span", "ts", "type", "v"], "keys", list(h))
    check(re.fullmatch(r"\d+\.\d{9}", h["ts"]), "ts", h["ts"])
    want = {"body": hashlib.sha256(b"\x02" + salt + body).hexdigest(), "len": len(body),
            "prev": prev.hex(), "run": run, "seq": seq, "span": h["span"], "ts": h["ts"],
            "type": h["type"], "v": 1}
    text = json.dumps(want, separators=(",", ":"), ensure_ascii=False).encode()
    check(hdr == text, "header of", seq, hdr, text)
    value = json.loads(body, parse_float=lambda s: check(False, "float", s))
    check(body == json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode(),
          "body of", seq)
    prev, size = hashlib.sha256(b"\x00" + hdr).digest(), size + 1
print(size, prev.hex())

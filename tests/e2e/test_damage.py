#!/usr/bin/env python3
"""What a run's pages can suffer, seen from outside: a disk that fills while they are written, a flipped byte in each of
them, pages of another model under their names. The run goes on to the very ids and pages of an undisturbed one, or stops
with exit code 10 and does so once it is resumed. (`kill -9` at any point: test_kill.py.)"""
import hashlib
import json
import os
import pathlib
import struct
import subprocess

from harness import TINY, WEFT, Home, bodies, equal, expect, main, timeline

START = ["run", "-m", TINY, "--tools", "calculator", "What is 123 +45 *3 -17?"]
PAGE = 64
HEAD = 4096  # of a page's file: engine/kv_page.h


def page_digests(events):
    return {b["page"]: b["digest"] for b in bodies(events, "kv") if "page" in b}


def same(events, whole, what):
    equal(timeline(events), timeline(whole), f"{what}: ids")
    wanted = page_digests(whole)
    for page, digest in page_digests(events).items():
        equal(digest, wanted[page], f"{what}: page {page}")


def in_order(kv, ids):
    """A run's complete pages, by position: a page's name follows from the name before it and from its ids."""
    files = {path.stem: path for path in kv.glob("*.kv")}
    for name in files:
        order = [files[name]]
        while name in files:
            page = ids[len(order) * PAGE:][:PAGE]
            name = hashlib.blake2b(b"weft kv page 2\0\0" + bytes.fromhex(name) + struct.pack(f"<{len(page)}i", *page),
                                   digest_size=32).hexdigest()
            order += [files[name]] if name in files else []
        if len(order) == len(files):
            return order
    raise AssertionError(f"the pages in {kv} are no chain")


def killed_in_its_second_call(home, run):
    equal(home.weft(*START, "--run-id", run, WEFT_FAULT="run.tool:2").returncode, -9, run)
    return home.path / "runs" / run / "kv"


def goes_on(home, run, whole, again):
    """Resumes; at least `again` tokens have to be evaluated a second time."""
    home.weft("resume", run, check=0)
    same(home.events(run), whole, run)
    stats = home.stats(run)
    expect(stats["evaluated"] + stats["shared"] >= stats["length"] + again, run, "believed a bad page:", stats)


def a_flipped_byte_in_each_page():
    with Home() as home:
        home.weft(*START, "--run-id", "whole", check=0)
        whole = home.events("whole")
        n = len(in_order(killed_in_its_second_call(home, "counted"), timeline(whole)))
        expect(n >= 5, "only", n, "pages")
        for p in range(n):
            run = f"flipped-{p}"
            file = in_order(killed_in_its_second_call(home, run), timeline(whole))[p]
            sound = file.read_bytes()
            at = HEAD + (len(sound) - HEAD) * p // n + 7  # another place in each; in the store it is the same file
            file.chmod(0o600)
            with file.open("r+b") as f:
                f.seek(at)
                f.write(bytes([sound[at] ^ 1 << p % 8]))
            goes_on(home, run, whole, PAGE)
            expect(file.read_bytes() == sound, run, "the page was not made again")


def pages_of_another_model():
    with Home() as home:
        home.weft(*START, "--run-id", "whole", check=0)
        whole = home.events("whole")
        model = bytearray(pathlib.Path(TINY).read_bytes())
        eps = model.index(b"layer_norm_rms_epsilon") + 26  # behind the name: its type
        model[eps:eps + 4] = struct.pack("<f", 1e-3)
        other = home.path / "other.gguf"
        other.write_bytes(model)
        home.weft("run", "-m", other, *START[3:], "--run-id", "theirs", check=0)
        ids, prompt = timeline(home.events("theirs")), sum(len(b["ids"]) for b in bodies(whole, "segment")[:2])
        equal(ids[:prompt], timeline(whole)[:prompt], "prompt")
        theirs = in_order(home.path / "runs" / "theirs" / "kv", ids)
        for p in range(prompt // PAGE):
            run = f"mixed-{p}"
            mine = in_order(killed_in_its_second_call(home, run), timeline(whole))[p]
            expect(mine.name != theirs[p].name, "two models share a name")
            for path in (mine, home.path / "prefix" / mine.name[:2] / mine.name):
                path.unlink()
                path.write_bytes(theirs[p].read_bytes())
            goes_on(home, run, whole, PAGE)
            expect(mine.read_bytes() != theirs[p].read_bytes(), run, "the foreign page is still there")


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=$1k tmpfs "$WEFT_HOME" || exit 77
shift
"$@" --run-id full >&2
echo "exit $?"
mount -o remount,size=64m tmpfs "$WEFT_HOME" || exit 77
"$1" resume full >&2 || exit
"$1" trace show full --json
"""


def a_disk_that_fills():
    with Home() as home:
        home.weft(*START, "--run-id", "whole", check=0)
        whole = home.events("whole")
        (home.path / "small").mkdir()
        root = [] if os.geteuid() == 0 else ["--map-root-user"]
        stopped = []
        for size in range(250, 1000, 75):  # kB: what fills it is a page, or the trace
            done = subprocess.run(["unshare", "--mount", *root, "sh", "-c", ON_A_SMALL_DISK, "sh", str(size), WEFT, *START],
                                  capture_output=True, text=True, timeout=300,
                                  env=home.env() | {"WEFT_HOME": str(home.path / "small")})
            if done.returncode == 77 or "unshare:" in done.stderr:
                print("no file system of one's own here: skipped", done.stderr)
                return
            equal(done.returncode, 0, f"{size} kB: {done.stderr[-600:]}")
            code, *lines = done.stdout.splitlines()
            expect(code in ("exit 0", "exit 10"), f"{size} kB:", code, done.stderr[-600:])
            if code == "exit 10":
                stopped.append(done.stderr)
            same([json.loads(line) for line in lines], whole, f"{size} kB")
        expect(any("no space for page" in text for text in stopped), "no page met a full disk:", stopped)


if __name__ == "__main__":
    main(a_flipped_byte_in_each_page, pages_of_another_model, a_disk_that_fills)

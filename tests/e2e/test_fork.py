#!/usr/bin/env python3
"""Forks at every event, of a walk of the tiny agent and of a run of the 1.5B: each must continue to the ids of the run that
was never forked, drawn with the same seed, and to the same keys and values, to the bit; evaluate nothing that its parent
evaluated; and take one page and its own tokens of disk. And the second run with the same tools."""
import itertools
import json
import os
import shutil
import struct

from harness import ROOT, TINY, Home, bodies, equal, expect, main, timeline

NEXT = str(ROOT / "tests" / "e2e" / "tools" / "next_item.json")
SAMPLER = ["--temp", "1", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.05", "--seed", "5"]
BIG = "qwen2.5-coder-1.5b"
PAGE = 64
HEAD = 4096  # of a page's file: engine/kv_page.h


def kv_bytes(home):
    """Disk that the pages of all runs and of the store take, as du counts: blocks, a file with several names once."""
    seen = {}
    for top in ("runs", "prefix"):
        for path in (home.path / top).rglob("*"):
            if path.is_file() and (top == "prefix" or path.parent.name == "kv"):
                st = path.stat()
                seen[st.st_ino] = st.st_blocks * 512
    return sum(seen.values())


def known_ids(events):
    """How many ids a prefix of a run's events holds: of segments, and of the turn that had not ended."""
    ids = in_segments = in_pages = 0
    for event in events:
        body = event["body"]
        if event["type"] == "kv":
            in_pages += len(body.get("sampled", []))
        elif event["type"] == "turn":
            ids += in_segments
            in_segments = in_pages = 0
        elif event["type"] == "segment" and body["kind"] in ("thought", "call", "answer"):
            in_segments += len(body["ids"])
        elif event["type"] == "segment":
            ids += len(body["ids"])
    return ids + max(in_segments, in_pages)


def outcome(events):
    """What a run came to, without its times and counters: ids, calls, what they returned, why it ended."""
    keys = {"segment": ("kind", "ids", "text"), "turn": ("calls", "sampled", "length"),
            "tool.result": ("index", "text", "error"), "run.end": ("reason", "answer")}
    ended = [e for e in events if e["type"] == "run.end"]  # a fork behind the end has its parent's too
    steps = [e for e in events if e["type"] in keys and e["type"] != "run.end"] + ended[-1:]
    return [(e["type"], e["span"], [e["body"].get(k) for k in keys[e["type"]]]) for e in steps]


class Parent:
    """A finished run, and what its forks are compared with."""

    def __init__(self, home, name, model):
        self.home, self.name = home, name
        self.info = json.loads(home.weft("model", "info", "-m", model, "--json", check=0).stdout)
        self.events = home.events(name)
        self.pages = {b["page"]: b["digest"] for b in bodies(self.events, "kv") if "page" in b}
        self.length = len(timeline(self.events))
        equal(sorted(self.pages), list(range(self.length // PAGE)), "pages in the trace")
        self.page_bytes = max(p.stat().st_size for p in (home.path / "runs" / name / "kv").iterdir())
        self.tail = self.last_page(name)
        self.compared = 0

    def last_page(self, run):
        """Keys and values of the positions behind the last complete page. What lies behind them in the file is free: a
        guess that did not come true may stand there."""
        n = self.length % PAGE
        if not n:
            return []
        data = (self.home.path / "runs" / run / "kv" / f"open-{self.length // PAGE}").read_bytes()
        state, valid = struct.unpack_from("<I", data, 12)[0], struct.unpack_from("<I", data, 72)[0]
        equal((state, valid), (1, n), f"{run}: last page sealed, positions")
        dim = self.info["width"] // self.info["heads"]
        heads = [HEAD + i * 4 * PAGE * dim for i in range(self.info["layers"] * self.info["kv_heads"])]
        keys = [data[h + d * 2 * PAGE:][:2 * n] for h in heads for d in range(dim)]
        return keys + [data[h + 2 * PAGE * dim:][:2 * n * dim] for h in heads]

    def fork(self, at, *options):
        """Forks at an event, lets the fork end, compares; returns its name."""
        name, home = f"fork-{at}", self.home
        before = kv_bytes(home)
        home.weft("fork", self.name, "--at", at, "--run-id", name, *options, check=0)
        grown = kv_bytes(home) - before
        stats, events = home.stats(name), home.events(name)
        equal(timeline(events), timeline(self.events), f"ids of the fork at {at}")
        for mine, theirs in itertools.zip_longest(outcome(events), outcome(self.events)):
            equal(mine, theirs, f"outcome of the fork at {at}")
        fork = events[1]["body"]
        equal((events[1]["type"], fork["run"], fork["size"]), ("fork", self.name, at), "second event")
        for mine, theirs in zip(events[2:at + 1], self.events[1:at]):
            equal((mine["type"], mine["span"], mine["body"]), (theirs["type"], theirs["span"], theirs["body"]), "shared event")
        for body in bodies(events[at + 1:], "kv"):
            if "page" in body:
                equal(body["digest"], self.pages[body["page"]], f"fork at {at}: page {body['page']}")
                self.compared += 1
        expect(self.last_page(name) == self.tail, f"fork at {at}: the last page's keys and values differ")
        equal(stats["evaluated"] + stats["shared"], stats["length"], f"fork at {at}: evaluated and shared")
        known = known_ids(self.events[:at])
        expect(stats["shared"] >= known - 1, f"fork at {at}: {stats['shared']} shared of {known} known tokens")
        own = -(-stats["evaluated"] // PAGE) * self.page_bytes
        expect(grown <= self.page_bytes + own + HEAD,  # and kv.state
               f"fork at {at}: {grown} bytes for {stats['evaluated']} own tokens")
        return name

    def refuse(self, *ats):
        """Where no fork can be: exit code 2, one line that says where one can."""
        before = sorted(p.name for p in (self.home.path / "runs").iterdir())
        for at in ats:
            done = self.home.weft("fork", self.name, "--at", at, check=2)
            expect(done.stderr.startswith("weft: ") and done.stderr.count("\n") == 1, f"--at {at}:", done.stderr)
            expect(f"give 1 to {len(self.events)}" in done.stderr, f"--at {at}:", done.stderr)
        equal(sorted(p.name for p in (self.home.path / "runs").iterdir()), before, "runs after refusals")


def every_event_of_a_walk():
    with Home() as home:
        work = home.path / "work"
        work.mkdir()
        (work / "length").write_text("20\n")
        home.weft("run", "-m", TINY, "--tools", "calculator", "--tool", NEXT, "--workdir", work, *SAMPLER, "--run-id",
                  "whole", "Walk the list. Keep a number in mind.", check=0)
        parent = Parent(home, "whole", TINY)
        equal(len(bodies(parent.events, "tool.result")), 20, "calls of the walk")
        for at in range(1, len(parent.events) + 1):
            done = sum(e["type"] == "tool.result" for e in parent.events[:at])
            mine = home.path / f"work-{at}"
            mine.mkdir()
            (mine / "length").write_text("20\n")
            if done:
                (mine / "count").write_text(f"{done}\n")
                (mine / "count").chmod(0o666)  # the tool runs as another user where the test is root
            name = parent.fork(at, "--workdir", mine)
            equal(int((mine / "count").read_text()), 20, f"fork at {at}: calls that ran")
            if at % 10:
                shutil.rmtree(home.path / "runs" / name)
        expect(parent.compared >= len(parent.events), "only", parent.compared, "pages were compared")
        parent.refuse(0, len(parent.events) + 1)


def a_fork_stands_alone():
    calc = ["-m", TINY, "--tools", "calculator"]
    with Home() as home:
        home.weft("run", *calc, "--run-id", "parent", "What is 123 +45 *3 -17?", check=0)
        (home.path / "runs/parent/work/note").write_text("kept")
        home.weft("fork", "parent", "--at", "20", "--run-id", "child", check=0)
        equal((home.path / "runs/child/work/note").read_text(), "kept", "workspace")
        shutil.rmtree(home.path / "runs/parent")
        home.weft("fork", "child", "--at", "21", "--run-id", "grandchild", check=0)
        equal(timeline(home.events("grandchild")), timeline(home.events("child")), "ids")
        done = home.weft("fork", "--last", "--at", "5", "--seed", "9", "--temp", "1.5", "--json", check=0)
        expect('"seed":"9"' in done.stdout.splitlines()[0], done.stdout[:300])
        end = len(home.events("child"))
        home.weft("fork", "child", "--at", end, "--run-id", "asked", "What is 2 +2?", check=0)
        equal(home.events("asked")[end + 1]["body"]["task"], "What is 2 +2?", "new user turn")
        home.weft("resume", "asked", "What is 3 +3?", check=0)
        for at in ("0", str(end + 1)):
            equal(home.weft("fork", "child", "--at", at).returncode, 2, f"--at {at}")
        equal(home.weft("fork", "child").returncode, 2, "no --at")
        before = sorted(p.name for p in (home.path / "runs").iterdir())
        equal(home.weft("fork", "child", "--at", "5", "--run-id", "asked").returncode, 2, "an id that is taken")
        equal(home.weft("run", *calc, "--run-id", "asked", "x").returncode, 2, "an id that is taken")
        equal(sorted(p.name for p in (home.path / "runs").iterdir()), before, "runs")


def killed_while_it_is_made():
    with Home() as home:
        home.weft("run", "-m", TINY, "--tools", "calculator", "--run-id", "parent", "What is 123 +45 *3 -17?", check=0)
        for n in (3, 9, 22, 30):
            done = home.weft("fork", "parent", "--at", "25", "--run-id", f"child-{n}", WEFT_FAULT=f"trace.append:{n}")
            equal(done.returncode, -9, done.stderr)
            done = home.weft("resume", f"child-{n}")
            if n < 26:
                equal(done.returncode, 9, done.stderr)
                expect("fork again" in done.stderr, done.stderr)
            else:
                equal(done.returncode, 0, done.stderr)
                equal(timeline(home.events(f"child-{n}")), timeline(home.events("parent")), "ids")


def every_event_of_a_run_of_the_big_model():
    """Short in tokens, since each fork decodes what lies behind it, but with calls, a repeated one, and real draws."""
    start = ["-m", BIG, "--tools", "calculator", "--temp", "0.5", "--seed", "5"]
    task = "First calculate 6*7 with the calculator, then add 8, then halve it, one call each. Reply with only the final number."
    with Home() as home:
        home.model(BIG)
        home.weft("run", "--run-id", "whole", *start, task, check=0)
        parent = Parent(home, "whole", BIG)
        expect(len(bodies(parent.events, "tool.result")) >= 2, "too few calls in the run")
        for at in range(1, len(parent.events) + 1):
            parent.fork(at)
        expect(parent.compared > 0, "no page was compared")
        parent.refuse(0, len(parent.events) + 1)


def second_run_of_the_big_model_evaluates_no_prefix():
    start = ["-m", BIG, "--tools", "calculator"]
    with Home() as home:
        home.model(BIG)
        home.weft("run", "--run-id", "first", *start, "--max-tokens", "1", "Say yes.", check=6)
        home.weft("run", "--run-id", "second", *start, "--max-tokens", "1", "Say no.", check=6)
        second, system = home.stats("second"), len(bodies(home.events("second"), "segment")[0]["ids"])
        expect(second["shared"] >= system // PAGE * PAGE, "second run shared", second["shared"], "of", system)


if __name__ == "__main__":
    if os.environ.get("WEFT_FORK_MODELS"):
        main(every_event_of_a_run_of_the_big_model, second_run_of_the_big_model_evaluates_no_prefix)
    main(every_event_of_a_walk, a_fork_stands_alone, killed_while_it_is_made)

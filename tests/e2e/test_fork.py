#!/usr/bin/env python3
"""Forks at every event: each must continue to the very ids of the run that was never forked, evaluate nothing that its
parent evaluated, and take a page and its own tokens of disk. And the second run with the same tools."""
import os
import shutil

from harness import ROOT, TINY, Home, bodies, equal, expect, main, timeline
from task_list import TASKS

NEXT = str(ROOT / "tests" / "e2e" / "tools" / "next_item.json")
SAMPLER = ["--temp", "1", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.05", "--seed", "5"]
PAGE = 64


def kv_bytes(home):
    """Bytes of all pages of all runs and of the store, each file counted once."""
    seen = {}
    for top in ("runs", "prefix"):
        for path in (home.path / top).rglob("*"):
            if path.is_file() and (top == "prefix" or path.parent.name == "kv"):
                st = path.stat()
                seen[st.st_ino] = st.st_size
    return sum(seen.values())


def compare(home, name, at, whole, page_bytes, before):
    stats = home.stats(name)
    events = home.events(name)
    equal(timeline(events), timeline(whole), f"ids of the fork at {at}")
    fork = events[1]["body"]
    equal((events[1]["type"], fork["size"]), ("fork", at), "second event")
    for mine, theirs in zip(events[2:at + 1], whole[1:at]):
        equal((mine["type"], mine["span"], mine["body"]), (theirs["type"], theirs["span"], theirs["body"]), "shared event")
    equal(stats["evaluated"] + stats["shared"], stats["length"], f"fork at {at}: evaluated and shared")
    grown = kv_bytes(home) - before
    own = (stats["evaluated"] // PAGE + 2) * page_bytes + 4096
    expect(grown <= own, f"fork at {at}: {grown} bytes for {stats['evaluated']} own tokens")
    return stats


def every_event_of_a_walk():
    with Home() as home:
        work = home.path / "work"
        work.mkdir()
        (work / "length").write_text("20\n")
        home.weft("run", "-m", TINY, "--tools", "calculator", "--tool", NEXT, "--workdir", work, *SAMPLER, "--run-id",
                  "whole", "Walk the list. Keep a number in mind.", check=0)
        whole = home.events("whole")
        equal(len(bodies(whole, "tool.result")), 20, "calls of the walk")
        page = max(p.stat().st_size for p in (home.path / "runs/whole/kv").iterdir())
        for at in range(1, len(whole) + 1):
            done = sum(e["type"] == "tool.result" for e in whole[:at])
            mine = home.path / f"work-{at}"
            mine.mkdir()
            (mine / "length").write_text("20\n")
            if done:
                (mine / "count").write_text(f"{done}\n")
                (mine / "count").chmod(0o666)  # the tool runs as another user where the test is root
            before = kv_bytes(home)
            home.weft("fork", "whole", "--at", at, "--workdir", mine, "--run-id", f"fork-{at}", check=0)
            compare(home, f"fork-{at}", at, whole, page, before)
            equal(int((mine / "count").read_text()), 20, f"fork at {at}: calls that ran")
            if at % 10:
                shutil.rmtree(home.path / "runs" / f"fork-{at}")


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
    task = TASKS["hotels"]
    with Home() as home:
        home.model("qwen2.5-coder-1.5b")
        start = ["-m", "qwen2.5-coder-1.5b", *task["options"]]
        home.weft("run", "--run-id", "whole", *start, task["task"], check=0)
        whole = home.events("whole")
        page = max(p.stat().st_size for p in (home.path / "runs/whole/kv").iterdir())
        ends = [e["seq"] for e in whole if e["type"] != "kv"]
        for at in [*ends[1:-1:max(1, len(ends) // 12)], len(whole)]:
            before = kv_bytes(home)
            home.weft("fork", "whole", "--at", at, "--run-id", f"fork-{at}", check=0)
            compare(home, f"fork-{at}", at, whole, page, before)
        home.weft("run", "--run-id", "again", *start, task["task"] + " Be brief.", check=0)
        again = home.stats("again")
        system = len(bodies(whole, "segment")[0]["ids"])
        expect(again["shared"] >= system // PAGE * PAGE, "second run shared", again["shared"], "of", system)


if __name__ == "__main__":
    if os.environ.get("WEFT_FORK_MODELS"):
        main(every_event_of_a_run_of_the_big_model)
    main(every_event_of_a_walk, a_fork_stands_alone, killed_while_it_is_made)

#!/usr/bin/env python3
"""kill -9 anywhere, then resume. The fault points of the test build end the process between any two events, between
pages and prefill chunks, before, in and after a tool; each resumed process is killed again, until one comes through.
The run must then hold the token ids of an uninterrupted one, no finished call may have run twice, and each kill may
cost at most 64 tokens and one page of evaluation."""
import itertools
import random
import shutil

from harness import ROOT, TINY, Home, bodies, equal, expect, main, timeline
from task_list import TASKS

NEXT = str(ROOT / "tests" / "e2e" / "tools" / "next_item.json")
PAGE = 64


def run_with_kills(home, run, start, faults, limit):
    """Starts, then resumes after each kill; returns how many kills there were."""
    kills = 0
    args = ["run", "--run-id", run, *start]
    for fault in faults:
        if kills == limit:
            break
        done = home.weft(*args, WEFT_FAULT=fault)
        if done.returncode == 0:
            return kills
        equal(done.returncode, -9, f"exit under {fault}: {done.stderr}")
        kills += 1
        if (home.path / "runs" / run / "trace.db").exists() and home.stats(run)["events"] > 0:
            args = ["resume", run]
        else:  # killed before the run was durable: nothing happened, begin again
            shutil.rmtree(home.path / "runs" / run, ignore_errors=True)
    home.weft(*args, check=0)
    return kills


def bound(stats, kills, what):
    most = stats["length"] + kills * (64 + PAGE)
    expect(stats["evaluated"] <= most, what, "evaluated", stats["evaluated"], "tokens, bound", most)


def thirty_kills_of_the_search_task():
    task = TASKS["hotels"]
    start = ["-m", "qwen2.5-coder-1.5b", *task["options"], task["task"]]
    # In the order in which a call passes these points, so that a kill comes soon after the one before: 30 fit into one run.
    call = ["trace.committed:2", "run.tool:1", "run.tool_done:1", "trace.committed:2", "trace.append:2", "trace.committed:2",
            "engine.chunk:1", "trace.append:2"]
    cycle = ["trace.append:2", "kv.page:1", "kv.sealed:1", *3 * call, "kv.page:1", "kv.sealed:1", "kv.page:1"]
    with Home() as home:
        home.model("qwen2.5-coder-1.5b")
        home.weft("run", "--run-id", "whole", *start, check=0)
        kills = 0
        for name in itertools.count():
            kills += run_with_kills(home, f"killed-{name}", start, itertools.cycle(cycle), 30 - kills)
            whole, killed = home.events("whole"), home.events(f"killed-{name}")
            equal(timeline(killed), timeline(whole), "token ids")
            bound(home.stats(f"killed-{name}"), 30, "search task")
            if kills >= 30:
                break
        expect(kills >= 30, "only", kills, "kills")


def one_walk(home, seed, rng, limit):
    def work(name):
        path = home.path / f"{name}-{seed}"
        path.mkdir()
        (path / "length").write_text("10\n")
        return path

    def start(path):
        return ["-m", TINY, "--tools", "calculator", "--tool", NEXT, "--workdir", path, "--temp", "1", "--min-p", "0.05", "--seed", seed,
                "Pick a number and go through the whole list."]

    points = ["trace.append", "trace.committed", "engine.chunk", "kv.page", "kv.sealed", "kv.link", "run.tool", "run.tool_done"]

    def faults():
        while True:
            yield f"{rng.choice(points)}:{rng.randrange(1, 6)}"

    whole_work, killed_work = work("whole"), work("killed")
    home.weft("run", "--run-id", f"whole-{seed}", *start(whole_work), check=0)
    kills = run_with_kills(home, f"killed-{seed}", start(killed_work), faults(), limit)
    events = home.events(f"killed-{seed}")
    results = bodies(events, "tool.result")
    unknown = sum("outcome unknown" in b["text"] for b in results)
    counter = killed_work / "count"
    count = int(counter.read_text()) if counter.exists() else 0
    finished = sum(bool(b.get("executed")) for b in results)
    expect(finished <= count <= finished + unknown, f"walk {seed}: {count} executions for {finished} finished and "
           f"{unknown} interrupted calls")
    keys = [(e["span"], e["body"]["index"]) for e in events if e["type"] == "tool.result"]
    equal(len(keys), len(set(keys)), f"walk {seed}: results per call")
    if not unknown:
        equal(timeline(events), timeline(home.events(f"whole-{seed}")), f"walk {seed} token ids")
    bound(home.stats(f"killed-{seed}"), kills, f"walk {seed}")
    return kills, unknown == 0


def two_hundred_kills_of_walks():
    rng = random.Random(7)
    kills = same = 0
    with Home() as home:
        for seed in range(100):
            if kills >= 200 and same >= 5:
                break
            more, equal_ids = one_walk(home, seed, rng, 15)
            kills += more
            same += equal_ids
    expect(kills >= 200, "only", kills, "kills")
    expect(same >= 5, "only", same, "walks without an interrupted call were compared")


if __name__ == "__main__":
    main(two_hundred_kills_of_walks, thirty_kills_of_the_search_task)

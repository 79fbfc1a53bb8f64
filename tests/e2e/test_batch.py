#!/usr/bin/env python3
"""Batches of the tiny agent: a run comes to the same token ids and pages alone, one at a time, four at a time, with
and without guessing ahead, interrupted and killed; a second command does only what is left."""
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess

from harness import ROOT, TINY, WEFT, Home, bodies, equal, expect, main, timeline

SAMPLER = ["--temp", "1", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.05"]
NEXT = str(ROOT / "tests" / "e2e" / "tools" / "next_item.json")


def chains(n, seed=3):
    rng, tasks = random.Random(seed), []
    for i in range(n):
        steps = "".join(f" {rng.choice('+-')}{rng.randrange(1, 100)}" for _ in range(rng.randrange(1, 8)))
        tasks.append({"id": f"chain-{i}", "task": f"What is {rng.randrange(1000)}{steps}?", "seed": i,
                      "tools": ["calculator"]})
    return tasks


def write(home, tasks, name="tasks.jsonl"):
    path = home.path / name
    path.write_text("".join(json.dumps(t) + "\n" for t in tasks))
    return path


def batch(home, file, *options, check=0, **env):
    done = home.weft("batch", "-m", TINY, *SAMPLER, *options, file, check=check, **env)
    return [json.loads(line) for line in done.stdout.splitlines()], done


def same(events, others, what):
    """Two runs came to the same: ids, and the digests of the pages that both evaluated (others are shared)."""
    pages, other_pages = ({b["page"]: b["digest"] for b in bodies(e, "kv") if "page" in b} for e in (events, others))
    equal(timeline(events), timeline(others), what)
    both = pages.keys() & other_pages.keys()
    expect(both, what, "has no page that both evaluated")
    for page in both:
        equal(pages[page], other_pages[page], f"{what} page {page}")


def check_counts(home, results):
    for r in results:
        stats = home.stats(r["run"])
        equal(stats["evaluated"] + stats["shared"], stats["length"], f"{r['run']} evaluated and shared")
        equal(stats["length"], r["counts"]["length"], f"{r['run']} length")


def results_do_not_depend_on_company():
    tasks = chains(24)
    with Home() as one, Home() as four:
        alone, _ = batch(one, write(one, tasks), "-j", 1, "--draft", "off")
        together, _ = batch(four, write(four, tasks), "-j", 4)
        equal(together, alone, "result lines")
        equal([r["id"] for r in alone], [t["id"] for t in tasks], "order")
        drafted = accepted = 0
        for r in alone:
            equal(r["exit"], 0, r["run"])
            same(four.events(r["run"]), one.events(r["run"]), r["run"])
            stats = four.stats(r["run"])
            drafted, accepted = drafted + stats["drafted"], accepted + stats["accepted"]
            equal(one.stats(r["run"])["drafted"], 0, "--draft off")
        check_counts(one, alone)
        check_counts(four, together)
        expect(drafted > accepted > 20, "guesses", drafted, accepted)
        for task, r in list(zip(tasks, alone))[:4]:
            one.weft("run", "-m", TINY, *SAMPLER, "--tools", "calculator", "--seed", task["seed"], "--run-id",
                     task["id"], "--draft", 7, task["task"], check=0)
            equal(timeline(one.events(task["id"])), timeline(one.events(r["run"])), task["id"])


def walks_of_four_at_once_keep_their_numbers():
    with Home() as home:
        tasks = [{"task": "Pick a number and go through the whole list.", "seed": i, "attach": str(home.path / f"{i}" / "length")}
                 for i in range(4)]
        for i in range(4):
            (home.path / f"{i}").mkdir()
            (home.path / f"{i}" / "length").write_text(f"{3 + i}\n")
        results, _ = batch(home, write(home, tasks), "--tools", "calculator", "--tool", NEXT, "-j", 4)
        for i, r in enumerate(results):
            expect(r["answer"].startswith("The number is "), r)
            equal(r["counts"]["calls"], 3 + i, r["run"])


def a_second_command_does_what_is_left():
    tasks = chains(6)
    with Home() as home:
        first, _ = batch(home, write(home, tasks[:4]))
        sizes = [home.stats(r["run"])["events"] for r in first]
        again, done = batch(home, write(home, tasks[:4]), "-j", 2)
        equal(again, first, "again")
        expect("4 of them before" in done.stderr, done.stderr)
        equal([home.stats(r["run"])["events"] for r in first], sizes, "events")
        more, _ = batch(home, write(home, [tasks[5]] + tasks[:4] + [tasks[0] | {"id": "again"}]))
        equal([r["run"] for r in more[1:5]], [r["run"] for r in first], "runs of moved lines")
        equal(len({r["run"] for r in more}), 6, "runs")
        other, _ = batch(home, write(home, tasks[:4]), "--repeat-penalty", "1.05")
        expect(not {r["run"] for r in other} & {r["run"] for r in first}, "another setting, the same runs")
        double, _ = batch(home, write(home, [{"task": "What is 1 +1?"}] * 3), "--tools", "calculator")
        equal(len({r["run"] for r in double}), 3, "equal lines")


def killed_anywhere_it_comes_to_the_same():
    tasks = chains(8)
    with Home() as whole, Home() as killed:
        wanted, _ = batch(whole, write(whole, tasks))
        kills = 0
        for fault in ["trace.append:9", "engine.chunk:30", "kv.page:2", "run.tool:2", "trace.committed:20", "run.tool_done:1",
                      "kv.sealed:4", "engine.chunk:300", "trace.append:3"]:
            done = killed.weft("batch", "-m", TINY, *SAMPLER, "-j", 3, write(killed, tasks), WEFT_FAULT=fault)
            kills += done.returncode == -9
        expect(kills >= 6, "only", kills, "kills")
        done = killed.weft("batch", "-m", TINY, *SAMPLER, "-j", 4, write(killed, tasks))
        equal([json.loads(line) for line in done.stdout.splitlines()], wanted, "after kills")
        for r in wanted:
            equal(timeline(killed.events(r["run"])), timeline(whole.events(r["run"])), r["run"])


def an_interrupt_ends_every_run_resumably():
    tasks = chains(40)
    with Home() as whole, Home() as stopped:
        wanted, _ = batch(whole, write(whole, tasks))
        file = write(stopped, tasks)
        process = subprocess.Popen([WEFT, "batch", "-m", TINY, *SAMPLER, "-j", "4", str(file)], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, env=stopped.env(), cwd=stopped.path)
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.stdout.read(), process.stderr.read()
        equal(process.wait(timeout=120), 130, errors)
        lines = [json.loads(line) for line in (first + rest).splitlines()]
        equal([r["run"] for r in lines], [r["run"] for r in wanted], "a line for each task")
        stopped_lines = [r for r in lines if r["reason"] == "interrupted"]
        expect(stopped_lines and all(r["exit"] == 130 for r in stopped_lines), lines)
        expect("interrupted" in errors, errors)
        again, _ = batch(stopped, file, "-j", 4)
        equal(again, wanted, "after the interrupt")
        for r in again:
            equal(timeline(stopped.events(r["run"])), timeline(whole.events(r["run"])), r["run"])


def what_cannot_be_is_refused_by_line_before_anything_runs():
    good = {"task": "What is 1 +1?"}
    cases = [({"task": "x", "colour": 1}, 'unknown key "colour"'), ({"id": "a"}, '"task" is missing'), ({"task": " "}, '"task"'),
             ({"task": 3}, '"task"'), ({"task": "x", "output_schema": {}}, "not supported yet"), ({"task": "x", "seed": -1}, '"seed"'),
             ({"task": "x", "seed": 1.5}, '"seed"'), ({"task": "x", "limits": {"words": 1}}, 'unknown limit "words"'),
             ({"task": "x", "limits": {"turns": "1"}}, '"turns"'), ({"task": "x", "limits": 3}, '"limits"'),
             ({"task": "x", "tools": [1]}, '"tools"'), ({"task": "x", "attach": "missing"}, "missing"), ({"task": "x", "system": 1}, '"system"'),
             (["x"], "object"), ({"task": "x", "id": "same"}, "stands on line 1 already")]
    with Home() as home:
        for bad, words in cases:
            head = good | {"id": "same"}
            done = home.weft("batch", "-m", TINY, write(home, [head, good, bad]), check=3)
            expect("line 3: " in done.stderr and words in done.stderr, bad, done.stderr)
            equal(done.stdout, "", "output")
        (home.path / "torn.jsonl").write_text('{"task": "x"}\n\n{"task": "x"')
        expect("line 3: " in home.weft("batch", "-m", TINY, "torn.jsonl", check=3).stderr)
        (home.path / "empty.jsonl").write_text("\n")
        home.weft("batch", "-m", TINY, "empty.jsonl", check=3)
        home.weft("batch", "-m", TINY, check=2)
        home.weft("batch", "-m", TINY, "-j", 0, "torn.jsonl", check=2)
        home.weft("batch", "-m", TINY, "--approve", "ask", "torn.jsonl", check=2)
        home.weft("batch", "-m", TINY, "--draft", "8", write(home, [good]), check=2)
        expect(not list((home.path / "runs").glob("[!.]*")), "something ran")


def exit_codes_say_the_worst():
    with Home() as home:
        tasks = chains(2)
        limited = tasks[0] | {"id": "limited", "limits": {"tokens": 5}}
        results, _ = batch(home, write(home, [tasks[1], limited]), check=6)
        equal([r["exit"] for r in results], [0, 6], "exits")
        equal(results[1]["limit"], "tokens", "limit")
        failing = tasks[0] | {"id": "failing", "tools": "no_such_tool"}
        results, _ = batch(home, write(home, [failing, tasks[1], limited]), check=1)
        equal([r["reason"] for r in results], ["error", "answer", "limit"], "reasons")
        expect("no_such_tool" in results[0]["message"], results[0])
        expect(not (home.path / "runs" / results[0]["run"]).exists(), "a run that never began is left")
        resumed, _ = batch(home, write(home, [tasks[0]]), "--max-tokens", 5, check=6)
        whole, _ = batch(home, write(home, [tasks[0]]), "--max-tokens", 500, check=0)
        equal(whole[0]["run"], resumed[0]["run"], "a higher limit goes on with the run")


def begin(home, file, *options):
    return subprocess.Popen([WEFT, "batch", "-m", TINY, *SAMPLER, *map(str, options), str(file)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=home.env(), cwd=home.path)


def files(home):
    return {(str(p), p.lstat().st_mtime_ns) for p in home.path.rglob("*")}


def the_same_batch_runs_once_at_a_time():
    tasks = chains(30)
    with Home() as whole, Home() as home:
        wanted, _ = batch(whole, write(whole, tasks))
        file = write(home, tasks)
        first = begin(home, file, "-j", 2)
        head = first.stdout.readline()
        first.send_signal(signal.SIGSTOP)  # so that a change would be the second's
        os.waitpid(first.pid, os.WUNTRACED)
        seen = files(home)
        second = home.weft("batch", "-m", TINY, *SAMPLER, "-j", 3, file, check=10)
        equal(files(home) ^ seen, set(), "changed")
        first.send_signal(signal.SIGCONT)
        equal((second.stdout, len(second.stderr.splitlines())), ("", 1), second.stderr)
        expect(f"running already: process {first.pid} " in second.stderr, second.stderr)
        rest, errors = first.stdout.read(), first.stderr.read()
        equal(first.wait(timeout=120), 0, errors)
        equal([json.loads(line) for line in (head + rest).splitlines()], wanted, "the first")
        equal(batch(home, file)[0], wanted, "afterwards")


def a_run_that_another_batch_is_opening_is_left_alone():
    task = chains(1)
    with Home() as home:
        file = write(home, task)
        whole, _ = batch(home, file)
        run = whole[0]["run"]
        shutil.rmtree(home.path / "runs" / run)
        (home.path / "runs" / run / "work").mkdir(parents=True)  # where the other one stands
        place = int.from_bytes(hashlib.sha256(run.encode()).digest()[:8], "big") >> 2
        with open(home.path / "runs" / ".batch.lock", "r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            results, _ = batch(home, file, check=1)
            expect(f"opening it: process {os.getpid()} has it" in results[0]["message"], results)
            equal(results[0]["reason"], "error", "reason")
            expect((home.path / "runs" / run / "work").exists(), "its directory is gone")
        equal(batch(home, file)[0], whole, "afterwards")


def batches_with_runs_in_common_do_not_harm_each_other():
    tasks = chains(24)
    with Home() as whole, Home() as home:
        wanted, _ = batch(whole, write(whole, tasks))
        both = [begin(home, write(home, t, f"{i}.jsonl"), "-j", 4) for i, t in enumerate([tasks, tasks[::-1]])]
        for process in both:
            for line in process.communicate(timeout=120)[0].splitlines():
                result = json.loads(line)
                expect(result["exit"] == 0 or "has it" in result["message"] or "in use" in result["message"], result)
        equal(batch(home, write(home, tasks))[0], wanted, "afterwards")
        for r in wanted:
            equal(timeline(home.events(r["run"])), timeline(whole.events(r["run"])), r["run"])


if __name__ == "__main__":
    main(results_do_not_depend_on_company, walks_of_four_at_once_keep_their_numbers, a_second_command_does_what_is_left,
         killed_anywhere_it_comes_to_the_same, an_interrupt_ends_every_run_resumably,
         what_cannot_be_is_refused_by_line_before_anything_runs, exit_codes_say_the_worst, the_same_batch_runs_once_at_a_time,
         a_run_that_another_batch_is_opening_is_left_alone, batches_with_runs_in_common_do_not_harm_each_other)

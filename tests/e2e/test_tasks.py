#!/usr/bin/env python3
"""Four tasks on the real 1.5B model at temperature 0: the right answer, through real calls, and not one token of
the timeline evaluated twice."""
import json
import os
import subprocess

from harness import WEFT, Home, bodies, equal, expect, main
from task_list import TASKS

MODEL = "qwen2.5-coder-1.5b"


def solve(name):
    task = TASKS[name]
    with Home() as home:
        home.model(MODEL)
        done = home.weft("run", "-m", MODEL, "--run-id", name, *task["options"], task["task"], check=0)
        answer = done.stdout.replace(",", "")
        events = home.events(name)
        made = [b for b in bodies(events, "tool.result") if b.get("executed") and not b["error"]]
        for wanted in task["answer"]:
            expect(wanted in answer, name, "wanted", wanted, "in", done.stdout)
        expect(len(made) >= task["calls"], name, "only", len(made), "calls ran")
        stats = home.stats(name)
        equal(stats["evaluated"] + stats["shared"], stats["length"], f"{name} evaluated tokens")
        equal(events[-1]["type"], "run.end", "last event")


def product_of_two_five_digit_numbers():
    solve("product")


def hotel_bill_with_tax():
    solve("bill")


def two_prices_searched_computed_compared():
    solve("hotels")


def program_written_run_and_its_output_used():
    solve("program")


def peak_memory_is_what_model_info_says():
    for model in (MODEL, "qwen2.5-coder-0.5b"):
        with Home() as home:
            home.model(model)
            needs = json.loads(home.weft("model", "info", "-m", model, "--json").stdout)["memory"]
            args = [WEFT, "run", "-m", model, "--tools", "all", "--max-tokens", "8", "--json",
                    "What is 2 + 2? " + "One, two, three, four. " * 300]
            child = subprocess.Popen(args, env=home.env(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL, cwd=home.path)
            _, status, usage = os.wait4(child.pid, 0)
            equal(os.waitstatus_to_exitcode(status), 6, "exit")
            tokens = json.loads(home.weft("trace", "stats", "--last", "--json").stdout)["length"]
            said = needs["fixed_bytes"] + tokens * needs["bytes_per_1000_tokens"] / 1000
            peak = usage.ru_maxrss * 1024
            print(f"{model}: {tokens} tokens, peak {peak / 1e6:.0f} MB, said {said / 1e6:.0f} MB")
            expect(abs(peak / said - 1) <= 0.05, model, "peak", peak, "bytes, model info said", int(said))


if __name__ == "__main__":
    main(peak_memory_is_what_model_info_says, product_of_two_five_digit_numbers, hotel_bill_with_tax, two_prices_searched_computed_compared,
         program_written_run_and_its_output_used)

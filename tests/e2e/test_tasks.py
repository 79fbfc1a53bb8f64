#!/usr/bin/env python3
"""Four tasks on the real 1.5B model at temperature 0: the right answer, through real calls, and not one token of
the timeline evaluated twice."""
from harness import Home, bodies, equal, expect, main
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
        equal(stats["evaluated"], stats["length"], f"{name} evaluated tokens")
        equal(events[-1]["type"], "run.end", "last event")


def product_of_two_five_digit_numbers():
    solve("product")


def hotel_bill_with_tax():
    solve("bill")


def two_prices_searched_computed_compared():
    solve("hotels")


def program_written_run_and_its_output_used():
    solve("program")


if __name__ == "__main__":
    main(product_of_two_five_digit_numbers, hotel_bill_with_tax, two_prices_searched_computed_compared,
         program_written_run_and_its_output_used)

#!/usr/bin/env python3
"""Whole runs of the tiny agent, a trained model that thinks, calls and must remember its thought: 30 chains of
calculator calls and 30 walks of up to 60 calls at temperature 1. The number that a walk must end with stands
only in its first thought, so a walk proves that the thought is kept."""
import random
import re

from harness import ROOT, TINY, Home, bodies, equal, expect, main, timeline

# Temperature 1 under the filters that llama.cpp's server has by default, with which the model was measured: without them
# one draw in some thousands is a token the model gives next to no weight, and a walk of 60 calls has that many draws.
SAMPLER = ["--temp", "1", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.05"]
NEXT = str(ROOT / "tests" / "e2e" / "tools" / "next_item.json")


def chain(rng, home, seed):
    n = rng.randrange(1, 9)
    value = rng.randrange(1000)
    question, first = [], value
    for _ in range(n):
        op = rng.choice("+-*")
        operand = rng.randrange(1, 10) if op == "*" else rng.randrange(1, 1000 if rng.random() < 0.2 else 100)
        question.append(f"{op}{operand}")
        value = {"+": value + operand, "-": value - operand, "*": value * operand}[op]
        if abs(value) > 10**9:
            return chain(rng, home, seed)
    text = rng.choice(["What is {}?", "Compute {}.", "Please work out {} for me.", "Calculate {} step by step."])
    run = f"chain-{seed}"
    done = home.weft("run", "-m", TINY, "--tools", "calculator", *SAMPLER, "--seed", seed, "--run-id", run,
                     text.format(f"{first} {' '.join(question)}"), check=0)
    equal(done.stdout.strip(), f"The result is {value}.", run)
    stats = home.stats(run)
    equal(stats["calls"], n, f"{run} calls")
    equal(stats["evaluated"] + stats["shared"], stats["length"], f"{run} evaluated and shared tokens")


def walk(rng, home, seed, calls):
    work = home.path / f"walk-{seed}-work"
    work.mkdir()
    (work / "length").write_text(f"{calls}\n")
    text = rng.choice(["Pick a number and go through the whole list.", "Think of a number, then walk the list.",
                       "Walk the list. Keep a number in mind."])
    run = f"walk-{seed}"
    done = home.weft("run", "-m", TINY, "--tools", "calculator", "--tool", NEXT, "--workdir", work, *SAMPLER,
                     "--seed", seed, "--run-id", run, text, check=0)
    events = home.events(run)
    thoughts = [b["text"] for b in bodies(events, "segment") if b["kind"] == "thought"]
    number = re.search(r"number (\d{6})", thoughts[0])
    expect(number, run, "no number in", thoughts[0])
    for thought in thoughts:
        expect(f"number {number[1]}" in thought, run, "forgot", number[1], "in", thought)
    equal(done.stdout.strip(), f"The number is {number[1]}.", run)
    equal(int((work / "count").read_text()), calls, f"{run} calls that ran")
    stats = home.stats(run)
    equal(stats["evaluated"] + stats["shared"], stats["length"], f"{run} evaluated and shared tokens")
    equal(len(timeline(events)), stats["length"], f"{run} timeline")


def thirty_chains_end_with_the_right_value():
    rng = random.Random(3)
    with Home() as home:
        for seed in range(30):
            chain(rng, home, seed)


def thirty_walks_keep_their_number():
    rng = random.Random(2)
    with Home() as home:
        for seed in range(30):
            walk(rng, home, seed, 1 + seed * 59 // 29)


if __name__ == "__main__":
    main(thirty_chains_end_with_the_right_value, thirty_walks_keep_their_number)

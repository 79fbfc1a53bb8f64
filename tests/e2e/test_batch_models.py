#!/usr/bin/env python3
"""Four runs of the 1.5B, one after the other without guessing, and at once with guesses: the same token ids and the same
pages, to the bit, with a tool, text to quote, and a temperature."""
import json

from harness import Home, bodies, equal, expect, main, timeline

QUOTED = "\n".join(f"def step_{i}(value):\n    return value * {i + 2} + {7 * i}\n" for i in range(4))
TASKS = [
    {"task": "Repeat this Python code exactly:\n" + QUOTED, "tools": "none"},
    {"task": "What is 48213 times 90817? Use the calculator.", "tools": ["calculator"]},
    {"task": "Write a short story about a lighthouse.", "tools": [], "seed": 4},
    {"task": "Rename step_1 to first and print the code:\n" + QUOTED, "tools": "none", "seed": 9},
]


def outcome(home, *options):
    home.model("qwen2.5-coder-1.5b")
    file = home.path / "tasks.jsonl"
    file.write_text("".join(json.dumps(t | {"limits": {"tokens": 60}}) + "\n" for t in TASKS))
    done = home.weft("batch", "-m", "qwen2.5-coder-1.5b", "--temp", "0.4", "--top-p", "0.9", *options, file)
    expect(done.returncode in (0, 6), done.returncode, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def four_at_once_with_guesses_are_four_alone():
    with Home() as one, Home() as four:
        alone, together = outcome(one, "-j", 1, "--draft", "off"), outcome(four, "-j", 4)
        equal(together, alone, "results")
        for run in (r["run"] for r in alone):
            a, b = one.events(run), four.events(run)
            equal(timeline(b), timeline(a), run + " ids")
            # a turn that the limit cut stands in kv events alone
            cut = [[i for e in bodies(x, "kv") for i in e.get("sampled", [])] for x in (a, b)]
            equal(cut[1], cut[0], run + " unfinished turn")
            pages = [{e["page"]: e["digest"] for e in bodies(x, "kv") if "page" in e} for x in (a, b)]
            for page in pages[0].keys() & pages[1].keys():  # a page that another run had is taken over
                equal(pages[1][page], pages[0][page], f"{run} page {page}")


if __name__ == "__main__":
    main(four_at_once_with_guesses_are_four_alone)

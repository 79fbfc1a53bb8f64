#!/usr/bin/env python3
"""A run of 1,000 calls in DSML with thinking on: a checkpoint of DeepSeek-V3.2's architecture whose every turn thinks
and calls. Every thought stays where it was written and nothing is evaluated twice; a new question drops the thoughts,
keeps the pages before the first of them, and says so."""
import json

from harness import DATA, Home, bodies, equal, expect, main, timeline
import dsml_model

CALLS = 1000
USER, THINK, END_THINK = 472, 474, 475  # of the tiny vocabulary
NOTE_SH = f"""n=$(cat count 2>/dev/null || echo 0)
[ "$n" -ge {CALLS} ] && {{ echo full >&2; exit 1; }}
echo $((n + 1)) >count
"""
NOTE = {"name": "note", "description": "Keeps a letter.",
        "parameters": {"type": "object", "properties": {"s": {"type": "string"}}, "additionalProperties": False},
        "command": ["/bin/sh", "note.sh"],
        "sandbox": {"seconds": 10, "memory_mb": 64, "processes": 8, "output_kb": 4}}


def without_thoughts(ids):
    """The rule, written once more: behind the first user token, what stands from <think> to </think> goes."""
    out, at = [], ids.index(USER)
    out += ids[:at]
    while at < len(ids):
        if ids[at] == THINK:
            at = ids.index(END_THINK, at)
        out.append(ids[at])
        at += 1
    return out


def a_thousand_calls_keep_every_thought():
    with Home() as home:
        model, work = home.path / "caller.gguf", home.path / "work"
        dsml_model.build(DATA / "dsv32" / "tiny-f16.gguf", model)
        work.mkdir()
        (work / "note.sh").write_text(NOTE_SH)
        (home.path / "note.json").write_text(json.dumps(NOTE))
        home.weft("run", "-m", model, "--tools", "none", "--tool", "note.json", "--workdir", work, "--temp", 1, "--seed", 3,
                  "--think", "on", "--max-turns", 0, "--max-tool-calls", 0, "--max-tokens", 0, "--max-seconds", 0,
                  "--max-repeats", 0, "--run-id", "long", "Keep letters.", check=0)
        events, stats = home.events("long"), home.stats("long")
        equal(bodies(events, "run.begin")[0]["dialect"], "dsv32", "dialect")
        equal(int((work / "count").read_text()), CALLS, "calls that ran")
        expect(stats["calls"] >= CALLS, "calls", stats["calls"])
        ids = timeline(events)
        equal(len(ids), stats["length"], "timeline")
        equal(stats["evaluated"] + stats["shared"], stats["length"], "tokens evaluated")
        good = [c for b in bodies(events, "turn") for c in b["calls"]]
        expect(all(c["name"] == "note" and c["arguments"] in ('{}', '{"s":"x"}') for c in good), "a call is not right")
        asked = ids.index(USER)
        equal(ids[asked:].count(THINK), stats["turns"], "thoughts that were opened")
        equal(ids[asked:].count(END_THINK), stats["turns"], "thoughts that were closed")

        # a new question
        done = home.weft("resume", "long", "And more?", check=0)
        later, more = home.events("long"), home.stats("long")
        compact = bodies(later, "compact")
        equal(len(compact), 1, "compact events")
        want = without_thoughts(ids)
        kept = ids.index(THINK, asked)
        equal(compact[0]["kept"], kept, "ids kept")
        equal(ids[:kept] + compact[0]["ids"], want, "ids without their thoughts")
        equal(compact[0]["dropped"], len(ids) - len(want), "ids dropped")
        behind = timeline(later)[len(ids):]
        equal(len(want) + len(behind), more["length"], "timeline after the question")
        again = more["evaluated"] + more["shared"] - stats["evaluated"] - stats["shared"]
        expect(0 <= again - (more["length"] - kept) < 64, "evaluated again:", again, "of", more["length"], "kept", kept)
        expect("earlier thoughts are dropped" in done.stderr, "nothing said of it:", done.stderr[-300:])
        thoughts = behind.count(THINK)
        expect(thoughts >= 1, "the new question is not thought about")


if __name__ == "__main__":
    main(a_thousand_calls_keep_every_thought)

#!/usr/bin/env python3
"""kill -9 where a new question drops earlier thoughts: before and after the `compact` event, while the timeline is
opened anew over the shorter ids, while these are read again, and in the turn behind them. Each process that goes on is
killed once more at the same point; the run must then hold the ids of one that was never killed, have dropped its
thoughts once, and have taken over the pages before the first of them instead of evaluating these again."""
import json
import shutil

from harness import DATA, Home, bodies, equal, expect, main, timeline
import dsml_model

PAGE = 64
QUESTION = "And more?"
NOTE = {"name": "note", "description": "Keeps a letter.",
        "parameters": {"type": "object", "properties": {"s": {"type": "string"}}, "additionalProperties": False},
        "command": ["/bin/sh", "-c", "echo kept"], "idempotent": True,
        "sandbox": {"seconds": 10, "memory_mb": 64, "processes": 8, "output_kb": 4}}
# How many passes of each point end a process, one a case. trace.append: before the question, before `compact`, before and
# behind the question's ids; trace.committed: behind each of these; the others: while the timeline's ids are read again.
POINTS = {"trace.append": 4, "trace.committed": 3, "engine.chunk": 3, "kv.page": 3, "kv.sealed": 3, "kv.link": 1}
KILLS = 2  # of each case, at the same point


def digests(events):
    return {b["page"]: b["digest"] for b in bodies(events, "kv") if "page" in b}


class Parent:
    """A finished run with thoughts; each case starts from it."""

    def __init__(self, home):
        self.home, self.saved = home, home.path / "saved"
        model, work = home.path / "caller.gguf", home.path / "work"
        dsml_model.build(DATA / "dsv32" / "tiny-f16.gguf", model)
        work.mkdir()
        (home.path / "note.json").write_text(json.dumps(NOTE))
        home.weft("run", "-m", model, "--tools", "none", "--tool", "note.json", "--workdir", work, "--temp", 1, "--seed", 2,
                  "--think", "on", "--run-id", "long", "Keep letters.", check=0)
        for folder in ("runs", "prefix"):
            shutil.copytree(home.path / folder, self.saved / folder)
        home.weft("resume", "long", QUESTION, check=0)
        self.whole, self.stats = home.events("long"), home.stats("long")
        self.compact = bodies(self.whole, "compact")[0]
        self.first_page = self.compact["kept"] // PAGE
        expect(self.first_page > 0 and len(self.compact["ids"]) > 4 * PAGE, "the run is too short to show anything")

    def restore(self):
        """The run as it was before the question, and the store of shared pages, where the next case would find those of
        the one before."""
        for folder in ("runs", "prefix"):
            shutil.rmtree(self.home.path / folder)
            shutil.copytree(self.saved / folder, self.home.path / folder)


def kill(parent, fault):
    """Goes on with the run under a fault, KILLS times, then without; the last event that each kill left in the log."""
    home, args, left = parent.home, ["resume", "long", QUESTION], []
    for _ in range(KILLS):
        done = home.weft(*args, WEFT_FAULT=fault)
        equal(done.returncode, -9, f"exit under {fault}: {done.stderr}")
        events = home.events("long")
        left.append(events[-1]["type"])
        if bodies(events, "resume"):  # the question is in the log and need not be asked again
            args = ["resume", "long"]
    home.weft(*args, check=0)
    return left


def check_pages(parent, events, what):
    """Each process that found the thoughts dropped took over the pages that were finished over these ids, and every page
    holds the same bits as in the run that was not killed."""
    at = next(i for i, e in enumerate(events) if e["type"] == "compact")
    known = parent.first_page
    for event in events[at:]:
        body = event["body"]
        if event["type"] == "kv" and "page" in body:
            known = max(known, body["page"] + 1)
        elif event["type"] == "resume":
            expect(body["restored"] >= known * PAGE, what, "took over", body["restored"], "tokens of", known, "pages")
    want = digests(parent.whole)
    for page, digest in digests(events[at:]).items():
        equal(digest, want[page], f"{what}: page {page}")


def check(parent, what):
    events, stats = parent.home.events("long"), parent.home.stats("long")
    equal(len(bodies(events, "compact")), 1, f"{what}: thoughts dropped")
    got = bodies(events, "compact")[0]
    for key in ("policy", "kept", "dropped", "ids"):
        equal(got[key], parent.compact[key], f"{what}: {key} of the compact event")
    equal(timeline(events), timeline(parent.whole), f"{what}: token ids")
    equal(bodies(events, "run.end")[-1]["answer"], bodies(parent.whole, "run.end")[-1]["answer"], f"{what}: answer")
    equal(stats["length"], parent.stats["length"], f"{what}: length")
    check_pages(parent, events, what)
    most = parent.stats["evaluated"] + KILLS * (64 + PAGE)
    expect(stats["evaluated"] <= most, what, "evaluated", stats["evaluated"], "tokens, bound", most)


def kills_where_thoughts_are_dropped():
    left = set()
    with Home() as home:
        parent = Parent(home)
        for point, passes in POINTS.items():
            for n in range(1, passes + 1):
                parent.restore()
                left.update(kill(parent, f"{point}:{n}"))
                check(parent, f"killed at {point}:{n}")
    expect({"run.end", "resume", "compact", "segment", "kv"} <= left, "kills left only", sorted(left), "as the last event")


if __name__ == "__main__":
    main(kills_where_thoughts_are_dropped)

#!/usr/bin/env python3
"""The command line as scripts rely on it: exit codes, streams, settings, limits and resume, JSON lines, the verbs over
engine, tools and sandbox. All on the tiny agent, so the whole file takes seconds."""
import itertools
import json
import os
import signal
import subprocess
import time

from harness import ROOT, TINY, WEFT, Home, bodies, equal, expect, main, timeline

CHAIN = "What is 123 +45 *3 -17?"
CHAIN_ANSWER = "The result is 487."
NEXT = str(ROOT / "tests" / "e2e" / "tools" / "next_item.json")
CALC = ["-m", TINY, "--tools", "calculator"]


def one_line(done, code, *words):
    equal(done.returncode, code, done.stderr)
    lines = done.stderr.splitlines()
    equal(len(lines), 1, f"error lines in {done.stderr!r}")
    expect(lines[0].startswith("weft: "), lines)
    for word in words:
        expect(word in lines[0], repr(word), "missing in", lines[0])
    equal(done.stdout, "", "standard output of a failure")


def wrong_use_is_exit_2_with_the_nearest_word():
    with Home() as home:
        one_line(home.weft("rnu"), 2, 'did you mean "run"')
        one_line(home.weft("trace", "lst"), 2, 'did you mean "trace list"')
        one_line(home.weft("run", "--modle", "x", "y"), 2, "--model")
        one_line(home.weft("run", "--model"), 2, "value is missing")
        one_line(home.weft("run", "--seed", "x", "y"), 2, "whole number")
        one_line(home.weft("run", "--think", "maybe", "y"), 2, "auto|on|off")
        one_line(home.weft("run", "a", "b"), 2, "quotes")
        one_line(home.weft("run", *CALC, stdin="  \n"), 2, "empty")
        one_line(home.weft("run", "-m", TINY, "--tools", "nonsense", "x"), 2, "nonsense")
        one_line(home.weft("model", "bench", "-m", TINY, "--engine", "gpu"), 2, "choose auto, cpu, cuda")
        one_line(home.weft("model", "bench", "-m", TINY, "--engine", "cuda", WEFT_TEST_CUDA_DRIVER="/nowhere/libcuda.so.1"), 4,
                 "cpu needs no GPU): no NVIDIA driver")
        one_line(home.weft("model", "bench", "-m", TINY, "--memory", "9M"), 6, "are too little")
        one_line(home.weft("run", "--run-id", "Up/..", *CALC, "x"), 2, "a-z")
        one_line(home.weft("resume"), 2, "name a run")
        one_line(home.weft("tokenize", "-m", TINY, "--special", "--foreign", "x"), 2, "not both")


def bad_input_is_exit_3_and_a_bad_model_4():
    with Home() as home:
        one_line(home.weft("run", *CALC, "-f", "/nonexistent"), 3, "/nonexistent")
        one_line(home.weft("run", "-m", "no-such-model", "x"), 3, "model pull")
        bad = home.path / "bad.gguf"
        bad.write_bytes(b"GGUF" + b"\xff" * 100)
        one_line(home.weft("run", "-m", bad, "x"), 4)
        bad.write_bytes(open(TINY, "rb").read()[:500000])
        one_line(home.weft("run", "-m", bad, "x"), 4)
        one_line(home.weft("run", *CALC, "-", stdin="a\0b"), 3, "NUL")
        (home.path / "weft.toml").write_text("thread = 2\n")
        one_line(home.weft("config"), 3, "line 1", "thread")
        equal(list((home.path / "runs").glob("*")) if (home.path / "runs").exists() else [], [], "runs left behind")


def the_answer_alone_is_on_standard_output():
    with Home() as home:
        done = home.weft("run", *CALC, "-o", "answer.txt", CHAIN, check=0)
        equal((done.stdout, done.stderr), (CHAIN_ANSWER + "\n", ""), "streams")
        equal((home.path / "answer.txt").read_text(), CHAIN_ANSWER, "-o")
        equal(home.weft("run", *CALC, "-", stdin=CHAIN, check=0).stdout, CHAIN_ANSWER + "\n", "task on standard input")
        (home.path / "task").write_text(CHAIN)
        equal(home.weft("run", *CALC, "-f", "task", check=0).stdout, CHAIN_ANSWER + "\n", "-f")


def settings_come_from_flag_environment_files_default():
    with Home() as home:
        def value(*args, **env):
            out = home.weft("config", "--json", *args, check=0, **env).stdout
            return {v["name"]: (v["value"], v["origin"]) for v in map(json.loads, out.splitlines())}

        equal(value()["seed"], ("0", "default"), "seed")
        (home.path / "config" / "weft").mkdir(parents=True)
        (home.path / "config" / "weft" / "weft.toml").write_text('seed = 3 # three\ntemp = 0.5\nmodel = "m"\n')
        equal(value()["seed"], ("3", "user weft.toml"), "seed")
        (home.path / "weft.toml").write_text("seed = 4\nquiet = true\n")
        equal(value()["seed"], ("4", "./weft.toml"), "seed")
        equal(value()["temp"], ("0.5", "user weft.toml"), "temp")
        equal(value()["quiet"], ("true", "./weft.toml"), "quiet")
        equal(value(WEFT_SEED="5")["seed"], ("5", "environment"), "seed")
        for text in ("[table]\n", "seed = \n", "seed 4\n", 'seed = "x"\n', "seed = 1 2\n", 'model = "a\n', "model = [1]\n"):
            (home.path / "weft.toml").write_text(text)
            one_line(home.weft("config"), 3, "line 1")


def json_lines_follow_the_schema():
    with Home() as home:
        done = home.weft("run", *CALC, "--json", "--run-id", "lines", CHAIN, check=0)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        equal(lines[-1]["type"], "run.end", "last line")
        equal(lines[-1]["body"]["answer"], CHAIN_ANSWER, "answer")
        expect(not any(line.get("transient") for line in lines), "deltas without --deltas")
        shown = home.weft("trace", "show", "lines", "--json", check=0).stdout
        equal([json.loads(x) for x in shown.splitlines()], lines, "trace show and run --json")
        deltas = home.weft("run", *CALC, "--json", "--deltas", CHAIN, check=0).stdout
        text = "".join(d["text"] for d in map(json.loads, deltas.splitlines()) if d.get("transient"))
        expect(CHAIN_ANSWER in text, "the answer is not in the deltas:", text)
        validator = os.environ.get("WEFT_VALIDATE")
        if validator:
            checked = subprocess.run([validator, str(ROOT / "schemas" / "event.schema.json")], input=shown + deltas,
                                     capture_output=True, text=True)
            equal(checked.returncode, 0, checked.stderr)


def each_limit_ends_with_6_and_the_run_goes_on():
    cases = {"turns": ["--max-turns", "2"], "tool_calls": ["--max-tool-calls", "1"], "tokens": ["--max-tokens", "40"],
             "context": ["--ctx", "200"]}
    with Home() as home:
        home.weft("run", *CALC, "--run-id", "whole", CHAIN, check=0)
        whole = timeline(home.events("whole"))
        for name, option in cases.items():
            run = name.replace("_", "-")
            done = home.weft("run", *CALC, "--run-id", run, *option, CHAIN, check=6)
            expect("weft resume" in done.stderr and done.stdout == "", name, done.stderr)
            end = home.events(run)[-1]["body"]
            equal((end["reason"], end["limit"]), ("limit", name), "run.end")
            equal(home.stats(run)["length"], end["counts"]["length"], f"{name}: length, with the turn that was cut")
            if name == "context":
                continue
            home.weft("resume", run, option[0], "0", check=0)
            equal(timeline(home.events(run)), whole, f"{name}: ids after resume")
            stats = home.stats(run)
            equal(stats["evaluated"] + stats["shared"], stats["length"], f"{name}: evaluated tokens")


def a_signal_ends_the_run_resumably():
    with Home() as home:
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            work = home.path / f"work-{code}"
            work.mkdir()
            (work / "length").write_text("60\n")
            run = f"stopped-{code}"
            args = ["-m", TINY, "--tools", "calculator", "--tool", NEXT, "--temp", "1", "--min-p", "0.05", "--seed", "5"]
            task = "Walk the list. Keep a number in mind."
            started = subprocess.Popen([WEFT, "run", *args, "--workdir", str(work), "--run-id", run, task], env=home.env(),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2000):
                if (work / "count").exists():
                    break
                time.sleep(0.005)
            started.send_signal(number)
            out, err = started.communicate(timeout=60)
            equal(started.returncode, code, err)
            equal(out, "", "standard output")
            equal(home.events(run)[-1]["body"]["reason"], "interrupted", "run.end")
            done = home.weft("resume", run, check=0)
            expect("The number is" in done.stdout or "interrupted" in json.dumps(home.events(run)), done.stdout)


def a_new_user_turn_goes_on_from_the_old_timeline():
    with Home() as home:
        home.weft("run", *CALC, "--run-id", "two", CHAIN, check=0)
        before = timeline(home.events("two"))
        done = home.weft("resume", "two", "What is 5 +6?", check=0)
        expect(done.stdout.startswith("The result is "), "second answer", done.stdout)
        events = home.events("two")
        users = [b["text"] for b in bodies(events, "segment") if b["kind"] == "user"]
        expect(len(users) == 2 and "What is 5 +6?" in users[1], "user turns", users)
        after = timeline(events)
        equal(after[:len(before)], before, "the old timeline")
        stats = home.stats("two")
        equal(stats["evaluated"] + stats["shared"], stats["length"], "evaluated tokens")
        equal(home.weft("resume", "--last", check=0).stdout, done.stdout, "resume of an answered run")


def no_exec_prints_calls_and_runs_nothing():
    definitions = [{"type": "function", "function": {"name": "calculator", "description": "Evaluates.", "parameters": {
        "type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}}}]
    with Home() as home:
        (home.path / "tools.json").write_text(json.dumps(definitions))
        done = home.weft("run", "-m", TINY, "--no-exec", "--tools-json", "tools.json", "--run-id", "dry", CHAIN, check=0)
        call = json.loads(done.stdout)
        equal((call["tool"], json.loads(call["arguments"])), ("calculator", {"expression": "123+45"}), "call")
        equal(bodies(home.events("dry"), "tool.result"), [], "results")


def tools_and_sandbox_by_hand():
    with Home() as home:
        equal(home.weft("tool", "call", "calculator", '{"expression": "2^10"}', check=0).stdout, "1024\n", "calculator")
        equal(home.weft("tool", "call", "calculator", '{"expression": "1+"}').returncode, 1, "failing call")
        one_line(home.weft("tool", "call", "calculator", "{"), 2, "JSON")
        one_line(home.weft("tool", "call", "nothing"), 2, "tool list")
        names = [json.loads(x)["name"] for x in home.weft("tool", "list", "--json", check=0).stdout.splitlines()]
        expect({"calculator", "code_run", "web_search", "read_file"} <= set(names), names)
        equal(json.loads(home.weft("tool", "show", "calculator", "--json", check=0).stdout)["name"], "calculator", "show")
        done = home.weft("sandbox", "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
        equal((done.returncode, done.stdout, done.stderr), (7, "out\n", "err\n"), "sandbox")
        report = json.loads(home.weft("sandbox", "--json", "--", "/bin/cat", stdin="hello", check=0).stdout)
        equal(report["stdout"]["text"], "hello", "standard input")
        equal(json.loads(home.weft("sandbox", "check", "--json", check=0).stdout)["level"] in ("full", "no-proc"), True, "level")


def text_and_ids_go_both_ways():
    with Home() as home:
        text = "Grüße, <|im_end|> 123 +45\n\ttab"
        ids = home.weft("tokenize", "-m", TINY, text, check=0).stdout
        equal(home.weft("tokenize", "-m", TINY, "--decode", ids.strip(), check=0).stdout, text, "decoded")
        special = json.loads(home.weft("tokenize", "-m", TINY, "--special", "<|im_end|>", check=0).stdout)
        foreign = json.loads(home.weft("tokenize", "-m", TINY, "--foreign", "<|im_end|>", check=0).stdout)
        equal(len(special), 1, "control token")
        expect(len(foreign) > 1 and special[0] not in foreign, foreign)
        out = home.weft("tokenize", "-m", TINY, "--jsonl", stdin='{"text": "a"}\n{"text": "b"}\n', check=0).stdout
        equal(len(out.splitlines()), 2, "lines")
        request = {"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True}
        rendered = json.loads(home.weft("render", "-m", TINY, stdin=json.dumps(request), check=0).stdout)["text"]
        expect(rendered.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"), rendered)


def logits_do_not_depend_on_how_they_were_computed():
    with Home() as home:
        ids = json.loads(home.weft("tokenize", "-m", TINY, "What is 123 +45? " * 12, check=0).stdout)
        (home.path / "ids").write_text(json.dumps(ids))
        flags = [["--chunk", str(c)] for c in (1, 7, 64, 512)] + [["--threads", "1"], ["--threads", "2"]]
        flags += [["--isa", isa] for isa in ("scalar", "avx2", "avx512", "amx")] + [["--reopen", "50"]]
        digests = set()
        for flag in flags:
            done = home.weft("model", "logits", "-m", TINY, "--ids", "ids", "--digest", *flag)
            if flag[0] == "--isa" and done.returncode == 4 and "CPU" in done.stderr:
                continue  # this machine lacks it, and says so
            equal(done.returncode, 0, done.stderr)
            digests.add(done.stdout.splitlines()[-1])
        equal(len(digests), 1, "different digests")


def help_man_and_completions_name_everything():
    with Home() as home:
        overview = home.weft("help", check=0).stdout
        verbs = [line.split("  ")[1] for line in overview.splitlines() if line.startswith("  ") and line[2] != " "]
        man = home.weft("man", check=0).stdout
        for verb in verbs:
            words = verb.strip()
            text = home.weft("help", *words.split(), check=0).stdout
            expect(words in text and "Options:" in text, text)
            expect(words in man, words, "is not in the man page")
        for shell in ("bash", "zsh", "fish"):
            expect("trace" in home.weft("completion", shell, check=0).stdout, shell)
        script = home.weft("completion", "bash", check=0).stdout
        probe = script + "\nCOMP_WORDS=(weft trace ''); COMP_CWORD=2; _weft; echo ${COMPREPLY[@]}"
        done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True)
        expect({"list", "show", "stats"} <= set(done.stdout.split()), done.stdout)


def doctor_and_model_info_describe():
    with Home() as home:
        findings = json.loads(home.weft("doctor", "-m", TINY, "--json", check=0).stdout)
        expect({"sandbox", "cpu", "storage", "model"} <= {f["what"] for f in findings}, findings)
        cpu = next(f["finding"] for f in findings if f["what"] == "cpu")
        bench = json.loads(home.weft("model", "bench", "-m", TINY, "-p", 8, "-n", 2, "--json", check=0).stdout)
        equal(cpu.split("kernels: ")[1].split(":")[0], bench["backend"], "kernels that a model gets")
        info = json.loads(home.weft("model", "info", "-m", TINY, "--json", check=0).stdout)
        equal((info["architecture"], info["layers"], info["vocabulary"]), ("qwen2", 4, 1024), "model info")
        equal(info["sha256"][:16], "4c47cfdb5f33619b", "digest")


def a_trace_in_use_is_refused():
    with Home() as home:
        work = home.path / "work"
        work.mkdir()
        (work / "length").write_text("60\n")
        started = subprocess.Popen([WEFT, "run", "-m", TINY, "--tools", "calculator", "--tool", NEXT, "--workdir", str(work), "--temp", "1", "--min-p", "0.05",
                                    "--run-id", "busy", "Walk the list. Keep a number in mind."], env=home.env(),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in itertools.repeat(None, 2000):
            if (work / "count").exists():
                break
            time.sleep(0.005)
        done = home.weft("resume", "busy")
        started.kill()
        started.wait()
        one_line(done, 10, "in use")


def bench_says_where_the_time_goes():
    with Home() as home:
        line = json.loads(home.weft("model", "bench", "-m", TINY, "-p", 8, "-n", 4, "--ops", "--json", check=0).stdout)
        ops = {op["name"]: op for op in line["ops"]}
        equal(set(ops), {"embedding", "norms", "q, k, v", "rope", "KV write", "attention", "attention out", "gate, up", "down", "residual",
                         "output"}, "operations of a qwen2")
        equal((ops["attention"]["calls_per_token"], ops["output"]["calls_per_token"]), (4, 1), "calls a token")
        spent = sum(op["ns_per_token"] for op in line["ops"]) + line["outside_ns_per_token"]
        expect(abs(spent * line["decode_tokens_per_second"] - 1e9) < 1e6, "times add up to", spent, line)
        info = json.loads(home.weft("model", "info", "-m", TINY, "--json", check=0).stdout)
        expect(0.8 < sum(op["bytes_per_token"] for op in line["ops"]) / info["memory"]["weight_bytes"] < 1.05, "bytes read", line, info)
        sparse = ROOT / "tests/data/dsv32/tiny-f16.gguf"
        line = json.loads(home.weft("model", "bench", "-m", sparse, "-p", 40, "-n", 4, "--ops", "--json", check=0).stdout)
        ops = {op["name"]: op["calls_per_token"] for op in line["ops"]}
        equal((ops["heads, latent"], ops["attention"], ops["KV write"]), (6, 3, 3), "calls a token of a deepseek32")
        expect(ops["choice of keys"] > 3 and "outside_ns_per_token" in line, line)
        table = home.weft("model", "bench", "-m", TINY, "-p", 8, "-n", 4, "--ops", check=0).stdout
        expect("gate, up" in table and "outside" in table, table)


if __name__ == "__main__":
    main(wrong_use_is_exit_2_with_the_nearest_word, bad_input_is_exit_3_and_a_bad_model_4,
         the_answer_alone_is_on_standard_output, settings_come_from_flag_environment_files_default,
         json_lines_follow_the_schema, each_limit_ends_with_6_and_the_run_goes_on, a_signal_ends_the_run_resumably,
         a_new_user_turn_goes_on_from_the_old_timeline, no_exec_prints_calls_and_runs_nothing, tools_and_sandbox_by_hand,
         text_and_ids_go_both_ways, logits_do_not_depend_on_how_they_were_computed, help_man_and_completions_name_everything,
         doctor_and_model_info_describe, bench_says_where_the_time_goes, a_trace_in_use_is_refused)

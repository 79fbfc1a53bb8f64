"""What the end-to-end tests share: running the built program with a home of its own, reading its events,
and reporting each case as the C tests do, so that one counter serves both."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
WEFT = os.environ.get("WEFT_BINARY") or str(ROOT / "build-check" / "weft")
TINY = str(DATA / "agent" / "tiny-agent-f16.gguf")
REAL_HOME = pathlib.Path(os.environ.get("WEFT_MODELS_HOME")
                         or os.environ.get("WEFT_HOME")
                         or (pathlib.Path(os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share") / "weft"))


class Failure(AssertionError):
    pass


def expect(condition, *what):
    if not condition:
        raise Failure(" ".join(str(w) for w in what))


def equal(got, wanted, what=""):
    if got != wanted:
        raise Failure(f"{what}: got {got!r}, wanted {wanted!r}")


class Home:
    """A WEFT_HOME in a temporary directory; the real models are linked into it on demand."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="weft-e2e-"))
        (self.path / "models").mkdir()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def model(self, name):
        source = REAL_HOME / "models" / f"{name}.gguf"
        if not source.exists():
            raise Failure(f"the model {name} is missing: weft model pull {name}")
        for path in source.parent.glob(f"{name}.gguf*"):
            link = self.path / "models" / path.name
            if not link.exists():
                link.symlink_to(path)
        self._take_digest(source)
        return str(source)

    def _take_digest(self, source):
        """What is known of the file's SHA-256, where this home looks for it (agent/models_digest.c): else each home would
        hash a gigabyte first. The program believes it only for the file's size and time."""
        real = source.resolve()
        known = real.with_name(real.name + ".json")
        if known.exists():
            mine = self.path / "models" / "digests" / (hashlib.sha256(os.fsencode(real)).hexdigest()[:32] + ".json")
            mine.parent.mkdir(exist_ok=True)
            shutil.copyfile(known, mine)

    def env(self, **extra):
        env = {k: v for k, v in os.environ.items() if not k.startswith("WEFT_")}
        env.update(WEFT_HOME=str(self.path), XDG_CONFIG_HOME=str(self.path / "config"), **extra)
        return env

    def weft(self, *args, stdin=None, timeout=600, check=None, cwd=None, **env):
        """Runs the program; check: the exit code that must come (None: any)."""
        done = subprocess.run([WEFT, *map(str, args)], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, cwd=cwd or self.path, env=self.env(**env))
        if check is not None and done.returncode != check:
            raise Failure(f"weft {' '.join(map(str, args))}: exit {done.returncode}, wanted {check}: "
                          f"{done.stdout[-600:]} {done.stderr[-600:]}")
        return done

    def events(self, run):
        done = self.weft("trace", "show", run, "--json", check=0)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def stats(self, run):
        return json.loads(self.weft("trace", "stats", run, "--json", check=0).stdout)


def bodies(events, kind):
    return [e["body"] for e in events if e["type"] == kind]


def timeline(events):
    ids = []
    for body in bodies(events, "segment"):
        ids += body["ids"]
    return ids


def main(*cases):
    failed = 0
    wanted = sys.argv[1:]
    for case in cases:
        if wanted and case.__name__ not in wanted:
            continue
        print(f"[ RUN      ] {case.__name__}", flush=True)
        try:
            case()
        except Exception:  # a broken case must not hide the others
            traceback.print_exc(file=sys.stdout)
            print(f"[  FAILED  ] {case.__name__}", flush=True)
            failed += 1
        else:
            print(f"[       OK ] {case.__name__}", flush=True)
    sys.exit(1 if failed else 0)

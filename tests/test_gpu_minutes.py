"""benchmarks.gpu_minutes: a part that fails or hangs costs the others nothing, and what was measured stays."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import gpu_minutes, page
from benchmarks.exact import COMPARED, LAST, differences
from benchmarks.gpu_minutes import PARTS, Outcome, Part, environment, run, run_parts, summary
from benchmarks.page import table
from benchmarks.results_folder import VARIABLE
from fmvae.data.sources import DEFAULT_ROOT, FILES
from tests.cli.finished import ROOT

DATA = pytest.mark.skipif(not all((DEFAULT_ROOT / name).exists() for name in FILES), reason="needs `make data`")
WRITES = """
import os, pathlib, sys
pathlib.Path(os.environ['FMVAE_BENCHMARKS'], sys.argv[1] + '.json').write_text('{}')
print('measured', sys.argv[1])
"""
# its child would go on writing if only the part's own process were ended; neither ends when asked
HANGS = """
import os, pathlib, signal, subprocess, sys, time
child = '''
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    pathlib.Path(sys.argv[1]).write_text(str(time.time()))
    time.sleep(0.01)
'''
signal.signal(signal.SIGTERM, signal.SIG_IGN)
alive = pathlib.Path(os.environ['FMVAE_BENCHMARKS'], 'alive')
subprocess.Popen([sys.executable, '-c', child, alive])
while not alive.exists():
    time.sleep(0.01)
print('hanging in group', os.getpgid(0), flush=True)
time.sleep(600)
"""


def part(name: str, code: str, seconds: float = 100) -> Part:
    return Part(name, seconds, ("-c", code, name))


GOOD, FAILS = part("good", WRITES), part("fails", "print('first'); raise SystemExit('no such unit')")


@pytest.fixture(autouse=True)
def little_grace(monkeypatch):
    monkeypatch.setattr(gpu_minutes, "GRACE", 0.2)


def still_writing(file: Path) -> bool:
    before, end = file.read_bytes(), time.monotonic() + 1
    while file.read_bytes() == before:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def group_in(log: Path) -> int:
    """The process group of ``HANGS``, from its output."""
    return int(log.read_bytes().split()[-1])


def written(results: Path) -> dict[str, str]:
    return {name: of["state"] for name, of in json.loads((results / "gpu_minutes.json").read_text()).items()}


def test_one_that_fails_and_one_that_hangs_are_noted_and_the_next_begins(tmp_path, capsys):
    hangs = part("hangs", HANGS, 2)
    start = time.monotonic()
    outcomes = run_parts([GOOD, FAILS, hangs, part("last", WRITES, 6)], 0.3, tmp_path)
    assert time.monotonic() - start < 18
    assert [outcome.state.split(" ")[0].rstrip(",") for outcome in outcomes.values()] == [
        *("done", "failed", "ended", "done")
    ]
    assert outcomes["fails"][::2] == ("failed, status 1", "no such unit")
    assert outcomes["hangs"].last_line.startswith("hanging in group ")
    assert (tmp_path / "good.json").exists()
    assert (tmp_path / "last.json").exists()
    assert (tmp_path / "fails.log").read_text().splitlines() == ["first", "no such unit"]
    assert not still_writing(tmp_path / "alive"), "a process that the part started is alive"
    assert written(tmp_path) == {name: outcome.state for name, outcome in outcomes.items()}
    assert "no such unit" in capsys.readouterr().out, "logs may not come back from another machine"
    assert "failed, status 1: no such unit" in summary(outcomes)


@pytest.mark.slow
def test_negative_control_ending_the_process_alone_leaves_its_child(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_minutes, "signal_group", os.kill)
    log = tmp_path / "hangs.log"
    try:
        run(part("hangs", HANGS), 3, log, environment(tmp_path, tmp_path))
        assert still_writing(tmp_path / "alive")
    finally:
        os.killpg(group_in(log), signal.SIGKILL)


def test_what_a_part_leaves_over_goes_to_those_after_it(tmp_path, monkeypatch):
    limits = []

    def begun(part: Part, seconds: float, *_: object) -> Outcome:
        limits.append(round(seconds))
        return Outcome("done", 0, "")

    monkeypatch.setattr(gpu_minutes, "run", begun)
    parts = [part(name, "", seconds) for name, seconds in (("a", 100), ("b", 300), ("c", 190))]
    run_parts(parts, 10, tmp_path)
    assert limits == [100, round(590 * 300 / 490), 590], "the reserve is not shared out"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_cut_off_what_was_measured_is_there(number, tmp_path):
    code = """
from tests.test_gpu_minutes import GOOD, HANGS, part
from benchmarks import gpu_minutes
gpu_minutes.GRACE = 0.2
gpu_minutes.PARTS = (GOOD, part("hangs", HANGS))
gpu_minutes.main()
"""
    process = subprocess.Popen([sys.executable, "-c", code, "--results", tmp_path], cwd=ROOT)
    log = tmp_path / "hangs.log"
    try:
        while not (log.exists() and log.read_text() and (tmp_path / "alive").exists()):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(30) == (143 if number == signal.SIGTERM else -number)
        assert written(tmp_path) == {"good": "done", "hangs": "cut off"}
        assert (tmp_path / "good.json").exists()
        # after SIGKILL nobody can end the part
        assert still_writing(tmp_path / "alive") == (number == signal.SIGKILL)
    finally:
        process.kill()
        with suppress(ProcessLookupError):
            os.killpg(group_in(log), signal.SIGKILL)


def test_without_a_writable_home_caches_go_elsewhere_and_packages_of_the_home_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "results"))
    (tmp_path / "results").mkdir()
    assert environment(tmp_path, tmp_path)["HOME"] == str(tmp_path / "results")
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = environment(tmp_path / "results", tmp_path)
    assert found["HOME"] == str(tmp_path)
    assert found["PYTHONUSERBASE"] != str(tmp_path)
    assert found[VARIABLE] == str(tmp_path / "results")


def test_the_shares_fit_into_ten_minutes_and_the_parts_are_there():
    assert sum(part.seconds for part in PARTS) + gpu_minutes.RESERVE <= 600
    tests, *others = PARTS
    assert any(argument.endswith("test_cuda_graph.py") for argument in tests.command)
    for part in others:
        assert (ROOT / f"{part.command[1].replace('.', '/')}.py").exists()
        assert part.tiny[:2] == ("--device", "cpu")


def test_runs_that_differ_in_a_byte_or_lack_a_file_are_not_equal(tmp_path):
    runs = [tmp_path / name for name in ("a", "b")]
    for run_ in runs:
        (run_ / "checkpoints").mkdir(parents=True)
        for name in COMPARED:
            (run_ / name).write_bytes(b"abc")
    assert differences(*runs) == "equal"
    (runs[0] / LAST).write_bytes(b"abd")
    assert differences(*runs) == f"DIFFERENT: {LAST}"
    for run_ in runs:
        (run_ / LAST).unlink()
    assert differences(*runs) == f"DIFFERENT: {LAST}", "two runs without a checkpoint are no evidence"


def test_the_page_shows_memory_and_checks_where_there_are_some():
    where = {"versions": {"torch": "2"}, "git": {"commit": None}, "processor": "GPU"}
    case = {"times": {"fp32": [1.0]}, "ratios": {}}
    assert table("gpu", {"cases": {"base": case}, "provenance": where}).endswith(
        "| case | fp32, s |\n| --- | ---: |\n| base | 1 |\n"
    )
    full = case | {"peaks": {"fp32": 3 * 2**20, "launched": 0}, "checks": {"twice": "equal"}}
    shown = table("gpu", {"cases": {"base": full, "conv": case}, "provenance": where})
    assert "| case | fp32, s | fp32, MiB on the GPU | twice |\n| --- | ---: | ---: | ---: |\n" in shown
    assert "| base | 1 | 3 | equal |\n| conv | 1 |  |  |\n" in shown


def test_tables_too_wide_are_one_for_each_kind_and_cases_with_nothing_in_common_share_none():
    sides = {f"side {i}": [float(i)] for i in range(12)}
    wide = {"times": sides, "ratios": {"side 1 / side 2": 0.5}}
    narrow = {"times": {"other": [3.0]}, "ratios": {}}
    groups = page.alike({"a": wide, "b": {"times": {"side 1": [7.0]}, "ratios": {}}, "c": narrow})
    assert [list(group) for group in groups] == [["a", "b"], ["c"]]
    first, rest, quotients = page.tables(groups[0]).split("\n\n")
    assert first.splitlines()[0].count("|") == page.MAX_COLUMNS + 1
    assert "| b |  | 7 |" in first
    assert rest.splitlines()[0] == "| case | side 8, s | side 9, s | side 10, s | side 11, s |"
    assert quotients.splitlines()[2:] == ["| a | **0.50** |", "| b |  |"]
    assert page.tables(groups[1]) == "| case | other, s |\n| --- | ---: |\n| c | 3 |\n"


def test_the_page_keeps_a_part_for_each_type_of_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    where = {"versions": {"torch": "2"}, "git": {"commit": None}, "processor": "CPU"}
    shown = ""
    for machine, seconds in (("AVX2", 1.0), ("AVX-512", 2.0), ("AVX2", 3.0)):
        cases = {"base": {"times": {"ours": [seconds]}, "ratios": {}}}
        result = {"machine": machine, "provenance": where, "cases": cases}
        (tmp_path / "training.json").write_text(json.dumps(result))
        shown = "\n".join(page.sections("# A page\n\n" + shown))
    assert shown.count("## Training, an epoch") == 1
    assert [shown.count(f"### {machine}\n") for machine in ("AVX2", "AVX-512")] == [1, 1]
    assert [shown.count(f"| base | {seconds} |") for seconds in (1, 2, 3)] == [0, 1, 1]


@DATA
@pytest.mark.real_data
@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_minutes", "--device", "cpu", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(written(tmp_path).values()) == {"done"}
    checks = json.loads((tmp_path / "exact.json").read_text())["cases"].popitem()[1]["checks"]
    assert checks == {"twice": "equal", "boundary": "equal", "within": "equal"}
    for name in ("exact", "gpu", "stacked", "features", "study"):
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert "| case | " in table(name, found)
        assert all(times for case in found["cases"].values() for times in case["times"].values())


def recorded(source: str) -> set[str]:
    """The names under which a benchmark records what it measured."""
    return set(re.findall(r'\brecord\(\s*f?"(\w+)', source))


def test_every_benchmark_has_a_part_on_the_page():
    names = set().union(
        *(recorded(path.read_text(encoding="utf-8")) for path in (ROOT / "benchmarks").glob("*.py"))
    )
    assert len(names) > 15
    assert not names - page.TITLES.keys()
    assert recorded('record("a", x)\n    record(\n        f"b{suffix}", y)') == {"a", "b"}

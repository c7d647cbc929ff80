"""The report of a sweep that is not over: it tells runs that have not begun from those that are being trained."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from fmvae.common.text import short
from fmvae.report.collect import collect
from fmvae.report.conclusion import Conclusion, conclude
from fmvae.report.settings import settings_of
from fmvae.report.starts import started, unfinished
from fmvae.report.sweep import write_report
from fmvae.runs.directory import RunDirectory
from fmvae.sweeps.directory import Plan, SweepDirectory
from tests.report.fakes import write_run


def plan(folder: Path, **runs: Mapping[str, str]) -> None:
    """Plan runs by name, with their overrides."""
    plans = {
        name.replace("_", "-"): Plan(tuple(f"{key}={value}" for key, value in overrides.items()), "", "", 30, "")
        for name, overrides in runs.items()
    }
    SweepDirectory(folder).add(plans)


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Two complete runs, one that was interrupted, and two that are planned; the plan of a complete run stays."""
    folder = tmp_path / "study"
    complete = [write_run(folder, beta=beta) for beta in (0.5, 1.0)]
    write_run(folder, beta=4.0, state="interrupted")
    name = complete[0].name.replace("-", "_")
    plan(
        folder,
        **{
            name: {"beta": "0.5"},
            "base_b8_z2_00000008": {"beta": "8", "seed": "0"},
            "base_b9_z2_00000009": {"beta": "9"},
        },
    )
    return folder


def concluded(folder: Path) -> Conclusion:
    runs = collect([folder])
    return conclude(runs, settings_of(runs), started, short(folder), unfinished)


def finishing(folder: Path) -> dict[str, str]:
    return {one.purpose: one.line for one in concluded(folder).commands if one.purpose.startswith("finish")}


def test_runs_that_have_not_begun_are_counted_and_listed_with_their_overrides(sweep):
    states = {run.name: (run.state, run.reason) for run in collect([sweep])}
    assert states["base-b8-z2-00000008"] == ("new", "not begun yet: beta=8 seed=0")
    assert sorted(state for state, _ in states.values()) == ["complete", "complete", "interrupted", "new", "new"]
    assert "2 runs not begun yet" in concluded(sweep).warnings[0]
    page = write_report([sweep]).read_text(encoding="utf-8")
    assert "5 runs: 2 complete, 1 interrupted, 2 new." in page
    assert "not begun yet: beta=9" in page
    assert "base-b9-z2-00000009/" not in page  # there is no such directory to link to
    # the control: without the plan nobody knows of them
    SweepDirectory(sweep).manifest.unlink()
    assert len(collect([sweep])) == 3


def test_they_get_the_command_that_trains_them_alone(sweep):
    (purpose, line), *_ = [one for one in finishing(sweep).items() if "b8" in one[0]]
    assert purpose == "finish base-b8-z2-00000008"
    assert shlex.split(line) == ["python", "train.py", "-m", "beta=8", "seed=0", "sweep_name=study"]


def test_what_is_left_of_a_grid_is_finished_by_one_command(tmp_path):
    folder, values = tmp_path / "grid", [(beta, seed) for beta in (0.5, 1.0, 4.0) for seed in (0, 1)]
    done = write_run(folder, beta=0.5, seed=0)
    partial = write_run(folder, beta=0.5, seed=1, state="interrupted")
    names = [done.name, partial.name, *(f"base-b{i}-z2-s0-{i:08x}" for i in range(4))]
    jobs = {n: {"beta.value": f"{b:g}", "seed": str(s)} for n, (b, s) in zip(names, values, strict=True)}
    plan(folder, **{name.replace("-", "_"): job for name, job in jobs.items()})
    ((purpose, line),) = finishing(folder).items()
    assert purpose == "finish grid (5 runs left)"
    assert shlex.split(line) == ["python", "train.py", "-m", "beta=0.5,1,4", "seed=0,1", "sweep_name=grid"]
    # the controls: jobs that are no whole grid get commands of their own, and so do other values and keys
    for other in ({"beta.value": "4", "seed": "7"}, {"beta.value": "4"}, {"beta.value": "[1,2]", "seed": "0"}):
        plan(folder, base_b77_z2_s0_00000077=other)
        assert "finish grid (6 runs left)" not in finishing(folder)
        SweepDirectory(folder).manifest.unlink()
        plan(folder, **{name.replace("-", "_"): job for name, job in jobs.items()})
    assert "finish grid (5 runs left)" in finishing(folder)
    # nor is there one that would train again what diverged, or was damaged
    results = partial / "results.json"
    for told in ({"state": "failed", "error": "recon is nan"}, {"state": "complete"}):
        (partial / "status.json").write_text(json.dumps(told))
        results.write_text("{")
        assert not [purpose for purpose in finishing(folder) if "left" in purpose or partial.name in purpose]
        assert len(finishing(folder)) == 3


def test_a_run_that_is_being_trained_is_not_to_be_finished_nor_what_follows_it(sweep):
    path = write_run(sweep, beta=7.0, state="running")
    with RunDirectory(path).held():
        assert not [purpose for purpose in finishing(sweep) if path.name in purpose or "b8" in purpose]
        assert any("1 run still running" in warning for warning in concluded(sweep).warnings)
    # the control: nobody trains it any more
    assert [purpose for purpose in finishing(sweep) if "b8" in purpose]
    assert not any("still running" in warning for warning in concluded(sweep).warnings)


def test_a_run_of_another_machines_folder_has_begun(tmp_path, sweep):
    other = write_run(tmp_path / "elsewhere", beta=16.0)
    plan(sweep, **{other.name.replace("-", "_"): {"beta": "16"}})
    found = {run.name: run.state for run in collect([sweep, tmp_path / "elsewhere"])}
    assert found[other.name] == "complete"
    assert {run.name: run.state for run in collect([sweep])}[other.name] == "new"

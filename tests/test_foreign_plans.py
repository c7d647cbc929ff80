"""A sweep.json of someone else, with a valid digest: plans that are none are left out, and nothing else is."""

import json
import logging
from typing import Any

import pytest

from fmvae.config import compose
from fmvae.config.identity import LONGEST_NAME, is_name
from fmvae.report.collect import collect
from fmvae.runs.files import read_record, write_record
from fmvae.sweeps.directory import Plan, SweepDirectory, known_paces
from fmvae.sweeps.status import status
from tests.report.fakes import write_run

GOOD, PLAN = Plan.of(compose(["seed=0"]), ["seed=0"], "here")
OTHER, OTHER_PLAN = Plan.of(compose(["seed=1"]), ["seed=1"], "here")
ID = "-0123abcd"
NAMES = {
    "NUL": f"a\0{ID}",
    "newline": f"a\n{ID}",
    "newline at the end": f"a{ID}\n",
    "escape": f"a\x1b[2J{ID}",
    "half a character": f"a\ud800{ID}",
    "too long": "a" * 300 + ID,
    "too long for its lock": "a" * (LONGEST_NAME + 1 - len(ID)) + ID,
    "parent": "..",
    "outside": "../evil",
    "outside with an id": f"../evil{ID}",
    "inside another": f"evil/a{ID}",
    "absolute": "/evil",
    "absolute with an id": f"/evil{ID}",
    "empty": "",
    "the sweep itself": ".",
    "moved aside": f"a.old-1{ID}",
    "without an id": "report",
}
FIELDS: dict[str, dict[str, Any]] = {
    "overrides of numbers": {"overrides": [1, None]},
    "overrides as a text": {"overrides": "seed=0"},
    "overrides as an object": {"overrides": {"seed=0": 1}},
    "no overrides": {"overrides": None},
    "epochs as a text": {"epochs": "3"},
    "epochs as a truth": {"epochs": True},
    "half an epoch": {"epochs": 3.5},
    "negative epochs": {"epochs": -1},
    "too many epochs": {"epochs": 2**31},
    "a pace as a list": {"pace": []},
    "no pace": {"pace": None},
    "a digest as an object": {"config_sha256": {}},
    "composed by a number": {"composed_by": 3},
    "another field": {"more": 1},
}
PLANS: dict[str, Any] = {"a text": "seed=0", "a list": [], "nothing": None, "empty": {}}


def record(plan: Plan) -> dict[str, Any]:
    return json.loads(json.dumps(plan.__dict__))


BAD = {
    **{f"name: {why}": (name, record(PLAN)) for why, name in NAMES.items()},
    **{f"field: {why}": (f"bad{ID}", record(PLAN) | change) for why, change in FIELDS.items()},
    **{f"plan: {why}": (f"bad{ID}", plan) for why, plan in PLANS.items()},
}


@pytest.fixture
def sweep(tmp_path) -> SweepDirectory:
    """A sweep with a planned run, beside a folder that no plan of it may lead to."""
    write_run(tmp_path / "evil")
    (tmp_path / "study").mkdir()
    return SweepDirectory(tmp_path / "study")


@pytest.mark.parametrize("why", BAD)
def test_what_is_no_plan_is_left_out_and_the_others_stay(why, sweep, caplog):
    name, plan = BAD[why]
    write_record(sweep.manifest, {"runs": {name: plan, GOOD: record(PLAN)}})
    read_record(sweep.manifest)  # its digest is valid
    write_run(sweep.path, seed=3)
    assert sweep.planned() == {GOOD: PLAN}
    told = status(sweep.path)
    assert "1 new, 1 complete" in told
    assert GOOD in told
    assert [run.name for run in collect([sweep.path]) if run.state == "new"] == [GOOD]
    assert known_paces(sweep.path.parent) == {}
    (warning,) = [
        entry for entry in caplog.records if entry.levelno == logging.WARNING
    ]  # once, however often read
    assert "1 of 2 plans left out" in warning.getMessage()
    assert warning.getMessage().isprintable()
    sweep.add({GOOD: PLAN})  # the command that the warning asks for
    assert read_record(sweep.manifest)["runs"] == {GOOD: record(PLAN)}
    sweep.add({OTHER: OTHER_PLAN})
    assert sweep.planned() == {GOOD: PLAN, OTHER: OTHER_PLAN}


def test_negative_control_good_plans_all_stay_without_a_word(sweep, caplog):
    write_record(sweep.manifest, {"runs": {GOOD: record(PLAN), OTHER: record(OTHER_PLAN)}})
    before = sweep.manifest.read_bytes()
    assert sweep.planned() == {GOOD: PLAN, OTHER: OTHER_PLAN}
    assert "2 new" in status(sweep.path)
    write_run(sweep.path, seed=3)
    assert {run.name for run in collect([sweep.path]) if run.state == "new"} == {GOOD, OTHER}
    sweep.add({GOOD: PLAN})
    assert sweep.manifest.read_bytes() == before
    assert not caplog.records


@pytest.mark.parametrize("runs", [None, [], "a", 3, {}])
def test_a_record_without_plans_plans_nothing(runs, sweep):
    write_record(sweep.manifest, {"runs": runs})
    assert sweep.planned() == {}
    sweep.add({GOOD: PLAN})
    assert sweep.planned() == {GOOD: PLAN}


def test_negative_control_unchecked_a_plan_shows_a_run_outside_of_the_sweep(sweep, tmp_path, monkeypatch):
    """What the check of names is for: another folder's run would be told to be one of this sweep."""
    (other,) = (tmp_path / "evil").glob("*/config.yaml")
    write_record(sweep.manifest, {"runs": {f"../evil/{other.parent.name}": record(PLAN), GOOD: record(PLAN)}})
    (other.parent / "status.json").write_text('{"state": "failed", "error": "seen"}')
    assert "seen" not in status(sweep.path)
    monkeypatch.setattr("fmvae.sweeps.directory.is_name", lambda text: True)
    assert "seen" in status(sweep.path)


@pytest.mark.parametrize(
    "overrides", [[], ["model=conv", "loss=beta_tcvae", "prior=vamp"], ["latent_dim=10", "beta=0.5"]]
)
def test_the_names_that_configs_give_are_names(overrides):
    assert is_name(Plan.of(compose(overrides), overrides, "")[0])
    assert is_name("a" * (LONGEST_NAME - len(ID)) + ID)

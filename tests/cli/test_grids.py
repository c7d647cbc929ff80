"""A sweep's grids, as a user types or writes them."""

import json

import pytest

from tests.cli.process import Study, refused, succeeded
from tests.faults.warmed import warmed

LINE = "# @package _global_\n"
GRIDS = [{"loss": "elbo", "beta": "1,4"}, {"loss": "dip_vae", "loss.off_diagonal": "1,10"}]


@pytest.fixture
def train(untrained: Study, tmp_path):
    """Train by an experiment with these grids."""

    def run(grids, *arguments: str, mode: str = "MULTIRUN", params: str = "{seed: '0,1'}"):
        path = tmp_path / "conf" / "experiment" / "mine.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"{LINE}sweep_name: mine\nhydra:\n  mode: {mode}\n  sweeper:\n    params: {params}\n"
            f"    grids: {json.dumps(grids)}\n"
        )
        own = [f"--config-dir={path.parents[1]}", "experiment=mine", f"output_root={tmp_path / 'outputs'}"]
        settings = [s for s in untrained.settings if not s.startswith("output_root")]
        return warmed().call("train.py", *settings, *own, *arguments)

    return run


def runs(stdout: str) -> list[str]:
    return [line.split()[0].rpartition("-")[0] for line in stdout.splitlines() if line.startswith("  base-")]


def test_a_file_with_grids_and_what_the_command_line_changes(train, tmp_path):
    ran = runs(succeeded(train(GRIDS, "dry_run=true")))
    assert ran[:4] == [f"base-{b}-z2-s{s}" for s in (0, 1) for b in ("b1", "b4")]
    assert ran[4:] == [f"base-dip1-b1-z2-s{s}" for s in (0, 0, 1, 1)]
    said = succeeded(train(GRIDS, "dry_run=true", "beta=2", "seed=0", "hydra/launcher=joblib"))
    assert sorted(runs(said)) == ["base-b2-z2-s0", "base-dip1-b2-z2-s0", "base-dip1-b2-z2-s0"]
    said = succeeded(train(GRIDS, "dry_run=true", "loss=dip_vae", "loss.off_diagonal=3", "seed=0"))
    assert runs(said) == ["base-dip1-b1-z2-s0"]
    assert not (tmp_path / "outputs").exists()


REFUSED = {
    "an unknown key": ([{"loss.gama": "1,2"}], ["loss.gama", "no such key"]),
    "an unknown option": ([{"loss": "elbow"}], ["loss: there is no option 'elbow'", "elbo"]),
    "a wrong value": ([{"beta": "-1,2"}], ["beta.value: -1"]),
    "a list": ([{"seed": [1, 2]}], ["seed is [1, 2]", "'1,2'"]),
    "a nested mapping": ([{"loss": {"off_diagonal": "1"}}], ["loss is"]),
    "an empty list": ([], ["[]"]),
    "no list": ({"loss": "elbo"}, ["no list"]),
    "no mapping": (["loss=elbo"], ["'loss=elbo' is no mapping"]),
}


@pytest.mark.parametrize(("grids", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.one_in(3)
def test_wrong_grids_are_refused_in_one_line_that_names_them(train, tmp_path, grids, words):
    refused(train(grids), "hydra.sweeper.grids: ", *words)
    assert not (tmp_path / "outputs").exists()


def test_wrong_params_are_refused_as_well(train):
    refused(train(GRIDS, params="[seed]"), "hydra.sweeper.params: ", "no mapping")


def test_grids_of_a_single_run_are_refused(train):
    refused(train(GRIDS, mode="RUN", params="null"), "hydra.sweeper.grids: ", "a single run", "add -m")


def test_a_search_with_grids_is_refused(train):
    pytest.importorskip("optuna")
    refused(train(GRIDS, "hydra/sweeper=optuna"), "hydra.sweeper.grids: ", "a search has no grids")


def test_grids_can_be_typed_and_share_the_folder_of_the_sweep(untrained, tmp_path):
    typed = 'hydra.sweeper.grids=[{loss:elbo,beta.value:"1,4"},{loss:dip_vae}]'
    said = succeeded(untrained.train("-m", typed, "sweep_name=typed", "dry_run=true", f"output_root={tmp_path}"))
    assert sorted(runs(said)) == ["base-b1-z2-s0", "base-b4-z2-s0", "base-dip1-b1-z2-s0"]

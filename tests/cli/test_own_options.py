"""Options of one's own by ``--config-dir``: like ours in runs, sweeps, help and hints."""

from pathlib import Path

import pytest
import yaml

from tests.cli.process import ROOT, Finished, refused, succeeded
from tests.faults.warmed import warmed

MINE = {
    "model": "{_target_: fmvae.models.BaseVAE, _name_: mine, latent_dim: '${latent_dim.value}', hidden_dim: 4}",
    "beta": "{_target_: fmvae.objectives.Constant, value: 3}",
    "latent_dim": "{value: 5}",
    "likelihood": "{_target_: fmvae.objectives.Gaussian, sigma: 0.5}",
    "loss": "{_target_: fmvae.objectives.ELBO}",
    "prior": "{_target_: fmvae.models.StandardPrior}",
    "optimizer": "{_target_: torch.optim.RMSprop, lr: 0.001, alpha: 0.9}",
    "scheduler": "{_target_: torch.optim.lr_scheduler.LinearLR, start_factor: 0.5}",
    "trainer": "defaults: [default]\nvalidate_every: 2",
    "data": "defaults: [fashion_mnist]\nbatch_size: 50",
    "figures": "defaults: [none]\ngif: true",
    "evaluation": "defaults: [fast]\nlatent: true",
    "tracker": "_target_: fmvae.trackers.MLflow\nuri: null\nexperiment: mine",
    "experiment": "# @package _global_\nseed: 11\n",
    "sweep": "# @package _global_\nsweep_name: mine\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2'}}}\n",
}
# of each, a key and its value as the option has it
CHOSEN = {
    "model": ("model.hidden_dim", 4),
    "beta": ("beta.value", 3),
    "latent_dim": ("latent_dim.value", 5),
    "likelihood": ("likelihood.sigma", 0.5),
    "loss": ("loss._target_", "fmvae.objectives.ELBO"),
    "prior": ("prior._target_", "fmvae.models.StandardPrior"),
    "optimizer": ("optimizer.alpha", 0.9),
    "scheduler": ("scheduler.start_factor", 0.5),
    "trainer": ("trainer.validate_every", 2),
    "data": ("data.batch_size", 50),
    "figures": ("figures.gif", True),
    "evaluation": ("evaluation.latent", True),
    "tracker": ("tracker.experiment", "mine"),
    "experiment": ("seed", 11),
    "sweep": ("sweep_name", "mine"),
}
OPTIONS = {group: sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")) for group in CHOSEN}
OPTIONS["sweep"] = sorted(path.stem for path in (ROOT / "sweeps" / "sweep").glob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Of configs, with an option ``mine`` of each group."""
    folder = tmp_path_factory.mktemp("own") / "conf"
    for group, text in MINE.items():
        (folder / group).mkdir(parents=True)
        (folder / group / "mine.yaml").write_text(text)
    return folder


def given(folder: Path, program: str, *arguments: str) -> Finished:
    return warmed().call(program, *arguments, "--config-dir", str(folder), cwd=folder.parent)


def test_there_is_one_of_each_group():
    groups = {path.parent.name for path in (ROOT / "conf").glob("*/*.yaml")} | {"sweep"}
    assert groups == CHOSEN.keys() == MINE.keys(), "a new group needs an option here"


@pytest.mark.parametrize("group", CHOSEN)
@pytest.mark.one_in(3)
def test_an_option_is_chosen(group, folder):
    node = yaml.safe_load(succeeded(given(folder, "train.py", f"{group}=mine", "--cfg", "job")))
    path, value = CHOSEN[group]
    for key in path.split("."):
        node = node[key]
    assert node == value


@pytest.mark.parametrize("group", CHOSEN)
@pytest.mark.one_in(3)
def test_a_misspelt_option_is_answered_with_ones_own(group, folder):
    done = given(folder, "train.py", f"{group}=mne")
    line = refused(done, f"{group}: there is no option 'mne'; did you mean mine?")
    assert f"choose from {', '.join(sorted([*OPTIONS[group], 'mine']))}" in line


def test_the_same_of_evaluate(folder):
    arguments = ["run=x", "evaluation=mine", "figures=mine", "--cfg", "job"]
    config = yaml.safe_load(succeeded(given(folder, "evaluate.py", *arguments)))
    assert (config["evaluation"]["latent"], config["figures"]["gif"]) == (True, True)
    refused(given(folder, "evaluate.py", "run=x", "evaluation=mne"), "did you mean mine?", "fast, full, mine")


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
def test_help_lists_ones_own(program, folder):
    listed = succeeded(given(folder, program, "--help"))
    assert "evaluation: fast, full, mine\n" in listed
    assert "figures: all, default, mine, none\n" in listed


@pytest.mark.slow
def test_options_that_have_a_key_are_ones_own_too(folder):
    refused(
        given(folder, "train.py", "optimizer.alpha=0.8"), "optimizer.alpha", "choose optimizer=mine to give it"
    )
    key = given(folder, "train.py", "optimizer=mine", "optimizer.momentum=0.9")
    refused(key, "optimizer=mine has no such key", "choose optimizer=sgd", "optimizer holds lr, alpha")
    refused(
        given(folder, "train.py", "beta=mine,1", "-m"), "beta: there is no option 'mine,1'; did you mean mine?"
    )


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (["-m", "model=mine,base"], ["mine-b1-z2-s0", "base-b1-z2-s0"]),
        (["-m", "beta=mine,constant", "scheduler=mine"], ["base-b3-z2-s0", "base-b1-z2-s0"]),
        (["-m", "optimizer=mine,adam", "latent_dim=mine"], ["base-b1-z5-s0", "base-b1-z5-s0"]),
        (["-m", "optimizer=mine", "optimizer.alpha=0.8,0.7"], ["base-b1-z2-s0"] * 2),
        (["-m", "experiment=mine,baseline"], ["base-b1-z2-s11", "base-b1-z2-s0"]),
        (["sweep=mine"], ["base-b1-z2-s1", "base-b1-z2-s2"]),
        (["sweep=mine", "model=mine"], ["mine-b1-z2-s1", "mine-b1-z2-s2"]),
    ],
    ids=lambda value: " ".join(value),
)
@pytest.mark.one_in(3)
def test_sweeps_over_ones_own(arguments, runs, folder):
    said = succeeded(given(folder, "train.py", *arguments, "dry_run=true", "output_root=out"))
    found = [line.split()[0] for line in said.splitlines() if " new " in line]
    assert [name.rpartition("-")[0] for name in found] == runs
    assert len(set(found)) == len(runs)


@pytest.mark.slow
def test_a_sweeps_override_that_only_ones_own_option_has(folder):
    """Put off to the runs, of which that option's has the key and the other's has not."""
    asked = ["-m", "optimizer=mine,adam", "optimizer.alpha=0.8", "dry_run=true", "output_root=out"]
    refused(given(folder, "train.py", *asked), "optimizer.alpha", "choose optimizer=mine to give it")
    alone = [argument.replace("mine,adam", "mine,mine") for argument in asked]
    assert "1 run" in succeeded(given(folder, "train.py", *alone))


def test_negative_control_without_the_folder_there_are_none(folder):
    line = refused(warmed().call("train.py", "model=mine", cwd=folder.parent), "model: there is no option 'mine'")
    assert f"choose from {', '.join(OPTIONS['model'])}" in line

"""Every run keeps the name it has: people's outputs, and docs/results/, are found by it."""

import pytest

from fmvae.cli.arguments import name_sweep
from fmvae.config import identity
from fmvae.config.identity import RunIdentity
from fmvae.config.project import PROJECT_ROOT
from fmvae.config.stored import read_config
from tests.golden.names import commands, golden, name_of

COMMANDS = sorted(golden())
KEPT = sorted(path.parent for path in (PROJECT_ROOT / "docs" / "results").glob("*/config.yaml"))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.one_in(8)
def test_a_command_names_the_run_that_it_named(command):
    assert name_of(tuple(command.split())) == golden()[command]


def test_every_command_that_the_project_has_is_among_them():
    assert {" ".join(command) for command in commands()} <= set(COMMANDS)


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
@pytest.mark.one_in(5)
def test_a_kept_run_is_named_by_its_config(folder):
    assert RunIdentity.of(read_config(folder / "config.yaml")).name == folder.name


def test_there_are_kept_runs():
    assert len(KEPT) >= 59


@pytest.mark.parametrize("command", ["", "experiment=conv_z10", "sweep=quick beta.value=4 latent_dim.value=10"])
def test_a_key_that_leaves_a_trace_is_noticed(command, monkeypatch):
    """As if a new key at its default, or a changed default, came into names."""
    monkeypatch.setattr(identity, "NEWER", {})
    assert name_of(tuple(command.split())) != golden()[command]


def test_a_kept_run_whose_config_is_edited_is_noticed(tmp_path):
    config = (KEPT[0] / "config.yaml").read_text(encoding="utf-8")
    (tmp_path / "config.yaml").write_text(config.replace("seed: 0", "seed: 7"), encoding="utf-8")
    assert RunIdentity.of(read_config(tmp_path / "config.yaml")).name != KEPT[0].name


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("beta.value=0.5,1,4 latent_dim.value=2,10", "beta-latent_dim-b091b209"),
        ("seed=range(4) model=conv", "seed-abdc5cae"),
        ("model=base,conv beta=warmup beta.value=range(1,5)", "beta-model-08dffa65"),
        ("experiment=baseline,low_beta seed=0,1,2", "experiment-seed-4053b63c"),
    ],
)
def test_a_sweep_finds_the_folder_that_it_had(arguments, name):
    assert name_sweep(["-m", *arguments.split()])[-1] == f"sweep_name={name}"

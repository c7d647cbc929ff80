"""The commands of the conclusion work as they are pasted: they compose, to the runs that they promise."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from fmvae.config import compose
from fmvae.config.composing import sweep_jobs
from fmvae.config.identity import RunIdentity, semantic
from fmvae.config.project import SWEEPS
from fmvae.report.collect import Run
from fmvae.report.continuing import Start, again, measure_again, more_epochs, more_seeds
from fmvae.report.settings import Setting
from fmvae.runs.directory import RunDirectory
from tests.cli.process import succeeded
from tests.faults.warmed import warmed

NAMED = sorted(path.stem for path in (SWEEPS / "sweep").glob("*.yaml"))
GIVEN = {
    "a sweep over a group and a number": (["model=conv", "beta.value=0.5", "latent_dim.value=10"], "study"),
    "a schedule, which has keys of its own": (["beta=warmup", "beta.value=4", "beta.fraction=0.5"], "study"),
    "a loss's own key": (["loss=factor_vae", "loss.gamma=20", "loss.width=64"], "study"),
    "an experiment": (["experiment=wide_latent"], ""),
    "lists and a seed": (["figures.only=[samples,reconstructions]", "seed=4"], "study-2"),
}


def setting(overrides: list[str]) -> Setting:
    """The setting of the run that these overrides compose."""
    config = compose(overrides)
    values = {"seed": config["seed"], "trainer.epochs": config["trainer"]["epochs"]}
    return Setting((Run(RunDirectory(Path("run")), "run", "complete", config=values),))


def composed(command: str, tmp_path: Path) -> list[str]:
    """The names of the runs that a command would train, without their digests: what ``dry_run=true`` prints."""
    python, program, *arguments = shlex.split(command)
    assert (python, program) == ("python", "train.py")
    own = [argument for argument in arguments if not argument.startswith("output_root=")]
    said = succeeded(warmed().call(program, *own, f"output_root={tmp_path}", "dry_run=true", "device=cpu"))
    return sorted(word for line in said.splitlines() for word in line.split()[:1] if word[-9:-8] == "-")


def expected(overrides: list[str], *changed: str) -> str:
    return RunIdentity.of(semantic(compose([*overrides, *changed]))).name


def check(overrides: list[str], sweep: str, tmp_path: Path) -> None:
    one = setting(overrides)
    start, seed, epochs = Start(overrides, sweep), one.first.config["seed"], one.first.config["trainer.epochs"]
    plain = [override for override in overrides if not override.startswith("seed=")]
    found = composed(more_seeds(one, lambda run: start), tmp_path)
    assert found == sorted(expected(plain, f"seed={seed + more}") for more in (1, 2))
    found = composed(more_epochs(one, lambda run: start), tmp_path)
    assert found == [expected(plain, f"seed={seed}", f"trainer.epochs={2 * epochs}")]
    assert found != [expected(plain, f"seed={seed}")]  # the control: it is another run
    if sweep:
        assert composed(again(one.first, lambda run: start), tmp_path) == [expected(overrides)]


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.one_in(3)
def test_the_commands_train_what_they_promise(tmp_path, given):
    overrides, sweep = GIVEN[given]
    check(overrides, sweep, tmp_path)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.one_in(12)
def test_so_do_those_of_the_sweeps_by_name(tmp_path, name):
    """The first and the last job: of a sweep of several grids, they are of different ones."""
    jobs = sweep_jobs(name)
    for job in (jobs[0], jobs[-1]):
        check(list(job), name, tmp_path)


def test_the_command_that_measures_alike_names_the_folder():
    assert shlex.split(measure_again("out puts/x;y")) == ["python", "evaluate.py", "run=out puts/x;y"]


@pytest.mark.parametrize("once", ["restart=true", "+restart=true", "dry_run=true", "trainer.progress=false"])
def test_what_was_for_one_command_alone_is_not_repeated(once):
    """A restart would train again what is there."""
    one, given = setting([]), ["beta.value=2", once, "threads=1"]
    for make in (more_seeds, more_epochs):
        words = shlex.split(make(one, lambda run: Start(given, "study")))
        assert once not in words
        assert {"beta=2", "threads=1"} <= {*words}  # the control: all else is
    words = shlex.split(again(one.first, lambda run: Start(given, "study")))
    assert once not in words

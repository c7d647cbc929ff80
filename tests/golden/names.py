"""The names of runs, which are a contract: ``python -m tests.golden.names`` adds what is new to names.json.

A name that is there is never changed by it: the file says what commands called their runs when they were added.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from fmvae.config import compose
from fmvae.config.composing import sweep_jobs
from fmvae.config.identity import RunIdentity
from fmvae.config.project import PROJECT_ROOT

NAMES = Path(__file__).with_name("names.json")
# options that are chosen by other words, or are no part of a run
NOT_GROUPS = ("experiment", "hydra")
# options whose runs are named by the content of files that they need (tests/data/test_arrays.py names one)
OF_FILES = ("data=arrays", "data=image_folder")


def commands() -> Iterator[tuple[str, ...]]:
    """Overrides of train.py (or of another config that the first names), for every run that the project names."""
    yield ()
    conf = PROJECT_ROOT / "conf"
    for path in sorted(conf.glob("experiment/*.yaml")):
        yield (f"experiment={path.stem}",)
    for path in sorted(conf.glob("*/*.yaml")):
        option = f"{path.parent.name}={path.stem}"
        if path.parent.name not in NOT_GROUPS and option not in OF_FILES:
            yield (option,)
    for path in sorted((PROJECT_ROOT / "sweeps" / "sweep").glob("*.yaml")):
        for job in sweep_jobs(path.stem):
            yield tuple(job)
    yield ("model=conv", "latent_dim=10", "beta=0.5")
    yield ("beta=warmup", "beta.value=4")
    yield ("trainer.precision=bf16",)
    yield ("data.val_size=64", "+optimizer.betas=[0.9,0.99]", "~optimizer.fused")
    yield ("data=emnist", "data.split=letters")
    yield ("--config-name=classifier",)
    yield ("--config-name=classifier", "data=mnist")
    yield ("--config-name=classifier", "data=cifar10")
    yield ("--config-name=classifier", "trainer.start=blurred", "trainer.blur=0.25", "trainer.epochs=8")


def name_of(command: tuple[str, ...]) -> str:
    """The name of the run that these overrides ask for."""
    config_name = "train"
    if command and command[0].startswith("--config-name="):
        config_name, command = command[0].partition("=")[2], command[1:]
    return RunIdentity.of(compose(command, config_name)).name


def golden() -> dict[str, str]:
    return json.loads(NAMES.read_text(encoding="utf-8"))


def add() -> None:
    names = golden() if NAMES.exists() else {}
    for command in commands():
        names.setdefault(" ".join(command), name_of(command))
    NAMES.write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    add()

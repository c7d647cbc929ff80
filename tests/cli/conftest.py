"""Runs that many tests look at; those that change something take a copy."""

from dataclasses import replace

import pytest

from tests.cli.process import Finished, Study
from tests.idx import write_idx_dataset

# by a part of their names: two single runs, of models whose checkpoints don't fit each other
COMMANDS = {
    "base-b1-z2-s0-": [],
    "conv-b0.5-z10-s0-": ["model=conv", "latent_dim=10", "beta=0.5"],
}
FIGURES = ("reconstructions", "samples", "training_curves")


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Study:
    """A dataset of 900 and 800 images, and outputs to be made; each epoch is seven steps."""
    folder = tmp_path_factory.mktemp("study")
    sha256 = write_idx_dataset(folder / "data", 900, 800)
    return Study(folder / "data", sha256, folder / "outputs")


@pytest.fixture(scope="session")
def drawing(untrained) -> Study:
    """The same, whose runs draw some figures."""
    return replace(untrained, figures=FIGURES)


@pytest.fixture(scope="session")
def finished(drawing) -> dict[str, Finished]:
    """How the commands ended."""
    return {name: drawing.train(*overrides) for name, overrides in COMMANDS.items()}


@pytest.fixture(scope="session")
def study(drawing, finished) -> Study:
    """The runs of the commands, finished. Not to be changed."""
    assert [done.status for done in finished.values()] == [0, 0], finished
    return drawing

"""Runs that many tests look at; those that change something take a copy."""

import pytest

from tests.cli.process import Finished, Study
from tests.idx import write_idx_dataset

# by a part of their names: two single runs, of models whose checkpoints don't fit each other
COMMANDS = {
    "base-b1-z2-s0-": [],
    "conv-b0.5-z10-s0-": ["model=conv", "latent_dim=10", "beta=0.5"],
}


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Study:
    """A dataset of 900 and 800 images, and outputs to be made; each epoch is seven steps."""
    folder = tmp_path_factory.mktemp("study")
    sha256 = write_idx_dataset(folder / "data", 900, 800)
    return Study(folder / "data", sha256, folder / "outputs")


@pytest.fixture(scope="session")
def finished(untrained) -> dict[str, Finished]:
    """How the commands ended."""
    return {name: untrained.train(*overrides) for name, overrides in COMMANDS.items()}


@pytest.fixture(scope="session")
def study(untrained, finished) -> Study:
    """The runs of the commands, finished. Not to be changed."""
    assert [done.status for done in finished.values()] == [0, 0], finished
    return untrained

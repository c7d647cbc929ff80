"""Shared by all tests: one thread each, as several run at once, and a small dataset that is quick to learn."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for child processes too

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.idx import write_idx_dataset

if TYPE_CHECKING:
    from fmvae.data import FashionMNISTManager

# a busy machine is no failure
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., "FashionMNISTManager"]:
    """A maker of managers over 1,000 training and 800 test images; arguments are the manager's own."""
    root = tmp_path_factory.mktemp("small-data")
    sha256 = write_idx_dataset(root, 1000, 800)

    def make(**arguments) -> "FashionMNISTManager":
        from fmvae.data import FashionMNISTManager

        return FashionMNISTManager(root, **{"sha256": sha256, "download": False, "val_size": 100} | arguments)

    return make


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Training in this process flushes them to zero for good, and hypothesis can't work without them."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)

"""A small dataset, and configs of short runs on it with a tracker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmvae.config import compose
from tests.idx import write_idx_dataset

QUICK = ["evaluation=fast", "evaluation.samplers=[]", "evaluation.cache=null", "figures=none", "device=cpu"]
QUICK += ["model.hidden_dim=16", "data.val_size=50", "data.download=false", "threads=1", "trainer.progress=false"]


@pytest.fixture(scope="session")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a short run on 250 training images."""
    root = tmp_path_factory.mktemp("tracked-data")
    sha256 = write_idx_dataset(root, 300, 60)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    return [f"data.root={root}", f"data.sha256={{{digests}}}", *QUICK]


@pytest.fixture
def config(arguments, tmp_path) -> Callable[..., dict[str, Any]]:
    """A maker of configs; runs are written to ``outputs`` in the test's folder."""

    def make(*overrides: str, output_root: Path | None = None) -> dict[str, Any]:
        return compose([*arguments, f"output_root={output_root or tmp_path / 'outputs'}", *overrides])

    return make

"""One small dataset for the runs of these tests."""

import pytest

from tests.cli.process import Study
from tests.idx import write_idx_dataset


class Small(Study):
    """With a model of few weights and no figures."""

    @property
    def settings(self) -> list[str]:
        return [*super().settings, "model.hidden_dim=8", "figures=none", "threads=1"]


@pytest.fixture(scope="session")
def field_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("field-data")
    return folder, write_idx_dataset(folder, 700, 600)


@pytest.fixture
def study(field_data, tmp_path) -> Study:
    """Data, and a folder for runs of the test's own."""
    folder, sha256 = field_data
    return Small(folder, sha256, tmp_path / "out")

"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
NAMED = re.compile(r"`((?:fmvae|tests|conf|sweeps|benchmarks)/[\w./-]*\w)`")


def missing(text: str) -> list[str]:
    """Files and folders of the project that a text names and that are not there."""
    return [name for name in NAMED.findall(text) if not (ROOT / name).exists()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_are_there(path):
    assert not missing(path.read_text(encoding="utf-8"))


def test_a_file_that_is_gone_is_noticed():
    assert missing("see `fmvae/rules.py` and `fmvae/cli/main.py`") == ["fmvae/rules.py"]

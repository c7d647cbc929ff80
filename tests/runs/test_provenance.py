"""fmvae.runs.provenance: the commit is the project's own, and equal circumstances give equal records."""

import json
import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from fmvae import __version__
from fmvae.runs import provenance as module
from fmvae.runs.provenance import git_state, processor_name, provenance

CPU = torch.device("cpu")
NOTHING = {"commit": None, "dirty": None}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    git_state.cache_clear()
    yield
    git_state.cache_clear()


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(directory), *identity, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A repository with one commit, taken for the project's."""
    root = tmp_path / "project"
    (root / "fmvae").mkdir(parents=True)
    (root / "fmvae" / "__init__.py").write_text("")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.setattr(module, "PROJECT_ROOT", root)
    return root


def test_a_clean_checkout_is_its_commit(checkout):
    assert git_state() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


def test_a_changed_file_makes_it_dirty_and_outputs_do_not(checkout):
    (checkout / "outputs").mkdir()
    (checkout / "outputs" / "results.json").write_text("{}")
    assert git_state()["dirty"] is False
    git_state.cache_clear()
    (checkout / "fmvae" / "__init__.py").write_text("x = 1\n")
    assert git_state()["dirty"] is True


def test_another_commit_is_another_state(checkout):
    before = git_state()
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    git_state.cache_clear()
    assert git_state()["commit"] != before["commit"]


def test_a_package_installed_inside_another_project_does_not_take_its_commit(checkout, monkeypatch):
    packages = checkout / ".venv" / "site-packages"
    (packages / "fmvae").mkdir(parents=True)
    (packages / "fmvae" / "__init__.py").write_text("")
    monkeypatch.setattr(module, "PROJECT_ROOT", packages)
    assert git_state() == NOTHING


def test_without_a_repository_or_without_git_there_is_no_commit(checkout, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "empty"))
        assert git_state() == NOTHING
    git_state.cache_clear()
    assert git_state() != NOTHING
    git_state.cache_clear()
    monkeypatch.setattr(module, "PROJECT_ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() == NOTHING


def test_asking_for_the_state_leaves_the_repository_as_it_was(checkout):
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}

    os.utime(checkout / "fmvae" / "__init__.py", (10**9, 10**9))  # a plain git status would refresh its index
    before = contents()
    git_state()
    assert contents() == before


def test_provenance_names_versions_device_and_threads():
    record = provenance(CPU, {})
    assert record["versions"]["torch"] == version("torch")
    assert list(record["versions"]) == ["python", "fmvae", *module.PACKAGES]
    assert record["versions"]["fmvae"] == __version__
    assert record["device"] == "cpu"
    assert record["threads"] == torch.get_num_threads()
    assert record["processor"] == processor_name(CPU) != ""
    assert record["git"] == git_state()


def test_provenance_is_json_and_the_same_whenever_it_is_asked():
    assert json.dumps(provenance(CPU, {}), sort_keys=True) == json.dumps(provenance(CPU, {}), sort_keys=True)


def test_the_processor_has_a_name_where_linux_tells_none(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda self, **_: "flags : a b\n")
    assert processor_name(CPU)

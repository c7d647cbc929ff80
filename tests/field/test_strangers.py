"""Files that lie in a folder without belonging there: an editor's, the system's, other people's thousands."""

import os
import shutil
from pathlib import Path

import pytest

from fmvae.config import composing
from fmvae.config.composing import composed_by, config_files
from fmvae.config.project import is_visible_file
from fmvae.errors import ConfigError
from fmvae.sweeps.directory import SweepDirectory
from tests.cli.process import ROOT, Study, call, refused, succeeded
from tests.faults.warmed import warmed


def strange(folder: Path) -> None:
    """What editors and systems leave."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".#mine.yaml").symlink_to("me@host.1234:5678")  # Emacs locks a file by a link to nowhere
    (folder / "gone.yaml").symlink_to(folder / "nothing")
    (folder / "._mine.yaml").write_bytes(bytes(range(256)))  # macOS, on disks of others
    (folder / ".mine.yaml.swp").write_bytes(b"\0" * 100)
    (folder / "~$mine.yaml").write_bytes(b"\xff\xfe")
    (folder / "folder.yaml").mkdir()
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "mine-checkpoint.yaml").write_text("trainer: {epoch: 3}\n")
    os.mkfifo(folder / "pipe.yaml")  # reading it would wait for ever


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of configs of one's own, with strangers at each level."""
    for place in (tmp_path / "conf", tmp_path / "conf" / "experiment"):
        strange(place)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    return tmp_path / "conf"


@pytest.mark.slow
def test_a_sweep_passes_over_strangers(study: Study, folder):
    arguments = ["-m", "experiment=mine,baseline", "sweep_name=s", f"--config-dir={folder}"]
    for _ in range(2):
        assert "2 complete" in succeeded(warmed().call("train.py", *study.settings, *arguments))


@pytest.mark.slow
def test_strangers_in_the_projects_own_folders(study, tmp_path):
    """The project's files, in a folder that is an editor's too: Hydra, our digest and our hints see it."""
    copy = tmp_path / "project"
    for name in ("conf", "sweeps", "fmvae"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", copy)
    for place in ("conf/experiment", "conf/model", "sweeps/sweep", "conf"):
        strange(copy / place)
    train = [str(copy / "train.py"), *study.settings]
    environment = {"PYTHONPATH": str(copy)}
    assert "2 complete" in succeeded(call(*train, "-m", "seed=0,1", "sweep_name=s", environment=environment))
    line = refused(call(*train, "experiment=mine", environment=environment), "baseline")
    assert "#mine" not in line
    assert "_mine" not in line


def test_what_is_visible(folder):
    assert [path.name for path in config_files(folder) or ()] == ["mine.yaml"]
    assert not any(map(is_visible_file, set(folder.iterdir())))


def test_a_change_of_a_visible_file_is_seen_and_of_a_stranger_is_not(folder):
    before = composed_by("x", folders=[folder])
    (folder / "._mine.yaml").write_bytes(b"changed")
    (folder / "experiment" / ".#mine.yaml").unlink()
    assert composed_by("x", folders=[folder]) == before
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 8\n")
    assert composed_by("x", folders=[folder]) != before


def test_a_folder_of_many_files_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(composing, "MOST_FILES", 50)
    for number in range(100):
        (tmp_path / f"{number}.txt").touch()
    assert config_files(tmp_path) is None
    assert composed_by(folders=[tmp_path]) != composed_by(folders=[tmp_path])  # so nothing kept is believed
    monkeypatch.setattr(composing, "MOST_FILES", 5000)
    assert composed_by(folders=[tmp_path]) == composed_by(folders=[tmp_path])


def test_runs_are_no_configs(tmp_path, monkeypatch):
    """As below ``--config-dir=.``, where outputs/ lies: thousands of them are not looked through, either."""
    monkeypatch.setattr(composing, "MOST_FILES", 50)
    for number in range(100):
        run = tmp_path / "outputs" / f"base-b1-z2-s{number}-0000000{number % 10}{'.old-1' * (number % 2)}"
        run.mkdir(parents=True)
        (run / "config.yaml").touch()
    (tmp_path / "outputs" / ".locks").mkdir()
    (tmp_path / "outputs" / "mine.yaml").touch()
    (tmp_path / "mine.yaml").touch()
    assert len(config_files(tmp_path) or ()) == 2


@pytest.mark.slow
def test_a_change_is_seen_in_a_folder_that_holds_runs_too(study, tmp_path):
    """One folder for configs and outputs, with the locks of a single run in it."""
    (tmp_path / "experiment").mkdir()
    mine = tmp_path / "experiment" / "mine.yaml"
    arguments = ["experiment=mine", "--config-dir=.", "output_root=."]
    for seed in (7, 8):
        mine.write_text(f"# @package _global_\nseed: {seed}\n")
        succeeded(warmed().call("train.py", *study.settings, *arguments, cwd=tmp_path))
        sweep = [*arguments, "-m", "beta=1,2", "sweep_name=s"]
        said = succeeded(warmed().call("train.py", *study.settings, *sweep, cwd=tmp_path))
        assert f"-s{seed}-" in said
    assert len(list(tmp_path.glob("s/base-*"))) == 4


@pytest.mark.slow
def test_a_sweep_from_such_a_folder_is_still_finished_by_the_same_command(study, tmp_path, monkeypatch):
    for number in range(3000):
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    arguments = ["-m", "experiment=mine", "beta=1,2", "sweep_name=s", "--config-dir=."]
    for _ in range(2):
        said = succeeded(warmed().call("train.py", *study.settings, *arguments, cwd=tmp_path))
        assert "2 complete" in said
    assert len(SweepDirectory(study.outputs / "s").planned()) == 2


def test_strangers_among_runs(study):
    succeeded(warmed().call("train.py", *study.settings, "-m", "seed=0,1", "sweep_name=s"))
    sweep = study.outputs / "s"
    (sweep / "gone").symlink_to(sweep / "nowhere")
    (sweep / ".ipynb_checkpoints").mkdir()
    (sweep / ".ipynb_checkpoints" / "config.yaml").touch()
    (sweep / ".DS_Store").write_bytes(b"\0")
    (sweep / "notes").mkdir()
    (sweep / "notes" / "config.yaml").write_text("mine: true\n")
    (sweep / "._base-b1-z2-s0-00000000").write_bytes(b"\0")
    odd = sweep / "odd-b1-z2-s0-00000000"
    odd.mkdir()
    (odd / "config.yaml").symlink_to(odd / "nowhere")
    assert "2 complete" in succeeded(warmed().call("train.py", *study.settings, "-m", "seed=0,1", "sweep_name=s"))
    assert "2 complete" in succeeded(warmed().call("fmvae.report", "status", str(sweep)))
    succeeded(warmed().call("fmvae.report", str(sweep)))
    succeeded(warmed().call("fmvae.verify", "--files", str(sweep)))
    succeeded(warmed().call("evaluate.py", "evaluation=fast", "figures=none", f"run={sweep}"))


def test_it_is_being_plain_and_visible_that_counts(folder, monkeypatch):
    """The control: reading whatever ends in .yaml fails, or waits for ever."""
    (folder / "pipe.yaml").unlink()
    (folder / "experiment" / "pipe.yaml").unlink()
    monkeypatch.setattr(composing, "is_visible_file", lambda path: True)
    with pytest.raises((OSError, ConfigError)):
        composed_by(folders=[folder])

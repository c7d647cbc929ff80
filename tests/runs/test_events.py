"""fmvae.runs.events: one file with the final numbers and figures, whatever was measured before."""

import os
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmvae.runs.directory import RunDirectory
from fmvae.runs.events import PREFIX, SUFFIX, FinalEvents, hide_events

FIRST = {"test/kl": 6.5, "test/recon": 255.0}


def picture(shade: int) -> np.ndarray:
    return np.full((4, 6, 3), shade, np.uint8)


def write(directory: Path, values: dict[str, float], step: int = 3, **pictures: np.ndarray) -> None:
    events = FinalEvents(directory)
    events.scalars(values)
    for name, pixels in pictures.items():
        events.image(f"figures/{name}", pixels)
    events.write(step)


def shown(directory: Path) -> dict[str, list[tuple[int, float | int]]]:
    """Step and value of every point and picture, which is known by the length of its file."""
    events = EventAccumulator(str(directory)).Reload()
    seen: dict[str, list[tuple[int, float | int]]] = {}
    for tag in events.Tags()["scalars"]:
        seen[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    for tag in events.Tags()["images"]:
        seen[tag] = [(event.step, len(event.encoded_image_string)) for event in events.Images(tag)]
    return seen


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def rename_to_earlier(directory: Path) -> None:
    """As if the file there was of an earlier process."""
    (path,) = directory.glob(f"*{SUFFIX}")
    path.rename(directory / f"{PREFIX}0000000001.host.1{SUFFIX}")


def test_numbers_and_figures_read_back(tmp_path):
    write(tmp_path, FIRST, samples=picture(9))
    assert {tag: shown(tmp_path)[tag] for tag in FIRST} == {tag: [(3, value)] for tag, value in FIRST.items()}
    assert len(shown(tmp_path)["figures/samples"]) == 1
    (name,) = files(tmp_path)
    assert name.startswith(PREFIX)
    assert name.endswith(SUFFIX)


@pytest.mark.parametrize("step", [3, 2])
def test_a_second_measuring_takes_the_place_of_the_first(step, tmp_path):
    write(tmp_path, FIRST)
    rename_to_earlier(tmp_path)
    write(tmp_path, {"test/kl": 6.5, "test/iwae_64": 250.0}, step)
    assert shown(tmp_path) == {"test/kl": [(step, 6.5)], "test/iwae_64": [(step, 250.0)]}
    assert len(files(tmp_path)) == 1


def test_the_same_again_changes_no_byte(tmp_path):
    write(tmp_path, FIRST, samples=picture(9))
    rename_to_earlier(tmp_path)
    before = files(tmp_path)
    write(tmp_path, FIRST)
    write(tmp_path, FIRST, samples=picture(9))
    assert files(tmp_path) == before


@pytest.mark.parametrize(("step", "kept"), [(3, True), (4, False)])
def test_figures_that_are_not_drawn_again_are_kept_if_they_are_of_the_same_checkpoint(step, kept, tmp_path):
    write(tmp_path, FIRST, samples=picture(9), scatter=picture(8))
    write(tmp_path, FIRST, step, samples=picture(7))
    assert [at for at, _ in shown(tmp_path)["figures/samples"]] == [step]
    assert ("figures/scatter" in shown(tmp_path)) == kept


def test_a_number_that_did_not_change_keeps_the_time_of_its_measuring(tmp_path):
    write(tmp_path, FIRST)
    (before,) = EventAccumulator(str(tmp_path)).Reload().Scalars("test/kl")
    write(tmp_path, FIRST | {"test/recon": 254.0})
    (after,) = EventAccumulator(str(tmp_path)).Reload().Scalars("test/kl")
    assert after == before


def test_two_files_left_by_a_kill_become_one(tmp_path):
    write(tmp_path, FIRST)
    rename_to_earlier(tmp_path)
    (path,) = tmp_path.iterdir()
    path.with_name(f"{PREFIX}0000000002.host.1{SUFFIX}").write_bytes(path.read_bytes())
    assert len(shown(tmp_path)["test/kl"]) == 2
    write(tmp_path, FIRST)
    assert shown(tmp_path)["test/kl"] == [(3, 6.5)]
    assert len(files(tmp_path)) == 1


def test_tensorboard_never_sees_half_a_file(tmp_path, monkeypatch):
    seen, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(set(files(tmp_path))), fsync(descriptor)))
    write(tmp_path, FIRST)
    assert len(seen[0]) == 1
    assert not [name for name in seen[0] if "tfevents" in name]


def test_hidden_events_are_the_same_bytes_under_another_name(tmp_path):
    write(tmp_path, FIRST)
    before = files(tmp_path)
    hide_events(tmp_path)
    assert list(files(tmp_path).values()) == list(before.values())
    assert not list(tmp_path.glob("*tfevents*"))


def test_a_run_moved_aside_hides_its_events(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    write(run.path, FIRST)
    aside = run.move_aside()
    assert aside is not None
    assert len(list(aside.iterdir())) == 1
    assert not list(tmp_path.rglob("*tfevents*"))

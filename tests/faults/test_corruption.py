"""Damage to any file of ours is noticed, or changes nothing: cut files, flipped bits, and files of other runs.

Every file is cut at each 64th byte and has 500 bits flipped, one at a time. Of weights of full size, some hundred
of these damages stand for all; everything else here is small enough.
"""

import copy
import gzip
import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fmvae.config import compose
from fmvae.config.identity import RunIdentity, semantic
from fmvae.config.stored import read_config
from fmvae.data import Split, sources
from fmvae.data.sources import FILES, load_dataset
from fmvae.errors import ConfigError, DataError, FmvaeError, RunError
from fmvae.evaluation.cache import real_features
from fmvae.evaluation.measures.fid import Distances
from fmvae.experiments import train
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.load import load_run
from fmvae.models import FashionResNet18
from fmvae.models.resnet import load_classifier, save_classifier
from fmvae.report import reference
from fmvae.report.collect import read_run
from fmvae.runs import checkpoint, files
from fmvae.runs import provenance as origin
from fmvae.runs.checkpoint import Checkpoint, load_checkpoint
from fmvae.runs.directory import RunDirectory, identify
from fmvae.runs.files import read_record
from fmvae.runs.recorder import Album, Recorder
from fmvae.runs.resuming import newest_checkpoint
from fmvae.runs.timing import Timing
from fmvae.sweeps import run as sweeping
from fmvae.sweeps.directory import Plan, SweepDirectory, progress
from fmvae.training import Checkpointer
from fmvae.weights import SHIPPED
from tests.cli.process import refused, snapshot, succeeded
from tests.evaluation.test_cache import Counting
from tests.faults.warmed import warmed
from tests.idx import draw, pack

FLIPS = 500
EPOCHS, VALIDATED = 5, 3  # a run stopped after the epoch between has last, previous and best of 4, 3 and 3


@pytest.fixture(scope="module", autouse=True)
def _steady() -> Iterator[None]:
    """No waiting for the disk, which thousands of files would do; and no commit, which could change meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(origin, "git_state", lambda: {"commit": None, "dirty": None})
        yield


# --- damages --------------------------------------------------------------------------------------------------


def flipped(content: bytes, place: int) -> bytes:
    """With one bit the other way; places are counted in bits."""
    damaged = bytearray(content)
    damaged[place // 8] ^= 1 << place % 8
    return bytes(damaged)


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The truncations and flips, each with its name; and cuts within the last bytes."""
    for length in sorted({*range(0, len(content), 64), *(len(content) - n for n in (1, 2, 4, 8))}):
        yield f"cut at {length}", content[:length]
    places = random.Random(0)
    for place in (places.randrange(8 * len(content)) for _ in range(FLIPS)):
        yield f"bit {place}", flipped(content, place)


class Survey(NamedTuple):
    """What became of damages, by name: an error or a fall-back, the answer as before, or another answer."""

    noticed: list[str]
    harmless: list[str]
    missed: list[str]


def survey(path: Path, read: Callable[[], Any], every: int = 1) -> Survey:
    """Damage a file in every way and read it each time; it is whole again afterwards.

    Args:
        read: gives what a reader makes of the file, something that compares, or None for what it won't take.
        every: takes so many damages together, and of them the first.
    """
    content, before = path.read_bytes(), read()
    assert before is not None
    found = Survey([], [], [])
    for name, damaged in islice(damages(content), 0, None, every):
        path.write_bytes(damaged)
        try:
            after = read()
        except FmvaeError:
            after = None
        (found.noticed if after is None else found.harmless if after == before else found.missed).append(name)
    path.write_bytes(content)
    assert read() == before
    return found


class Anything:
    """Equal to whatever it is compared with: a digest that is not looked at."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def bits(tensors: Mapping[str, Tensor]) -> dict[str, tuple]:
    """Tensors as something that compares to the last bit."""
    return {name: (str(t.dtype), tuple(t.shape), t.numpy().tobytes()) for name, t in tensors.items()}


def content(loaded: Checkpoint) -> tuple:
    return bits(loaded.tensors), loaded.meta, loaded.sha256


# --- runs -----------------------------------------------------------------------------------------------------


def write_data(folder: Path, *, seed: int = 0, gz: bool = False) -> dict[str, str]:
    """As ``write_idx_dataset``, but of 200 and 120 images of 10 x 10 pixels."""
    folder.mkdir(parents=True)
    rng, hashes = np.random.default_rng(seed), {}
    for split, num in (("train", 200), ("t10k", 120)):
        images, labels = draw(num, rng)
        arrays = {"images-idx3-ubyte": images[:, ::3, ::3].copy(), "labels-idx1-ubyte": labels}
        for kind, array in arrays.items():
            name, packed = f"{split}-{kind}", pack(array)
            hashes[name] = hashlib.sha256(packed).hexdigest()
            path = folder / (f"{name}.gz" if gz else name)
            path.write_bytes(gzip.compress(packed, mtime=0) if gz else packed)
    return hashes


QUICK = ["evaluation=fast", "evaluation.fid.features=[pixels]", "evaluation.fid.num_images=110", "figures=none"]
OTHERS = {"seed": ["seed=1"], "model": ["model=conditional"]}


class Runs(NamedTuple):
    """A run, complete, and stopped before its last epoch; and complete ones of another seed or model."""

    settings: list[str]
    config: dict[str, Any]
    evaluation: dict[str, Any]
    whole: Path
    stopped: Path
    others: dict[str, Path]

    def copied(self, source: Path, folder: Path) -> RunDirectory:
        """A copy of a run in another folder, where a test may do as it likes. Links are links no more."""
        return RunDirectory(Path(shutil.copytree(source, folder / source.name)))

    def train(self, run: RunDirectory) -> dict[str, Any]:
        return train({**copy.deepcopy(self.config), "output_root": str(run.path.parent)})

    def evaluate(self, path: Path, **settings: Any) -> dict[str, Any]:
        (results,) = evaluate_runs({**copy.deepcopy(self.evaluation), "run": str(path), **settings})
        return results

    @property
    def sha256(self) -> str:
        return RunIdentity.of(self.config).sha256


class Stopping(Checkpointer):
    def on_epoch_end(self, trainer, row) -> None:
        super().on_epoch_end(trainer, row)
        if trainer.epoch == EPOCHS - 1:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def runs(tmp_path_factory, _steady) -> Runs:
    root = tmp_path_factory.mktemp("runs")
    digests = ",".join(f"{name}:'{digest}'" for name, digest in write_data(root / "data").items())
    settings = [
        f"data.root={root}/data",
        f"data.sha256={{{digests}}}",
        "data.download=false",
        "data.image_shape=[1,10,10]",
        "data.val_size=20",
        "data.batch_size=60",
        "model.hidden_dim=2",
        "optimizer.lr=0.1",
        f"trainer.epochs={EPOCHS}",
        f"trainer.validate_every={VALIDATED}",
        "device=cpu",
        *QUICK,
        f"output_root={root}/outputs",
    ]
    config = compose(settings)
    train(copy.deepcopy(config))
    for overrides in OTHERS.values():
        train(compose([*settings, *overrides]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fmvae.experiments.lifecycle.Checkpointer", Stopping)
        with pytest.raises(KeyboardInterrupt):
            train(copy.deepcopy(config) | {"output_root": f"{root}/stopped"})
    paths = {}
    for name, pattern in {"whole": "base-*-s0-*", "seed": "base-*-s1-*", "model": "conditional-*"}.items():
        (paths[name],) = (root / "outputs").glob(pattern)
    evaluation = compose(["run=x", *QUICK, "device=cpu"], "evaluate")
    whole = paths.pop("whole")
    return Runs(settings, config, evaluation, whole, root / "stopped" / whole.name, paths)


@pytest.fixture
def whole(runs, tmp_path) -> RunDirectory:
    return runs.copied(runs.whole, tmp_path / "whole")


@pytest.fixture
def stopped(runs, tmp_path) -> RunDirectory:
    return runs.copied(runs.stopped, tmp_path / "stopped")


# --- checkpoints ----------------------------------------------------------------------------------------------

CHECKPOINTS = ("last", "previous", "best")


@pytest.mark.parametrize("which", ["last", "best"])
def test_any_damage_to_a_checkpoint_is_noticed(which, stopped):
    """``previous`` has the bytes of ``best`` here."""
    assert stopped.previous.read_bytes() == stopped.best.read_bytes()
    path = getattr(stopped, which)
    found = survey(path, lambda: content(load_checkpoint(path)))
    assert (found.harmless, found.missed) == ([], [])
    assert len(found.noticed) > FLIPS


@pytest.mark.parametrize("which", CHECKPOINTS)
def test_resuming_falls_back_to_the_newest_checkpoint_that_is_whole(which, runs, stopped, caplog):
    """Of the damages every tenth: that each is noticed is said above."""
    path = getattr(stopped, which)
    left = content(load_checkpoint(stopped.best if which == "last" else stopped.last))
    for name, damaged in islice(damages(path.read_bytes()), 0, None, 10):
        path.write_bytes(damaged)
        caplog.clear()
        found = newest_checkpoint(stopped, runs.sha256)
        assert found is not None
        assert content(found) == left, name
        (warning,) = caplog.messages
        assert warning.startswith(f"{path}: ")
        assert warning.endswith("falling back")


def test_with_no_checkpoint_whole_training_begins_anew_and_ends_with_the_same_results(runs, stopped, caplog):
    for which in CHECKPOINTS:
        path = getattr(stopped, which)
        path.write_bytes(path.read_bytes()[:-1])
    assert newest_checkpoint(stopped, runs.sha256) is None
    assert runs.train(stopped) == read_record(runs.whole / "results.json")
    assert caplog.text.count("falling back") == 6


@pytest.mark.parametrize("which", CHECKPOINTS)
def test_a_run_resumed_after_a_fall_back_ends_with_the_same_bytes(which, runs, stopped):
    path = getattr(stopped, which)
    path.write_bytes(flipped(path.read_bytes(), 8 * path.stat().st_size // 2))
    runs.train(stopped)
    assert written(stopped) == written(RunDirectory(runs.whole))
    for name in ("last", "best"):
        assert getattr(stopped, name).read_bytes() == getattr(RunDirectory(runs.whole), name).read_bytes()


def written(run: RunDirectory) -> dict[str, bytes]:
    """What a run comes to, as bytes; all of it is the same wherever it lies."""
    names = ("results.json", "fid.json", "metrics.jsonl", "figures/index.json")
    return {name: (run.path / name).read_bytes() for name in names}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("which", CHECKPOINTS)
def test_a_checkpoint_of_another_run_is_neither_resumed_from_nor_evaluated(which, other, runs, stopped):
    theirs = runs.others[other]
    shutil.copy(theirs / "checkpoints" / "best.safetensors", getattr(stopped, which))
    before = snapshot(stopped.path)
    with pytest.raises(RunError, match=rf"a checkpoint of another config \({theirs.name}\)"):
        runs.train(stopped)
    for measured in {"last", "best"} & {which}:
        with pytest.raises(RunError, match=rf"a checkpoint of another config \({theirs.name}\)"):
            runs.evaluate(stopped.path, checkpoint=measured)
    assert snapshot(stopped.path) == before


@pytest.mark.parametrize("measured", ["last", "best"])
def test_evaluation_refuses_a_damaged_checkpoint_and_touches_nothing(measured, runs, whole):
    path, before = getattr(whole, measured), snapshot(whole.path)
    path.write_bytes(damaged := flipped(path.read_bytes(), 8 * path.stat().st_size - 77))
    with pytest.raises(RunError, match="does not match its digest") as caught:
        runs.evaluate(whole.path, checkpoint=measured)
    assert caught.value.subject == str(path)
    path.write_bytes((runs.whole / "checkpoints" / path.name).read_bytes())
    assert damaged != path.read_bytes()
    assert snapshot(whole.path) == before


def test_the_last_checkpoint_in_the_place_of_the_best_is_not_measured_as_the_best(runs, stopped):
    shutil.copy(stopped.last, stopped.best)
    with pytest.raises(RunError):
        runs.evaluate(stopped.path)


def test_negative_control_without_the_digest_flipped_bits_of_checkpoints_are_missed(stopped, monkeypatch):
    monkeypatch.setattr(checkpoint, "_content_sha256", lambda *_: Anything())
    found = survey(stopped.last, lambda: content(load_checkpoint(stopped.last)), every=10)
    assert len(found.missed) > FLIPS / 50
    assert not [name for name in found.missed if name.startswith("cut")]


def test_negative_control_without_a_look_at_the_owner_another_runs_numbers_would_pass(runs, whole, monkeypatch):
    shutil.copy(runs.others["seed"] / "checkpoints" / "best.safetensors", whole.best)
    monkeypatch.setattr("fmvae.measurement.measure.check_owner", lambda *_: None)
    assert runs.evaluate(whole.path)["test"] != read_record(runs.whole / "results.json")["test"]


# --- weights of a classifier ----------------------------------------------------------------------------------


class Repeat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, 8, 1, 1)


class Tiny(nn.Module):
    """What FashionResNet18 uses of torchvision's network, with hardly a weight."""

    def __init__(self, **_: Any):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(1, 64, 3), nn.BatchNorm2d(64), nn.ReLU()
        self.layer1, self.layer2, self.layer3, self.layer4 = (nn.Sequential() for _ in range(4))
        self.avgpool = nn.Sequential(nn.AdaptiveAvgPool2d(1), Repeat())


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """As shipped, but of a small network."""
    monkeypatch.setattr("torchvision.models.resnet18", Tiny)
    torch.manual_seed(0)
    save_classifier(tmp_path / "w.safetensors", FashionResNet18(), {"accuracy": 0.5})
    return tmp_path / "w.safetensors"


def classifier(path: Path) -> tuple:
    loaded = load_classifier(path)
    return bits(loaded.model.state_dict()), loaded.card


def test_any_damage_to_weights_is_noticed(weights):
    found = survey(weights, lambda: classifier(weights))
    assert (found.harmless, found.missed) == ([], [])
    assert len(found.noticed) > FLIPS


def test_negative_control_without_the_digest_flipped_bits_of_weights_are_missed(weights, monkeypatch):
    monkeypatch.setattr(checkpoint, "_content_sha256", lambda *_: Anything())
    assert len(survey(weights, lambda: classifier(weights), every=10).missed) > FLIPS / 50


@pytest.mark.slow
def test_damage_to_weights_of_full_size_is_noticed(tmp_path):
    """Cut at each 64th byte of the header and of the last 4096, and 50 places between; flips of 20 bits.

    ``tests/models/test_resnet.py`` flips 50 more.
    """
    path = tmp_path / "w.safetensors"
    shutil.copy(SHIPPED["sharp"], path)
    size, places = path.stat().st_size, random.Random(0)
    with path.open("r+b") as file:
        header = int.from_bytes(file.read(8), "little")
        for place in (places.randrange(8 * size) for _ in range(20)):
            file.seek(place // 8)
            (whole,) = file.read(1)
            for byte in (whole ^ 1 << place % 8, whole):
                file.seek(place // 8)
                file.write(bytes([byte]))
                file.flush()
                if byte != whole:
                    with pytest.raises(RunError):
                        load_classifier(path)
    load_classifier(path)
    between = range(header, size, size // 50)
    for length in sorted({*range(0, header + 8, 64), *between, *range(size - 4096, size, 64)}, reverse=True):
        os.truncate(path, length)
        with pytest.raises(RunError):
            load_classifier(path)


def test_weights_of_another_network_are_refused_or_make_numbers_of_another_name(weights, runs, tmp_path):
    """Whatever is measured with them says which they are, so numbers of others are not kept beside them."""
    before = load_classifier(weights)
    torch.manual_seed(1)
    save_classifier(weights, FashionResNet18(), {"accuracy": 0.5})
    assert load_classifier(weights).sha256 != before.sha256
    for run in runs.others.values():
        shutil.copy(run / "checkpoints" / "best.safetensors", weights)
        with pytest.raises(RunError, match="not a FashionResNet18"):
            load_classifier(weights)


def test_numbers_of_swapped_weights_take_the_place_of_those_before(weights, runs):
    accuracy, cache = {"num_per_class": 2, "weights": str(weights)}, weights.parent / "cache"
    asked = copy.deepcopy(runs.evaluation)["evaluation"] | {"accuracy": accuracy, "cache": str(cache)}
    conditional = runs.copied(runs.others["model"], weights.parent / "runs")
    first = runs.evaluate(conditional.path, evaluation=asked)["accuracy"]
    assert runs.evaluate(conditional.path, evaluation=asked)["accuracy"] == first
    torch.manual_seed(1)
    save_classifier(weights, FashionResNet18(), {"accuracy": 0.5})
    second = runs.evaluate(conditional.path, evaluation=asked)["accuracy"]
    assert second["settings"]["extractor_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert second != first
    assert len(list(cache.iterdir())) == 2


# --- features of real images ----------------------------------------------------------------------------------


@pytest.fixture
def split() -> Split:
    return some_images(0)


def some_images(seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (100, 1, 4, 5), dtype=torch.uint8, generator=generator)
    return Split("test", images, torch.arange(100))


def kept(directory: Path, split: Split) -> tuple[int, tuple]:
    """How often features were computed, and what was given."""
    counting = Counting()
    given = real_features(directory, split, len(split), counting)
    assert given.logits is not None
    return counting.calls, (given.features.tobytes(), given.logits.tobytes())


def test_a_damaged_cache_entry_is_computed_again_and_gives_the_same_features(split, tmp_path):
    made = kept(tmp_path, split)
    assert made == (1, kept(tmp_path, split)[1])
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()

    def read() -> tuple | None:
        calls, given = kept(tmp_path, split)
        assert given == made[1]
        assert entry.read_bytes() == whole
        return None if calls else given

    found = survey(entry, read)
    assert (found.harmless, found.missed) == ([], [])
    assert len(found.noticed) > FLIPS


def test_a_cache_entry_of_other_images_or_another_extractor_is_computed_again(split, tmp_path):
    theirs = tmp_path / "theirs"
    others = [(some_images(1), Counting()), (split, Counting(sha256="ac"))]
    made = kept(tmp_path / "ours", split)
    (entry,) = (tmp_path / "ours").iterdir()
    for n, (images, features) in enumerate(others):
        real_features(theirs / str(n), images, len(images), features)
        (other,) = (theirs / str(n)).iterdir()
        shutil.copy(other, entry)
        assert kept(tmp_path / "ours", split) == made


def test_negative_control_without_the_digest_damaged_features_are_used(split, tmp_path, monkeypatch):
    made = kept(tmp_path, split)
    (entry,) = tmp_path.iterdir()
    monkeypatch.setattr(checkpoint, "_content_sha256", lambda *_: Anything())
    entry.write_bytes(flipped(entry.read_bytes(), 8 * entry.stat().st_size - 20))
    assert kept(tmp_path, split) == (0, kept(tmp_path, split)[1])
    assert kept(tmp_path, split)[1] != made[1]


# --- the dataset ----------------------------------------------------------------------------------------------


def arrays(root: Path, hashes: dict[str, str]) -> tuple:
    data = load_dataset(root, download=False, sha256=hashes)
    images = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    return tuple((array.shape, array.tobytes()) for array in images)


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", [FILES[0], FILES[3]])
def test_any_damage_to_the_dataset_is_noticed_or_decompresses_to_the_same(name, gz, tmp_path):
    """Of a .gz: in the time and the system that it was made on, or another packing of the same content."""
    hashes = write_data(tmp_path / "data", gz=gz)
    path = tmp_path / "data" / (f"{name}.gz" if gz else name)
    found = survey(path, lambda: arrays(tmp_path / "data", hashes))
    assert found.missed == []
    assert gz or not found.harmless
    assert len(found.noticed) > FLIPS / 2
    assert not [place for place in found.harmless if place.startswith("cut")]


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_another_dataset_is_refused(gz, tmp_path):
    hashes, others = (write_data(tmp_path / str(seed), seed=seed, gz=gz) for seed in (0, 1))
    assert not set(hashes.values()) & set(others.values())
    suffix = ".gz" if gz else ""
    for name in FILES:
        path = tmp_path / "0" / f"{name}{suffix}"
        whole = path.read_bytes()
        for other in (tmp_path / "1" / path.name, *(tmp_path / "0" / f"{n}{suffix}" for n in FILES if n != name)):
            shutil.copy(other, path)
            with pytest.raises(DataError, match="is not the one asked for"):
                arrays(tmp_path / "0", hashes)
        path.write_bytes(whole)
    arrays(tmp_path / "0", hashes)


def test_negative_control_without_the_hash_damaged_images_are_used(tmp_path, monkeypatch):
    hashes = write_data(tmp_path / "data")
    fake = SimpleNamespace(sha256=lambda _: SimpleNamespace(hexdigest=Anything))
    monkeypatch.setattr(sources, "hashlib", fake)
    path = tmp_path / "data" / "t10k-images-idx3-ubyte"
    found = survey(path, lambda: arrays(tmp_path / "data", hashes), every=10)
    assert len(found.missed) > FLIPS / 20


# --- results.json, fid.json, figures/index.json ----------------------------------------------------------------

RECORDS = ("results.json", "fid.json", "figures/index.json")


@pytest.mark.parametrize("name", RECORDS)
def test_any_damage_to_a_record_is_noticed_or_says_the_same(name, whole):
    """The last digit of a number may round to the same one, and an exponent may be written E."""
    path = whole.path / name
    found = survey(path, lambda: read_record(path))
    assert found.missed == []
    assert len(found.harmless) < 10
    assert [damage for damage in found.harmless if damage.startswith("cut")] == [
        f"cut at {path.stat().st_size - 1}"  # the newline at its end
    ]


@pytest.mark.parametrize("name", RECORDS)
def test_negative_control_without_the_digest_flipped_bits_of_records_are_missed(name, whole, monkeypatch):
    monkeypatch.setattr(files, "digest", lambda _: Anything())
    path = whole.path / name
    assert len(survey(path, lambda: read_record(path), every=10).missed) > FLIPS / 50


def test_damaged_results_make_no_run_complete_and_no_report(runs, whole):
    """And nobody who asks for them gets other numbers."""
    expected = read_record(whole.results)
    report = read_run(whole).scalars
    assert report["test/recon"] == expected["test"]["recon"]

    def read() -> Any:
        complete, run, left = whole.state(runs.sha256) == "complete", read_run(whole), progress(whole)
        assert run.complete == complete == (left.state == "complete")
        return (whole.final_results(runs.sha256), run.scalars, left.results) if complete else None

    found = survey(whole.results, lambda: whole.final_results(runs.sha256))
    assert found.missed == []
    assert len(found.noticed) > FLIPS
    assert survey(whole.results, read, every=10).missed == []


@pytest.mark.parametrize("other", OTHERS)
def test_results_of_another_run_are_no_results_of_this_one(other, runs, whole):
    shutil.copy(runs.others[other] / "results.json", whole.results)
    assert whole.state(runs.sha256) == "partial"
    assert read_run(whole).state == "damaged"
    assert "of another config" in read_run(whole).reason
    with pytest.raises(RunError, match="its results are not of its best checkpoint"):
        load_run(whole.path, device="cpu")
    runs.evaluate(whole.path)
    assert written(whole) == written(RunDirectory(runs.whole))


@pytest.mark.parametrize("other", OTHERS)
def test_a_run_that_nobody_planned_is_not_complete_with_results_of_another(other, runs, whole):
    """As a search's summary, and its best run, ask for it."""
    shutil.copy(runs.others[other] / "results.json", whole.results)
    assert progress(whole).results is None


@pytest.mark.parametrize("other", OTHERS)
def test_the_page_of_results_shows_no_results_of_another_run(other, runs, whole):
    shutil.copy(runs.others[other] / "results.json", whole.results)
    row = reference.find(whole.path.parent, whole.path.parent / "kept", runs.settings)
    assert row.found == ()


def test_pictures_are_drawn_again_unless_the_index_is_whole_and_of_the_same_checkpoint(runs, whole):
    album = Album(whole.figures)
    drawn = {name: read_record(whole.figures / "index.json")[name] for name in ("settings", "checkpoint_sha256")}
    index = whole.figures / "index.json"
    found = survey(index, lambda: album.holds(drawn) or None)
    assert found.missed == []
    assert len(found.noticed) > FLIPS
    for other in runs.others.values():
        shutil.copy(other / "figures" / "index.json", index)
        assert not album.holds(drawn)


# --- config.yaml ----------------------------------------------------------------------------------------------


def identified(run: RunDirectory) -> dict[str, Any]:
    """What evaluation makes of a stored config: all that a number can depend on."""
    config = read_config(run.config)
    identify(run, config)
    return semantic(config)


def test_any_damage_to_a_config_is_noticed_or_changes_nothing_that_counts(whole):
    found = survey(whole.config, lambda: identified(whole))
    assert found.missed == []
    assert found.harmless  # paths, and what is asked anew, are in it too
    assert len(found.noticed) > FLIPS / 2


def test_negative_control_without_the_name_another_config_would_pass(whole, monkeypatch):
    monkeypatch.setattr("tests.faults.test_corruption.identify", lambda *_: None)
    assert len(survey(whole.config, lambda: identified(whole), every=10).missed) > 3


SEMANTIC = {
    "beta": ("value: 1.0", "value: 2.0"),
    "seed": ("\nseed: 0", "\nseed: 1"),
    "the learning rate": ("lr: 0.1", "lr: 0.2"),
    "the model": ("fmvae.models.BaseVAE", "fmvae.models.BetaVAE"),
    "its name": ("_name_: base", "_name_: case"),
    "the likelihood": ("objectives.Bernoulli", "objectives.ContinuousBernoulli"),
    "epochs": (f"epochs: {EPOCHS}", f"epochs: {EPOCHS + 1}"),
    "a new key": ("stratified: true", "stratified: true\n  new: 1"),
    "a key less": ("  stratified: true\n", ""),
    "a digest of the data": ("t10k-images-idx3-ubyte: ", "t10k-images-idx3-ubyte: a"),
}
OTHERWISE = {
    "a comment": ("beta:\n", "# by hand\nbeta:\n"),
    "a blank line": ("beta:\n", "\n\nbeta:\n"),
    "the download": ("download: false", "download: true"),
    "how often checkpoints are kept": ("checkpoint_every: 1", "checkpoint_every: 7"),
    "the device": ("device: cpu", "device: cuda:9"),
    "where outputs go": ("output_root: ", "output_root: /elsewhere"),
    "how a number is written": ("value: 1.0", "value: 1"),
    "what was drawn": ("num_samples: 64", "num_samples: 3"),
}


def edit(run: RunDirectory, old: str, new: str) -> None:
    text = run.config.read_text()
    assert old in text
    run.config.write_text(text.replace(old, new))


@pytest.mark.parametrize(("old", "new"), SEMANTIC.values(), ids=SEMANTIC)
def test_an_edit_that_a_number_could_depend_on_is_refused(old, new, runs, whole):
    edit(whole, old, new)
    before = snapshot(whole.path)
    for reads in (runs.evaluate, load_run):
        with pytest.raises(ConfigError, match="not the config this directory is named by"):
            reads(whole.path)
    assert snapshot(whole.path) == before


@pytest.mark.parametrize(("old", "new"), OTHERWISE.values(), ids=OTHERWISE)
def test_an_edit_that_no_number_depends_on_changes_none(old, new, runs, whole):
    edit(whole, old, new)
    runs.evaluate(whole.path, force=True)
    assert written(whole) == written(RunDirectory(runs.whole))


@pytest.mark.parametrize("other", OTHERS)
def test_the_config_of_another_run_is_refused(other, runs, whole):
    shutil.copy(runs.others[other] / "config.yaml", whole.config)
    with pytest.raises(ConfigError, match="not the config this directory is named by"):
        runs.evaluate(whole.path)
    assert not [run for run in [read_run(whole)] if run.complete]  # the numbers are not those of this config


def test_a_damaged_config_is_not_passed_over_as_a_classifiers(runs, whole):
    """In a folder of runs, of which those of classifiers are left out."""
    shutil.copytree(runs.others["seed"], whole.path.parent / runs.others["seed"].name)
    edit(whole, "\nbeta:", "\nbeta_:")
    with pytest.raises(FmvaeError):
        evaluate_runs({**copy.deepcopy(runs.evaluation), "run": str(whole.path.parent)})


def test_the_way_out_of_a_damaged_config_leads_out(runs, whole):
    """A complete run's, too."""
    whole.config.write_bytes(whole.config.read_bytes()[:100])
    with pytest.raises(ConfigError, match="run the training command again, it rewrites the file"):
        runs.evaluate(whole.path)
    runs.train(whole)
    runs.evaluate(whole.path)


# --- what is written from other things ------------------------------------------------------------------------

DERIVED = ("status.json", "metrics.jsonl", "timing.json", "overrides.yaml", "config.yaml", *RECORDS)


def half(content: bytes, *_: bytes) -> bytes:
    return content[: len(content) // 2]


def nothing(*_: bytes) -> bytes:
    return b""


def a_bit(content: bytes, *_: bytes) -> bytes:
    return flipped(content, 4 * len(content))


def of_another_seed(content: bytes, seed: bytes, model: bytes) -> bytes:
    return seed


def of_another_model(content: bytes, seed: bytes, model: bytes) -> bytes:
    return model


HARMS = [half, a_bit, of_another_seed, of_another_model]


def harm(run: RunDirectory, name: str, how: Callable[..., bytes], runs: Runs) -> None:
    source = (run.path if (run.path / name).exists() else runs.whole) / name
    others = [(other / name).read_bytes() for other in runs.others.values()]
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_bytes(how(source.read_bytes(), *others))


@pytest.mark.parametrize("how", HARMS)
def test_a_stopped_run_ends_with_the_same_bytes_whatever_became_of_its_files(how, runs, stopped):
    """All but its checkpoints, which alone it resumes from; together, as none is read with another."""
    for name in DERIVED:
        harm(stopped, name, how, runs)
    runs.train(stopped)
    assert written(stopped) == written(RunDirectory(runs.whole))
    assert stopped.overrides.read_text() == "[]\n"
    assert identified(stopped) == semantic(runs.config)
    assert stopped.state(runs.sha256) == "complete"


def test_negative_control_metrics_that_are_not_written_anew_are_seen(runs, stopped, monkeypatch):
    harm(stopped, "metrics.jsonl", half, runs)
    monkeypatch.setattr(Recorder, "write_history", lambda *_: None)
    runs.train(stopped)
    assert written(stopped) != written(RunDirectory(runs.whole))


@pytest.mark.parametrize("how", HARMS[:3])
@pytest.mark.parametrize(
    "name",
    [
        "status.json",
        "results.json",
        "metrics.jsonl",
        "timing.json",
        "overrides.yaml",
    ],
)
@pytest.mark.one_in(2)
def test_training_a_complete_run_again_ends_with_the_same_bytes(name, how, runs, whole):
    harm(whole, name, how, runs)
    assert runs.train(whole) == read_record(runs.whole / "results.json")
    assert written(whole) == written(RunDirectory(runs.whole))


@pytest.mark.parametrize("how", HARMS[:3])
@pytest.mark.parametrize("name", [*RECORDS, "status.json", "timing.json", "overrides.yaml"])
@pytest.mark.one_in(2)
def test_evaluating_a_complete_run_again_ends_with_the_same_bytes(name, how, runs, whole):
    harm(whole, name, how, runs)
    assert runs.evaluate(whole.path) == read_record(runs.whole / "results.json")
    assert written(whole) == written(RunDirectory(runs.whole))


def test_a_damaged_status_never_makes_a_run_complete_that_is_not(runs, stopped):
    """What a stopped run says of itself may be lost; that it is continued, and what others are told, is not."""
    for n, (name, damaged) in enumerate(damages(stopped.status.read_bytes())):
        stopped.status.write_bytes(damaged)
        assert stopped.state(runs.sha256) == "partial", name
        if n % 10 == 0:
            left = progress(stopped)
            assert (left.state, left.results, read_run(stopped).complete) == ("partial", None, False)
            assert left.epoch >= 0


def test_a_damaged_status_of_a_complete_run_gives_its_own_results_or_none(runs, whole):
    def read() -> dict[str, Any] | None:
        assert whole.state(runs.sha256) in ("complete", "partial")
        return whole.final_results(runs.sha256)

    assert survey(whole.status, read).missed == []

    def report() -> Any:
        left, run = progress(whole), read_run(whole)
        assert run.complete == (left.state == "complete")
        return (left.results, run.scalars) if run.complete else None

    assert survey(whole.status, report, every=10).missed == []


def test_a_run_stopped_while_it_was_measured_is_not_complete_with_another_runs_status(runs, stopped, monkeypatch):
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Distances, "compute", killed)
        with pytest.raises(KeyboardInterrupt):
            runs.train(stopped)
    assert "fid" not in read_record(stopped.results)
    harm(stopped, "status.json", of_another_seed, runs)
    runs.train(stopped)
    assert written(stopped) == written(RunDirectory(runs.whole))


def test_no_damage_to_times_makes_more_than_a_forecast(whole):
    def read() -> bool:
        pace = Timing.read(whole).pace()
        return pace is None or 0 <= pace.seconds < 1e9

    assert survey(whole.timing, read).missed == []


@pytest.mark.parametrize("name", ["status.json", "timing.json"])
def test_a_file_of_brackets_is_a_damaged_one(name, runs, stopped):
    """Which Python's JSON reader ends with an error of its own kind."""
    (stopped.path / name).write_bytes(b"[" * 100_000)
    progress(stopped)
    read_run(stopped)
    runs.train(stopped)


# --- sweeps ---------------------------------------------------------------------------------------------------

ASKED = {"sweep_name=one": ["seed=0", "seed=1"], "sweep_name=two": ["seed=1", "model=conditional"]}


class Sweep(NamedTuple):
    directory: SweepDirectory
    plans: dict[str, Plan]
    configs: dict[tuple[str, ...], dict[str, Any]]

    def run(self) -> None:
        """Bring all its runs to their end, in this process."""

        def launch(jobs, first: int) -> None:
            for job in jobs:
                train(copy.deepcopy(self.configs[tuple(job)]))

        sweeping.run_sweep(self.directory, self.plans, launch, lambda folders: folders[0])


@pytest.fixture(scope="module")
def configs(runs) -> dict[tuple[str, ...], dict[str, Any]]:
    jobs = [(name, job) for name, jobs in ASKED.items() for job in jobs]
    return {job: compose([*runs.settings, *job]) for job in jobs}


@pytest.fixture
def sweeps(configs, tmp_path, monkeypatch) -> dict[str, Sweep]:
    monkeypatch.setattr(sweeping, "report", lambda *_: None)
    made = {}
    for name, jobs in ASKED.items():
        own = {(name, job): configs[name, job] | {"output_root": str(tmp_path)} for job in jobs}
        plans = dict(Plan.of(config, job, "composed") for job, config in own.items())
        made[name] = Sweep(SweepDirectory(tmp_path / name.removeprefix("sweep_name=")), plans, own)
        made[name].directory.path.mkdir()
        made[name].directory.add(plans)
    return made


def test_a_damaged_sweep_json_plans_nothing_and_is_made_again(sweeps):
    ours = sweeps["sweep_name=one"]
    whole = ours.directory.manifest.read_bytes()

    found = survey(ours.directory.manifest, lambda: ours.directory.planned() or None)
    assert found.missed == []
    assert len(found.noticed) > FLIPS

    def read() -> Any:
        planned = ours.directory.planned()
        ours.directory.add(ours.plans)
        assert ours.directory.planned() == ours.plans
        assert planned or ours.directory.manifest.read_bytes() == whole
        return planned or None

    assert survey(ours.directory.manifest, read, every=10).missed == []


def test_negative_control_without_the_digest_other_plans_are_read(sweeps, monkeypatch):
    monkeypatch.setattr(files, "digest", lambda _: Anything())
    directory = sweeps["sweep_name=one"].directory
    found = survey(directory.manifest, lambda: directory.planned() or None, every=10)
    assert len(found.missed) > FLIPS / 50


@pytest.mark.parametrize("how", HARMS)
def test_a_sweep_ends_with_the_same_results_whatever_its_sweep_json_says(how, sweeps, runs):
    ours, theirs = sweeps.values()
    manifest, other = ours.directory.manifest, theirs.directory.manifest.read_bytes()
    manifest.write_bytes(how(manifest.read_bytes(), other, other))
    ours.run()
    for name, expected in ((runs.whole.name, runs.whole), (runs.others["seed"].name, runs.others["seed"])):
        assert written(ours.directory.run(name)) == written(RunDirectory(expected))
        assert ours.directory.planned()[name].config_sha256 == ours.plans[name].config_sha256


# --- as whole commands ----------------------------------------------------------------------------------------


def test_train_py_falls_back_if_a_file_with_two_names_is_damaged(runs, stopped):
    """As a disk damages it: in place, and so ``last`` and ``best`` at once, where they are one file."""
    stopped.best.unlink()
    os.link(stopped.last, stopped.best)
    with stopped.last.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xaa")
    settings = [setting for setting in runs.settings if not setting.startswith("output_root")]
    output = succeeded(warmed().call("train.py", *settings, f"output_root={stopped.path.parent}"))
    for path in (stopped.last, stopped.best):
        assert f"{path}: its content does not match its digest; falling back" in output
    assert f"after epoch {VALIDATED} of {EPOCHS}" in output
    assert written(stopped) == written(RunDirectory(runs.whole))


@pytest.mark.parametrize(
    ("name", "how", "problem"),
    [
        ("checkpoints/best.safetensors", a_bit, "not a readable checkpoint"),
        ("checkpoints/best.safetensors", half, "not a readable checkpoint"),
        ("checkpoints/best.safetensors", of_another_seed, "a checkpoint of another config"),
        ("config.yaml", nothing, "not the config of a run"),
        ("config.yaml", half, "not "),
        ("config.yaml", of_another_seed, "not the config this directory is named by"),
    ],
)
def test_evaluate_py_refuses_in_one_line(name, how, problem, runs, whole):
    harm(whole, name, how, runs)
    before = snapshot(whole.path)
    refused(warmed().call("evaluate.py", f"run={whole.path}", *QUICK), f"{whole.path / name}: {problem}")
    assert snapshot(whole.path) == before


@pytest.mark.parametrize("how", [half, a_bit, of_another_model])
def test_train_py_refuses_a_damaged_dataset_in_one_line(how, runs, tmp_path):
    shutil.copytree(runs.config["data"]["root"], tmp_path / "data")
    path = tmp_path / "data" / FILES[0]
    path.write_bytes(how(path.read_bytes(), b"", path.with_name(FILES[2]).read_bytes()))
    settings = [setting for setting in runs.settings if not setting.startswith(("output_root", "data.root"))]
    finished = warmed().call(
        "train.py", *settings, f"data.root={tmp_path}/data", f"output_root={tmp_path}/outputs", "seed=3"
    )
    refused(finished, f"{path}: ", "is not the one asked for", "data.root=")
    assert snapshot(tmp_path / "outputs") == {".locks": ""} or not snapshot(tmp_path / "outputs")

"""The store: what is fitted once, what is never used, what is damaged, and what a user says wrong."""

import errno
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fmvae import rng
from fmvae.config import compose
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation import Evaluator
from fmvae.evaluation import partial as partial_results
from fmvae.evaluation.columns import SAMPLERS
from fmvae.evaluation.samplers import Sampler, SamplerStore, check_samplers, fit_settings
from fmvae.evaluation.samplers.network import NetworkSampler
from fmvae.evaluation.samplers.prior import PriorSampler
from fmvae.evaluation.samplers.registry import KINDS, NEWER
from fmvae.models import BaseVAE, ConditionalVAE, MixturePrior, encode_split
from fmvae.objectives import ELBO
from tests.evaluation.samplers.latents import generator

SETTINGS: dict[str, dict[str, Any]] = {
    "prior": {},
    "gmm": {"num_components": 2},
    "flow": {"transforms": 1, "hidden": [4], "bins": 4, "epochs": 4},
    "two_stage": {"hidden": [4], "epochs": 4},
    "aggregate": {},
}
STORED = ("gmm", "flow", "two_stage")


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """The names of the samplers that are fitted, in turn."""
    names: list[str] = []
    for kind in KINDS.values():

        def fit(self: Any, *given: Any, plain: Callable[..., None] = kind.fit) -> None:
            names.append(self.name)
            plain(self, *given)

        monkeypatch.setattr(kind, "fit", fit)
    return names


@pytest.fixture(scope="module")
def data(small_data) -> Any:
    return small_data(num_train=200, num_test=50)


def model_of(kind: Any = BaseVAE, **others: Any) -> Any:
    with rng.seeded_init(0):
        return kind(2, hidden_dim=16, **others).eval()


def store(
    folder: Path | None, data: Any, checkpoint: str = "aa", seed: int = 3, model: Any = None
) -> SamplerStore:
    return SamplerStore(folder, model or model_of(), data, seed=seed, checkpoint_sha256=checkpoint)


def draw(sampler: Sampler) -> torch.Tensor:
    return sampler.sample(20, torch.arange(20) % 10, generator())


# --- once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORED)
def test_a_fit_is_made_once_and_is_the_same_in_another_process(name, data, tmp_path, fits):
    first = store(tmp_path / "samplers", data)
    with torch.inference_mode():  # as within a measure
        made = first.get(name, SETTINGS[name])
        assert first.get(name, dict(SETTINGS[name])) is made
    with torch.inference_mode():
        loaded = store(tmp_path / "samplers", data).get(name, SETTINGS[name])
    assert fits == [name]
    assert loaded is not made
    assert torch.equal(draw(loaded), draw(made))
    assert loaded.state()[1] == made.state()[1]
    assert [path.name for path in (tmp_path / "samplers").iterdir()] == [f"{name}.safetensors"]


def test_what_needs_no_file_has_none(data, tmp_path, fits):
    for name in ("prior", "aggregate"):
        draw(store(tmp_path, data).get(name))
        with pytest.raises(RunError, match=rf"^sampler {name}: it has no file"):
            store(tmp_path, data).read(name)
    memory = store(None, data)
    for name in STORED:
        assert memory.get(name, SETTINGS[name]) is memory.get(name, SETTINGS[name])
    assert fits == ["aggregate", *STORED]
    assert list(tmp_path.iterdir()) == []


def test_a_fit_is_of_the_training_posteriors(data):
    found = store(None, data).get("gmm", {"num_components": 1}).state()[0]
    mu = encode_split(model_of(), data.train).mu.double()
    torch.testing.assert_close(found["0.means"][0], mu.mean(0), rtol=0, atol=1e-12)
    assert (mu.mean(0) - encode_split(model_of(), data.test).mu.double().mean(0)).abs().max() > 1e-6


# --- never another's ------------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[Callable[..., SamplerStore], dict[str, Any], str]] = {
    "checkpoint": (lambda f, d: store(f, d, checkpoint="bb"), {"num_components": 2}, "another checkpoint"),
    "seed": (lambda f, d: store(f, d, seed=4), {"num_components": 2}, "another seed"),
    "settings": (store, {"num_components": 3}, "other settings"),
    "a list": (store, {"num_components": [2]}, "other settings"),
}


@pytest.mark.parametrize(("other", "settings", "told"), OTHERS.values(), ids=OTHERS)
def test_a_file_of_anything_else_is_not_used_and_is_replaced(other, settings, told, data, tmp_path, fits):
    usual = {"num_components": 2}
    store(tmp_path, data).get("gmm", usual)
    with pytest.raises(RunError, match=rf"gmm\.safetensors: a sampler of {told}; ") as caught:
        other(tmp_path, data).read("gmm", settings)
    assert "\n" not in str(caught.value)
    other(tmp_path, data).get("gmm", settings)
    other(tmp_path, data).get("gmm", settings)
    assert fits == ["gmm"] * 2
    with pytest.raises(RunError, match="a sampler of"):
        store(tmp_path, data).read("gmm", usual)


def test_other_data_are_another_fit(data, small_data, tmp_path, fits):
    store(tmp_path, data).get("gmm", SETTINGS["gmm"])
    other = small_data(num_train=200, num_test=50)
    other.sha256 = {**other.sha256, "train": "00"}
    with pytest.raises(RunError, match="a sampler of other data"):
        store(tmp_path, other).read("gmm", SETTINGS["gmm"])
    store(tmp_path, other).get("gmm", SETTINGS["gmm"])
    assert fits == ["gmm"] * 2


@pytest.mark.parametrize("name", STORED)
def test_a_damaged_file_is_noticed_and_fitted_again(name, data, tmp_path, fits, caplog):
    made = store(tmp_path, data).get(name, SETTINGS[name])
    path, usual = tmp_path / f"{name}.safetensors", (tmp_path / f"{name}.safetensors").read_bytes()
    step, content = max(1, len(usual) // 12), b""
    for place in [*range(0, len(usual), step), len(usual) - 1]:
        content = bytearray(usual)
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(RunError) as caught:
            store(tmp_path, data).read(name, SETTINGS[name])
        assert "\n" not in str(caught.value)
    path.write_bytes(content)
    caplog.clear()
    again = store(tmp_path, data).get(name, SETTINGS[name])
    assert fits == [name] * 2
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].endswith("fitted anew")
    assert path.read_bytes() == usual
    assert torch.equal(draw(again), draw(made))
    path.write_bytes(usual[: len(usual) // 2])
    store(tmp_path, data).get(name, SETTINGS[name])
    assert path.read_bytes() == usual


def test_a_file_that_only_looks_like_a_sampler_is_refused(data, tmp_path):
    from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint

    store(tmp_path, data).get("gmm", SETTINGS["gmm"])
    path = tmp_path / "gmm.safetensors"
    tensors, meta, _ = load_checkpoint(path)
    for changed, told in [
        ({**tensors, "0.means": tensors["0.means"][:1]}, "not a fit of gmm"),
        ({}, "not a fit of gmm"),
    ]:
        save_checkpoint(path, changed, meta)
        with pytest.raises(RunError, match=told):
            store(tmp_path, data).read("gmm", SETTINGS["gmm"])
    save_checkpoint(path, tensors, {"epoch": 3})
    with pytest.raises(RunError, match="not the file of a sampler"):
        store(tmp_path, data).read("gmm", SETTINGS["gmm"])


# --- disks, kills, processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flow", "two_stage"])
def test_a_killed_fit_goes_on_from_its_file(name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(partial_results, "SECONDS", 0.0)
    usual = store(tmp_path / "whole", data).get(name, SETTINGS[name])
    epochs, plain = [], NetworkSampler._held_out

    def killed_after(num: int) -> None:
        def held_out(*given: Any) -> float:
            if len(epochs) == num:
                raise KeyboardInterrupt
            epochs.append(1)
            return plain(*given)

        epochs.clear()
        monkeypatch.setattr(NetworkSampler, "_held_out", held_out)

    killed_after(3)
    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        store(folder, data).get(name, SETTINGS[name])
    (partial,) = folder.iterdir()
    assert partial.name == f"{name}.partial.safetensors"
    killed_after(9)
    kept = partial.read_bytes()
    for checkpoint, trained in (("aa", 1), ("bb", 4)):  # of another checkpoint, it begins anew
        partial.write_bytes(kept)
        epochs.clear()
        made = store(folder, data, checkpoint).get(name, SETTINGS[name])
        assert len(epochs) == trained
        assert torch.equal(draw(made), draw(usual))
        assert [path.name for path in folder.iterdir()] == [f"{name}.safetensors"]
    partial.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))  # damaged
    epochs.clear()
    made = store(folder, data).get(name, SETTINGS[name])
    assert len(epochs) == 4
    assert (folder / f"{name}.safetensors").read_bytes() == (
        tmp_path / "whole" / f"{name}.safetensors"
    ).read_bytes()


def test_two_at_once_make_one_file(data, tmp_path, caplog):
    """Both fit, as neither sees the other's file; the second begins and ends while the first computes."""
    inner: list[Sampler] = []

    class Overtaken(SamplerStore):
        def _loaded(self, sampler: Sampler) -> Sampler | None:
            found = super()._loaded(sampler)
            worker = threading.Thread(
                target=lambda: inner.append(store(tmp_path, data).get("gmm", SETTINGS["gmm"]))
            )
            worker.start()
            worker.join()
            return found

    outer = Overtaken(tmp_path, model_of(), data, seed=3, checkpoint_sha256="aa").get("gmm", SETTINGS["gmm"])
    assert torch.equal(draw(outer), draw(inner[0]))
    assert torch.equal(draw(store(tmp_path, data).read("gmm", SETTINGS["gmm"])), draw(outer))
    assert len(list(tmp_path.iterdir())) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_fit_of_weights_that_were_edited_is_not_kept_as_the_checkpoints(data, tmp_path, fits):
    model = model_of()
    ours = store(tmp_path, data, model=model)
    before, written = draw(ours.get("gmm", SETTINGS["gmm"])), (tmp_path / "gmm.safetensors").read_bytes()
    with torch.no_grad():
        model.mu.bias.add_(5)
    assert draw(ours.get("gmm", SETTINGS["gmm"])).mean() > before.mean() + 3
    assert fits == ["gmm", "gmm"]
    assert (tmp_path / "gmm.safetensors").read_bytes() == written
    with torch.no_grad():
        model.mu.bias.sub_(5)
    (again := store(tmp_path, data, model=model)).get(
        "gmm", SETTINGS["gmm"]
    )  # control: as the checkpoint has them
    assert torch.equal(draw(again.get("gmm", SETTINGS["gmm"])), before)
    assert fits == ["gmm", "gmm"]


def test_a_folder_that_may_not_be_written_keeps_fits_in_memory(data, tmp_path, monkeypatch, caplog):
    def refused(number: int) -> None:
        def write(*_: Any) -> None:
            raise OSError(number, "said by the disk", "x")

        monkeypatch.setattr("fmvae.evaluation.samplers.store.save_checkpoint", write)

    refused(errno.EROFS)
    kept = store(tmp_path, data)
    made = kept.get("gmm", SETTINGS["gmm"])
    assert kept.get("gmm", SETTINGS["gmm"]) is made
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"{tmp_path / 'gmm.safetensors'}: said by the disk; the fit is kept in memory only"
    ]
    refused(errno.ENOSPC)
    with pytest.raises(OSError, match="said by the disk"):
        store(tmp_path, data).get("gmm", SETTINGS["gmm"])


def test_the_two_checkpoints_of_a_run_have_folders_of_their_own(data, tmp_path, fits):
    for folder, checkpoint in ((tmp_path, "aa"), (tmp_path / "last", "bb")) * 2:
        store(folder, data, checkpoint).get("gmm", SETTINGS["gmm"])
    assert fits == ["gmm"] * 2


def test_a_new_fit_removes_what_an_earlier_checkpoint_left(data, tmp_path):
    for name in STORED:
        store(tmp_path, data, "aa").get(name, SETTINGS[name])
    (tmp_path / "flow.partial.safetensors").write_bytes((tmp_path / "flow.safetensors").read_bytes())
    (tmp_path / "two_stage.partial.safetensors").write_bytes(b"damaged")
    (tmp_path / "last").mkdir()
    store(tmp_path / "last", data, "cc").get("gmm", SETTINGS["gmm"])

    def files() -> list[str]:
        return sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.safetensors"))

    before = files()
    store(tmp_path, data, "aa").get("gmm", {"num_components": 3})  # control: of the same checkpoint, all stay
    assert files() == before
    store(tmp_path, data, "bb").get("gmm", SETTINGS["gmm"])
    assert files() == ["gmm.safetensors", "last/gmm.safetensors", "two_stage.partial.safetensors"]


# --- the prior ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["standard", "mixture", "learned of each class"])
def test_the_prior_is_the_models_own_to_all_digits(kind, data):
    model = model_of(ConditionalVAE, prior="learned") if kind.startswith("learned") else model_of()
    if kind == "mixture":
        with rng.seeded_init(1):
            model.latent_prior = MixturePrior(2, 3)
    sampler = store(None, data, model=model).get("prior")
    labels = torch.arange(20) % 10
    z = sampler.sample(20, labels, generator())
    assert z.dtype == torch.float64
    own = model.sample(20, labels, generator=generator())
    assert torch.equal(model.decode(z.float(), labels), own)
    assert not torch.equal(model.decode(sampler.sample(20, labels, generator(1)).float(), labels), own)
    with torch.no_grad():
        expected = model.prior_density().log_prob(z)
        assert torch.equal(sampler.log_prob(z, labels), expected)


# --- the config -----------------------------------------------------------------------------------------------


def test_names_are_known_in_one_order():
    assert set(SAMPLERS) == {PriorSampler.name, *KINDS}
    usual, fast = (compose(chosen)["evaluation"] for chosen in ([], ["evaluation=fast"]))
    assert (usual["samplers"], fast["samplers"]) == (["prior", "gmm"], [])
    for name, kind in KINDS.items():  # the files hold every setting, and none that is not one
        made = kind(0, **usual.get(name, {}))
        assert json.loads(json.dumps(made.settings | made.drawing)) == fit_settings(usual, name)
        assert usual.get(name, {}) == fit_settings(usual, name) | NEWER.get(name, {})


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "samplers=[prior,gnn]",
            r"\['prior', 'gnn'\] is not a list of prior, gmm, flow, two_stage, aggregate; leave",
        ),
        ("samplers=gmm", "'gmm' is not a list of prior"),
        ("gmm.num_components=0", "0 is not a whole number >= 1"),
        ("gmm.num_components=[]", r"\[\] is not a whole number >= 1 and <= 100000 or a list of such"),
        ("gmm.num_component=3", "there is no such key; did you mean evaluation.gmm.num_components"),
        ("flow.bins=1", "1 is not a whole number >= 2"),
    ],
)
def test_what_is_wrong_is_said_while_composing(override, told):
    with pytest.raises(ConfigError, match=rf"^evaluation\.[a-z_.]+: {told}"):
        compose([f"{'+' if 'component=' in override else ''}evaluation.{override}"])


def test_what_does_not_fit_the_data_is_said_before_training(data):
    def evaluation(*overrides: str) -> dict[str, Any]:
        return compose([*overrides, "evaluation.cache=null", "evaluation.accuracy.num_per_class=0"])["evaluation"]

    asked = evaluation("evaluation.gmm.num_components=101")
    model, conditional = model_of(), model_of(ConditionalVAE)
    images = len(data.train)
    with pytest.raises(
        ConfigError, match=rf"^evaluation\.gmm\.num_components: 101 .* {images} training images; give"
    ):
        Evaluator(model, ELBO(), data, seed=0, settings=asked)
    smallest = int(torch.bincount(data.train.labels).min())
    with pytest.raises(ConfigError, match=f"{smallest} training images of the smallest class; give"):
        check_samplers(evaluation(f"evaluation.gmm.num_components={smallest + 1}"), conditional, data)
    check_samplers(evaluation(f"evaluation.gmm.num_components={smallest}"), conditional, data)
    check_samplers(evaluation(), conditional, data)  # the default always has a number that fits
    check_samplers({**asked, "samplers": ["prior"]}, model, data)
    with pytest.raises(
        ConfigError, match=r"^evaluation\.samplers: there is no sampler 'gnn'; choose from prior, gmm"
    ):
        store(None, data).get("gnn")

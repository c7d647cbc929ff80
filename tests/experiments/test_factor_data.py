"""Data with factors, as configs name them: trained in every unconditional model, named by definition, stacked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmvae.assembly import assemble, build_data
from fmvae.config import compose
from fmvae.config.identity import RunIdentity
from fmvae.data import DSprites, FashionFactors, Shapes3D, Sprites
from fmvae.data.split import to_float
from fmvae.errors import ConfigError
from fmvae.experiments import stackable, train, train_together
from fmvae.runs.directory import find_runs
from tests.factor_files import dsprites_arrays, shapes_arrays, stand_in_h5py, write_dsprites, write_shapes
from tests.idx import write_idx_dataset

CPU = torch.device("cpu")
UNCONDITIONAL = ("base", "beta", "conv", "gated", "residual")
KINDS = {"sprites": Sprites, "fashion_factors": FashionFactors, "dsprites": DSprites, "shapes3d": Shapes3D}


@pytest.fixture
def configured(tmp_path, monkeypatch) -> Callable[..., dict[str, Any]]:
    """The config of a short run on one of the datasets: the real ones, or small files of 64x64 pixels."""
    stand_in_h5py(monkeypatch)
    writers = {
        "dsprites": lambda path: write_dsprites(path / DSprites.file, tmp_path / "bomb", **dsprites_arrays(64)),
        "shapes3d": lambda path: write_shapes(path / Shapes3D.file, **shapes_arrays(64)),
        "fashion_factors": lambda path: write_idx_dataset(path, 200, 20),
    }

    def make(data: str, *overrides: str) -> dict[str, Any]:
        files = tmp_path / data
        usual = [f"data={data}", "data.num_train=60", "data.val_size=20", "data.num_test=30", "data.batch_size=20"]
        usual += ["trainer.epochs=1", "device=cpu", "threads=1", "trainer.progress=false"]
        usual += [f"output_root={tmp_path / 'outputs'}", "evaluation=fast", "evaluation.fid.num_images=0"]
        config = compose([*usual, *overrides])
        if data in writers:
            files.mkdir(exist_ok=True)
            config["data"] |= {"root": str(files), "sha256": writers[data](files)}
        return config

    return make


def run_of(tmp_path: Path) -> Path:
    (run,) = find_runs(tmp_path / "outputs")
    return run.path


@pytest.mark.parametrize(
    ("data", "model"),
    [("sprites", "beta"), ("fashion_factors", "conv"), ("dsprites", "base"), ("shapes3d", "residual")],
)
@pytest.mark.one_in(4)
def test_from_the_command_to_results_and_figures(tmp_path, configured, data, model):
    config = configured(data, f"model={model}", "latent_dim=3")
    results = train(config)
    assert np.isfinite(results["test"]["neg_elbo"])
    built = build_data(config, CPU)
    assert type(built) is KINDS[data]
    assert results["provenance"]["data_sha256"] == built.sha256
    drawn = {path.stem for path in (run_of(tmp_path) / "figures").glob("*.png")}
    assert {"reconstructions", "samples", "traversal_prior"} <= drawn
    assert train(config) == results  # complete: shown


@pytest.mark.parametrize("data", ["sprites", "shapes3d"])
@pytest.mark.parametrize("model", UNCONDITIONAL)
@pytest.mark.one_in(3)
def test_every_unconditional_model_takes_32_and_64_pixels_grey_and_in_colour(configured, data, model):
    parts = assemble(configured(data, f"model={model}", "latent_dim=4"), CPU)
    shape = {"sprites": (1, 32, 32), "shapes3d": (3, 64, 64)}[data]
    x = to_float(parts.data.train.images[:8])
    assert x.shape[1:] == parts.data.image_shape == shape
    before = [parameter.clone() for parameter in parts.model.parameters()]
    losses = []
    optimizer = torch.optim.Adam(parts.model.parameters(), lr=1e-4)
    for _ in range(6):
        output = parts.model(x, None)
        assert output.logits.shape == x.shape
        loss = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = [not torch.equal(a, b) for a, b in zip(before, parts.model.parameters(), strict=True)]
    assert sum(moved) > 0.8 * len(moved)


def test_a_conditional_model_takes_garments_and_no_sprites(configured):
    assemble(configured("fashion_factors", "model=conditional"), CPU)
    with pytest.raises(
        ConfigError, match=r"^model: ConditionalVAE takes labels, but Sprites has none; choose a model"
    ):
        configured("sprites", "model=conditional")  # while composing: the first run of a sweep has not begun


@pytest.mark.slow
def test_runs_over_seeds_are_stacked(tmp_path, configured):
    configs = [
        configured("sprites", f"seed={seed}", f"latent_dim={z}", "sweep_name=s") for seed, z in ((0, 2), (1, 3))
    ]
    assert len({stackable(config) for config in configs}) == 1
    assert stackable(configured("sprites", "data.apart=[shape]", "data.val_size=10")) != stackable(configs[0])
    results = [found for found in train_together([(config, []) for config in configs]) if isinstance(found, dict)]
    assert len(results) == 2
    alone = train(configured("sprites", "seed=1", "latent_dim=3"))
    assert results[1]["test"]["neg_elbo"] == pytest.approx(alone["test"]["neg_elbo"], rel=1e-3)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", KINDS)
@pytest.mark.one_in(2)
def test_the_definition_names_the_run_and_the_cache_does_not(data):
    def name(*overrides: str) -> str:
        return RunIdentity.of(compose([f"data={data}", *overrides])).name

    assert name("data.cache=/somewhere") == name()
    for other in ("data.apart=[shape]", "data.num_test=5", "data.num_train=7"):
        assert name(other) != name(), other
    key = "version" if data in ("sprites", "fashion_factors") else "root"
    assert (name(f"data.{key}=2") == name()) == (key == "root")
    assert KINDS[data].named_by_config


@pytest.mark.parametrize("data", KINDS)
def test_what_the_config_says_of_images_must_be_so(configured, data):
    config = configured(data)
    config["data"] |= {"image_shape": [1, 28, 28]}
    with pytest.raises(
        ConfigError, match=r"^data\.image_shape: \[1, 28, 28\], but the data have \[[13], .*; set data"
    ):
        build_data(config, CPU)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.apart=shape", r"data\.apart: 'shape' is not a list of texts, as \[a,b\] or null"),
        ("data.version=0", r"data\.version: 0 is not a whole number >= 1"),
        ("data.cache=3.5", r"data\.cache: 3\.5 is not a path"),
        ("+data.binarize=static", r"data\.binarize: there is no such key; .*"),
        ("+data.sha256=x", r"data\.sha256: there is no such key; .*"),
    ],
)
def test_wrong_values_are_told_in_one_line(override, message):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        compose(["data=sprites", override])
    assert "\n" not in str(caught.value)

"""28 x 28 pixels in Chromium against torch for every model; draws against their samplers and priors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fmvae.config import compose
from fmvae.experiments import train
from fmvae.explore.__main__ import explore
from fmvae.measurement.load import load_run
from fmvae.measurement.sampling import settings_of
from fmvae.models import VAE, BaseVAE, BetaVAE, ConditionalVAE, ConvVAE, GatedVAE, ResidualVAE
from tests.browser import Tab
from tests.explore.helpers import stirred, subject, written
from tests.explore.test_page import PROMISED, difference
from tests.idx import write_idx_dataset

pytestmark = pytest.mark.slow

FULL = (1, 28, 28)
# a model, and for how many z: residual decoders take longer in a page
MODELS: dict[str, tuple[Callable[[], VAE], int]] = {
    "base": (lambda: BaseVAE(10), 1000),
    "beta": (lambda: BetaVAE(10), 1000),
    "beta_bn_relu": (lambda: BetaVAE(10, "bn_relu"), 1000),
    "gated": (lambda: GatedVAE(40), 1000),
    "conv": (lambda: ConvVAE(10), 1000),
    "residual_batch": (lambda: ResidualVAE(10, 32, 1, "batch", FULL), 100),
    "residual_group": (lambda: ResidualVAE(10, 32, 1, "group", FULL), 100),
    "conditional": (lambda: ConditionalVAE(8, 3, "mlp"), 1000),
    "conditional_learned": (lambda: ConditionalVAE(8, 3, "mlp", 400, "learned"), 1000),
    "conditional_conv": (lambda: ConditionalVAE(8, 3, "conv"), 1000),
    "conditional_residual_batch": (lambda: ConditionalVAE(8, 3, "residual", norm="batch"), 100),
    "conditional_residual_group": (lambda: ConditionalVAE(8, 3, "residual", norm="group"), 100),
}


@pytest.mark.parametrize("name", MODELS)
def test_pixels_of_full_size_are_torchs(tab: Tab, tmp_path, name: str):
    make, num = MODELS[name]
    one = subject(stirred(make()))
    page = tab.open(written(tmp_path, one))
    largest = difference(page, one, num)
    print(f"{name}: {largest:.1e} at {num} z")
    assert largest < PROMISED
    assert (tab.requests, tab.errors) == ([], [])
    # control: a constant that is wrong by a tenth is seen
    page.evaluate("() => { for (const one of explorer.runs[0].decoder.constants.at(-1)) one[0] += 0.1; }")
    assert difference(page, one, 20) > PROMISED


# --- draws ----------------------------------------------------------------------------------------------------

DRAWS, HELD, SIGMAS = 4000, 256, 5  # of the page; that the page holds; within which a mean or covariance must be
DRAW = """([source, num]) => Array.from({ length: num }, () => {
  explorer.state.draw(source);
  return Array.from(explorer.runs[0].z);
})"""
SMALL = [
    "evaluation.gmm.num_components=3",
    "evaluation.flow={transforms:2,hidden:[16],bins:6,epochs:2}",
    "evaluation.two_stage={hidden:[16,16],epochs:2}",
]


def trained(root: Path, *overrides: str) -> Path:
    """The directory of a run of two epochs."""
    sha256 = write_idx_dataset(root / "data", 400, 200)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    data = [f"data.root={root}/data", f"data.sha256={{{digests}}}", "data.download=false", "data.val_size=50"]
    quick = ["evaluation=fast", "evaluation.cache=null", "figures=none", "trainer.epochs=2", "device=cpu"]
    given = ["model.hidden_dim=16", "latent_dim=3", f"output_root={root}/outputs", *overrides]
    train(compose([*data, *quick, *SMALL, *given]))
    (config,) = root.glob("outputs/*/config.yaml")
    return config.parent


def differs(found: np.ndarray, wanted: np.ndarray, num: int) -> float:
    """The largest difference of means and covariances, in standard errors of ``num`` draws of ``wanted``."""
    scale = wanted.std(0)
    found, wanted = (found - wanted.mean(0)) / scale, (wanted - wanted.mean(0)) / scale
    means = np.abs(found.mean(0)) * np.sqrt(num)
    products = wanted[:, :, None] * wanted[:, None, :]
    of_found = (found[:, :, None] * found[:, None, :]).mean(0)
    covariances = np.abs(of_found - products.mean(0)) * np.sqrt(num) / products.std(0)
    return float(max(means.max(), covariances.max()))


def check(page, source: str, wanted: torch.Tensor, held: int, label: int = 0) -> None:
    """Compare the page's draws with ``wanted``, many draws of the density itself; ``held`` are in the page."""
    page.evaluate("(label) => explorer.state.choose(label)", label)
    found = np.array(page.evaluate(DRAW, [source, DRAWS]))
    exact = wanted.double().numpy()
    assert len(np.unique(found, axis=0)) == held  # each draw that the page holds is drawn
    print(f"{source}, class {label}: {differs(found, exact, held):.1f} standard errors")
    assert differs(found, exact, held) < SIGMAS
    # controls: draws that are moved by a standard deviation, and twice as wide
    assert differs(found + exact.std(0), exact, held) > SIGMAS
    assert differs(2 * (found - found.mean(0)) + found.mean(0), exact, held) > SIGMAS


@pytest.mark.parametrize("model", ["base", "conditional"])
def test_draws_are_those_of_the_fitted_samplers(tab: Tab, tmp_path, model: str):
    run = trained(tmp_path, f"model={model}")
    loaded = load_run(run)
    store, samplers = loaded.parts.evaluator.context.samplers, {}
    for name in ("gmm", "flow", "two_stage"):
        samplers[name] = store.get(name, settings_of(loaded.results, loaded.config["evaluation"], name))
    page = tab.open(explore([str(run)]))
    assert page.locator("#source option").count() == 4
    conditional, generator = loaded.parts.visualizer.conditional, torch.Generator().manual_seed(99)
    classes = loaded.parts.data.num_classes
    held = max(32, HELD // classes) if conditional else HELD
    for name, sampler in samplers.items():
        for label in (0, 5) if conditional else (0,):
            labels = torch.full((20_000,), label) if conditional else None
            with torch.no_grad():
                check(page, name, sampler.sample(20_000, labels, generator), held, label)
    check(page, "prior", torch.randn(20_000, 3, generator=generator), DRAWS)
    assert (tab.requests, tab.errors) == ([], [])


@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
def test_draws_are_those_of_the_learned_prior(tab: Tab, tmp_path, prior: str):
    few = {"mixture": "prior.num_components=3", "vamp": "prior.num_components=10", "flow": "prior.hidden=[16]"}
    run = trained(tmp_path, "model=base", f"prior={prior}", few[prior])
    model = load_run(run).parts.visualizer.model.eval()
    with torch.no_grad():
        wanted = model.prior_density().sample(20_000, torch.Generator().manual_seed(99))
    check(tab.open(explore([str(run)])), "prior", wanted.float(), HELD)
    assert (tab.requests, tab.errors) == ([], [])

"""``evaluation.extractor.precision=auto``: one choice for all runs, by numbers that other code confirms."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch
from torch import Tensor

from fmvae import rng
from fmvae.config import compose
from fmvae.data import Split
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator
from fmvae.evaluation import measure as given
from fmvae.evaluation import precision as module
from fmvae.evaluation.columns import numbers
from fmvae.evaluation.features import Features, Precision, resnet_identity
from fmvae.evaluation.measures import accuracy, fid
from fmvae.evaluation.precision import AutoFeatures, blurred_images
from fmvae.models import ConditionalVAE, FashionResNet18
from fmvae.objectives import ELBO, Bernoulli, Constant

DIMS, CHECKED, NUM = 20, 150, 320


class Scaled:
    """Random projections of images. In bf16 they are longer by a factor, and so distances by its square."""

    name = "resnet18"
    factor = 1.0
    calls: list[str]

    def __init__(self, precision: Precision, factor: float | None = None, sha256: str = "ab"):
        self.identity = resnet_identity(sha256, precision)
        self.scale = (self.factor if factor is None else factor) if precision == "bf16" else 1.0

    def __call__(self, batches: Iterable[Tensor], what: str = "", num: int = 0) -> Features:
        self.calls.append(f"{self.identity['precision']} {what}")
        x = torch.cat(list(batches)).flatten(1)
        assert len(x) == num
        weights = torch.randn(x.shape[1], DIMS, generator=rng.stream(0, "init"))
        projected = (x @ weights * self.scale).numpy()
        return Features(projected, projected[:, :10])


@pytest.fixture(autouse=True)
def small(monkeypatch) -> list[str]:
    """Sizes at which a distance takes no time, and units for bf16; what features were computed of, in order."""
    monkeypatch.setattr(module, "CHECK_IMAGES", CHECKED)
    monkeypatch.setattr(FashionResNet18, "num_features", DIMS)
    monkeypatch.setattr(module, "has_bf16", lambda device: True)
    calls: list[str] = []
    monkeypatch.setattr(Scaled, "calls", calls, raising=False)
    return calls


@pytest.fixture
def test_images(small_data) -> Split:
    return small_data(num_test=400).test


def auto(test: Split, factor: float, *, num: int = NUM, cache: Path | None = None) -> AutoFeatures:
    return AutoFeatures(lambda precision: Scaled(precision, factor), test, num, cache)


def chosen(features: AutoFeatures) -> str:
    assert (features.precision_check is None) == (features.identity["precision"] == "fp32")
    return features.identity["precision"]


# --- the numbers ----------------------------------------------------------------------------------------------


def by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root: Any = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return shift + np.trace(covariances[0] + covariances[1] - 2 * root.real)


def both_sides(test: Split) -> tuple[np.ndarray, np.ndarray]:
    """Features of images in their order of choice, and of as many others, blurred: by other code."""
    order = torch.randperm(len(test), generator=rng.stream(0, "evaluation")).numpy()
    pixels = test.images.numpy()[order][: 2 * CHECKED, 0].astype(np.float64) / 255
    blurred = [scipy.ndimage.gaussian_filter(x, 1.0, mode="mirror", radius=3) for x in pixels[CHECKED:]]
    weights = torch.randn(28 * 28, DIMS, generator=rng.stream(0, "init")).double().numpy()
    sharp, others = (np.stack([*side]).reshape(CHECKED, -1) for side in (pixels[:CHECKED], blurred))
    return sharp @ weights, others @ weights


def test_the_check_is_what_other_code_computes(test_images):
    factor = 1.0005
    check = auto(test_images, factor).precision_check
    assert check is not None
    a, b = both_sides(test_images)
    assert set(check) == {"change", "standard_error", "num_images"}
    assert check["num_images"] == CHECKED
    assert check["change"] == pytest.approx((factor**2 - 1) * by_scipy(a, b), rel=1e-2)
    without = [by_scipy(a, np.delete(b, i, axis=0)) for i in range(CHECKED)]  # the jackknife of Tukey (1958)
    jackknife = np.std(without) * np.sqrt(CHECKED - 1)
    assert check["standard_error"] == pytest.approx(jackknife * np.sqrt(CHECKED / NUM), rel=0.1)


def test_negative_control_sharp_images_or_another_order_give_another_distance(test_images):
    a, b = both_sides(test_images)
    usual = by_scipy(a, b)
    unsorted = Split("test", test_images.images.flip(0), test_images.labels.flip(0))
    assert by_scipy(*both_sides(unsorted)) != pytest.approx(usual, rel=1e-2)
    assert by_scipy(a, a + 1e-9) != pytest.approx(usual, rel=1e-2)


@pytest.mark.parametrize("side", [2, 3, 28])
def test_blurring_leaves_constant_images_as_they_are_and_others_not(side):
    flat = torch.full((2, 1, side, side), 200, dtype=torch.uint8)
    assert torch.allclose(blurred_images(flat), torch.tensor(200 / 255))
    flat[0, 0, 0, 0] = 0
    assert not torch.allclose(blurred_images(flat)[0], flat[0].float() / 255, atol=1e-2)
    assert torch.allclose(blurred_images(flat)[1], torch.tensor(200 / 255))


# --- the choice -----------------------------------------------------------------------------------------------


def factor_for(share: float, test: Split, num: int = NUM) -> float:
    """The factor at which bf16 changes the distance by a share of the standard error that it has with ``num``."""
    probe = auto(test, 1 + 1e-9, num=num).precision_check
    assert probe is not None
    return float(np.sqrt(1 + share * probe["standard_error"] / by_scipy(*both_sides(test))))


@pytest.mark.parametrize(("share", "expected"), [(0.09, "bf16"), (-0.09, "bf16"), (0.11, "fp32"), (-0.11, "fp32")])
def test_bf16_is_taken_below_a_tenth_of_the_standard_error(share, expected, test_images):
    assert chosen(auto(test_images, factor_for(share, test_images))) == expected


def test_the_standard_error_is_that_of_the_measures_number_of_images(test_images):
    factor = factor_for(0.09, test_images, num=400)
    assert chosen(auto(test_images, factor, num=400)) == "bf16"
    assert chosen(auto(test_images, factor, num=200)) == "bf16"
    assert chosen(auto(test_images, factor, num=800)) == "fp32"


def test_without_units_nothing_is_computed_and_fp32_is_taken(test_images, small, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "fmvae")
    monkeypatch.setattr(module, "has_bf16", lambda device: False)
    assert chosen(auto(test_images, 1.0)) == "fp32"
    assert small == []
    assert "precision=auto of ab: fp32, as this cpu has no units for bf16" in caplog.text
    monkeypatch.setattr(module, "has_bf16", lambda device: True)
    assert chosen(auto(test_images, 1.0)) == "bf16"
    assert "auto of ab: bf16, as bf16 changes FID by 0, and its standard error is" in caplog.text


def test_with_too_few_images_to_tell_fp32_is_taken(test_images, small, caplog):
    caplog.set_level(logging.INFO, "fmvae")
    few = Split("test", test_images.images[: 2 * DIMS + 1], test_images.labels[: 2 * DIMS + 1])
    assert chosen(auto(few, 1.0)) == "fp32"
    assert small == []
    assert "41 test images are too few to try bf16" in caplog.text
    enough = Split("test", test_images.images[: 2 * DIMS + 2], test_images.labels[: 2 * DIMS + 2])
    assert chosen(auto(enough, 1.0)) == "bf16"


def test_features_are_of_the_chosen_precision(test_images):
    images = test_images.images[:5].float() / 255
    for factor, expected in ((1.0001, "bf16"), (1.5, "fp32")):
        made = auto(test_images, factor)([images], num=5).features
        assert chosen(auto(test_images, factor)) == expected
        one = Scaled(expected, factor)([images], num=5).features  # type: ignore[arg-type]
        assert np.array_equal(made, one)


def test_the_numbers_are_kept_in_the_cache_under_all_that_they_depend_on(
    test_images, small, tmp_path, monkeypatch
):
    def asks(factor: float = 1.0001, test: Split = test_images, num: int = NUM) -> bool:
        small.clear()
        found = auto(test, factor, num=num, cache=tmp_path).precision_check
        assert found == auto(test, factor, num=num, cache=None).precision_check
        return (
            len(small) > 4
        )  # four sets of images each time that it is computed; the second time is without a cache

    assert asks()
    assert not asks()
    assert not asks(num=200)  # which changes the threshold alone
    changed = Split("test", test_images.images.clone(), test_images.labels)
    changed.images[-1, 0, 0, 0] ^= 1
    assert asks(test=changed)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
        assert asks()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module, "CHECK_IMAGES", 100)
        assert asks()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module, "SIGMA", 0.9)
        assert asks()
    assert not asks()
    assert len(list(tmp_path.iterdir())) == 5


# --- in an evaluation -----------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(small_data, monkeypatch):
    """A function that measures a model on data with a seed: the evaluator and its blocks."""
    monkeypatch.setattr(given, "ResNetFeatures", lambda path, classes, precision, *_: Scaled(precision))
    for file in (fid, accuracy):
        monkeypatch.setattr(file, "MIN_RELIABLE", 400)

    def measure(
        seed: int = 0, *overrides: str, stored: Any = None, precision: str = "auto"
    ) -> tuple[Evaluator, Any]:
        data = small_data(num_train=700, val_size=100, num_test=400, seed=seed)
        vars(data)["content"] = "fashion-mnist"
        asked = ["evaluation.iwae.num_samples=0", "evaluation.latent=false", "evaluation.cache=null"]
        asked += ["evaluation.fid.features=[resnet18]", "evaluation.fid.num_images=320", *overrides]
        settings = compose([*asked, f"evaluation.extractor.precision={precision}"])["evaluation"]
        with rng.seeded_init(seed):
            model = ConditionalVAE(2, hidden_dim=8)
        made = Evaluator(model, ELBO(Bernoulli(), Constant(1.0)), data, seed=seed, settings=settings)
        return made, dict(made.measure(stored))

    return measure


def test_blocks_in_bf16_state_the_check_and_others_do_not(evaluated, monkeypatch):
    for factor, expected in ((1.0001, "bf16"), (1.5, "fp32")):
        monkeypatch.setattr(Scaled, "factor", factor)
        _, blocks = evaluated()
        assert {"fid/resnet18", "accuracy"} <= blocks.keys()
        for name in ("fid/resnet18", "accuracy"):
            assert blocks[name]["settings"]["precision"] == expected
            assert ("precision_check" in blocks[name]) == (expected == "bf16")
            assert "precision_check" not in blocks[name]["settings"]
            assert not [tag for tag, _ in numbers(blocks[name]) if "check" in tag]
            assert json.loads(json.dumps(blocks[name])) == blocks[name]
    for precision in ("fp32", "bf16"):  # what was asked for by name is not checked
        _, blocks = evaluated(precision=precision)
        assert blocks["fid/resnet18"]["settings"]["precision"] == precision
        assert "precision_check" not in blocks["fid/resnet18"]


def test_each_measure_compares_with_the_error_at_its_own_number_of_images(evaluated, monkeypatch):
    monkeypatch.setattr(Scaled, "factor", 1.0001)
    _, blocks = evaluated(0, "evaluation.accuracy.num_per_class=8")
    of_fid, of_accuracy = (blocks[name]["precision_check"] for name in ("fid/resnet18", "accuracy"))
    assert of_accuracy["change"] == of_fid["change"]
    assert of_accuracy["standard_error"] == pytest.approx(of_fid["standard_error"] * np.sqrt(320 / 80))


def test_runs_of_all_seeds_choose_alike(evaluated, monkeypatch):
    """Though they have other training images: tables refuse to compare two precisions."""
    monkeypatch.setattr(Scaled, "factor", 1.0001)
    found = [evaluated(seed)[1]["fid/resnet18"] for seed in (0, 1)]
    assert found[0]["generation"] != found[1]["generation"]
    assert found[0]["floor"] != found[1]["floor"]  # other training images
    assert found[0]["settings"] == found[1]["settings"]
    assert found[0]["precision_check"] == found[1]["precision_check"]


def test_a_stored_block_is_kept_and_none_of_another_precision(evaluated, monkeypatch, small):
    monkeypatch.setattr(Scaled, "factor", 1.0001)
    _, first = evaluated()
    small.clear()
    _, second = evaluated(stored=first)
    assert second == first
    assert not [call for call in small if "generated" in call]
    monkeypatch.setattr(Scaled, "factor", 1.5)  # another machine: it chooses fp32
    _, third = evaluated(stored=first)
    assert third["fid/resnet18"]["settings"]["precision"] == "fp32"
    assert [call for call in small if "generated" in call]


def test_nothing_is_computed_before_something_is_measured(evaluated, small, monkeypatch):
    monkeypatch.setattr(Evaluator, "measure", lambda self, stored: ())
    made, _ = evaluated()
    assert made.columns()
    assert small == []
    made.plan()
    assert len(small) == 8  # four sets of images for each of two classifiers


def test_another_word_is_refused():
    with pytest.raises(ConfigError) as caught:
        compose(["evaluation.extractor.precision=fp16"])
    assert str(caught.value) == (
        "evaluation.extractor.precision: 'fp16' is not one of fp32, bf16, auto; did you mean bf16?"
    )

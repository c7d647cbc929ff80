"""The blocks ``samplers/...``: copies are noticed, bounds are those of the fitted density, work is done once."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

from fmvae import rng
from fmvae.config import compose
from fmvae.data import ImageData, Split
from fmvae.errors import ConfigError, ObjectiveError, RunError
from fmvae.evaluation import Evaluator, likelihood
from fmvae.evaluation import measure as context_module
from fmvae.evaluation import partial as partial_results
from fmvae.evaluation.column import group_of
from fmvae.evaluation.columns import DENSITIES, SAMPLERS, columns_of, numbers
from fmvae.evaluation.features import Features, Pixels
from fmvae.evaluation.likelihood import importance_weighted_bound
from fmvae.evaluation.measures.accuracy import Accuracy
from fmvae.evaluation.measures.samplers import Sampled, SampledAccuracy
from fmvae.evaluation.partial import Partial, Partials
from fmvae.evaluation.samplers import Latents
from fmvae.evaluation.samplers.gmm import GaussianMixtureSampler
from fmvae.experiments import objective, train
from fmvae.experiments.search_target import directions
from fmvae.experiments.vae import VAEExperiment
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.verification import verify
from fmvae.models import VAE, BaseVAE, ConditionalVAE, encode_split
from fmvae.objectives import ELBO, Bernoulli, Constant
from fmvae.runs.directory import find_runs
from fmvae.runs.files import read_record, write_record
from fmvae.runs.results import at, blocks, columns_in, flat_scalars, nested
from tests.cli.process import snapshot
from tests.evaluation.test_importance_weighted import LINEAR, LinearGaussianVAE
from tests.own_data import own_config

OBJECTIVE = ELBO(Bernoulli(), Constant(1.0))
SIDE, NUM = 3, 300  # of the small images, and how many are compared


class ExactVAE(VAE):
    """An autoencoder without loss: the latents are the pixels, with a posterior of 3e-7 around them."""

    def __init__(self):
        super().__init__(SIDE**2, (1, SIDE, SIDE))
        self.unused = torch.nn.Parameter(torch.zeros(()))  # says in what precision to decode

    def encode(self, x, labels=None):
        return x.flatten(1), torch.full_like(x.flatten(1), -30.0)

    def decode(self, z, labels=None):
        return z.clamp(1e-6, 1 - 1e-6).logit().unflatten(1, self.image_shape)


def smooth_data(seed: int, num_train: int = 600, num_test: int = NUM) -> ImageData:
    """Images drawn from one Gaussian, away from 0 and 1; two classes, of which only the second is bright."""
    random = np.random.default_rng(seed)

    def drawn(num: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(num) % 2
        x = 0.4 + 0.1 * labels[:, None] + 0.08 * random.normal(size=(num, SIDE**2))
        return (255 * x.clip(0, 1)).round().astype(np.uint8).reshape(num, 1, SIDE, SIDE), labels

    return ImageData(train=drawn(num_train), val=drawn(100), test=drawn(num_test), num_classes=2, batch_size=50)


@cache
def by_default() -> dict[str, Any]:
    return compose(["evaluation=full", "evaluation.cache=null"])["evaluation"]


def settings(*samplers: str, features: bool = True, draws: int = 0, **others: Any) -> dict[str, Any]:
    """The group ``evaluation`` with nothing but samplers, and what they are measured by."""
    usual = by_default()
    return {
        **usual,
        "fid": {**usual["fid"], "features": ["pixels"], "num_images": NUM if features else 0},
        "iwae": {"num_samples": draws, "num_images": 20},
        "latent": False,
        "decomposition": {"num_samples": 0},
        "accuracy": {"weights": "blurred", "num_per_class": 0},
        "samplers": list(samplers),
        "gmm": {"num_components": 1},
        **others,
    }


def evaluator(model: VAE, data: ImageData, *samplers: str, seed: int = 0, **given: Any) -> Evaluator:
    return Evaluator(model, OBJECTIVE, data, seed=seed, settings=settings(*samplers, **given))


def small_vae(kind: Any = BaseVAE, seed: int = 0, **others: Any) -> VAE:
    with rng.seeded_init(seed):
        return kind(2, hidden_dim=16, image_shape=(1, SIDE, SIDE), **others).eval()


# --- copies ---------------------------------------------------------------------------------------------------


def test_a_sampler_that_returns_training_images_is_noticed_and_a_fitted_density_is_not():
    """``aggregate`` with an exact autoencoder. Over ten data sets, in standard errors of their mean."""
    names, found = ("aggregate", "gmm"), {"aggregate": [], "gmm": []}
    for seed in range(10):
        made = evaluator(ExactVAE(), smooth_data(seed, NUM), *names, seed=seed)
        for name in names:
            found[name].append(made.compute(f"samplers/{name}/pixels"))

    def errors(name: str, tag: str, expected: float) -> float:
        values = np.array([block[tag] for block in found[name]])
        return float((values.mean() - expected) / (values.std(ddof=1) / np.sqrt(len(values))))

    for block in found["aggregate"]:
        assert block["nearest_train"] < 1e-5 < 0.1 < block["real_nearest_train"]
        assert block["nearest_ratio"] < 1e-4
        assert block["nearer_train"] == 1
        assert 0.4 < block["real_nearer_train"] < 0.6
    assert abs(errors("gmm", "nearest_ratio", 1)) < 4
    assert abs(errors("gmm", "nearer_train", 0.5)) < 4
    ratios = [block["nearest_ratio"] for block in found["gmm"]]
    assert 0.9 < min(ratios) < max(ratios) < 1.1


def test_more_training_images_can_be_searched_and_copies_of_the_others_are_then_noticed():
    """Half of the copies are of images beyond the first 300."""
    data = smooth_data(0)
    asked: dict[str, Any] = {"fid": {**settings()["fid"], "num_train": None}}
    few = evaluator(ExactVAE(), data, "aggregate", **asked).compute("samplers/aggregate/pixels")
    asked["fid"]["num_train"] = 600
    all_of_them = evaluator(ExactVAE(), data, "aggregate", **asked).compute("samplers/aggregate/pixels")
    assert (few["settings"]["num_train"], all_of_them["settings"]["num_train"]) == (None, 600)
    assert all_of_them["nearest_train"] < 1e-5
    assert few["nearer_train"] == all_of_them["nearer_train"]  # both among the first 300
    assert 0.6 < few["nearer_train"] < 0.9
    assert few["generation"] == all_of_them["generation"]


# --- the prior, and work that is done once --------------------------------------------------------------------


def test_with_the_sampler_prior_the_distances_are_those_of_fid_to_all_digits():
    made = evaluator(small_vae(), smooth_data(0), "prior", "gmm")
    measured = dict(made.measure())
    assert list(measured) == ["test", "fid/pixels", "samplers/prior/pixels", "samplers/gmm/pixels"]
    own, prior, gmm = (measured[name] for name in list(measured)[1:])
    shared = {tag for tag, _ in numbers(own)} - {"reconstruction"}
    assert {tag: prior[tag] for tag in shared} == {tag: own[tag] for tag in shared}
    changed = {tag for tag in shared if gmm[tag] != own[tag]}
    assert changed >= {"generation", "generation_se", "kid"}
    assert {tag: gmm[tag] for tag in ("floor", "kid_floor")} == {tag: own[tag] for tag in ("floor", "kid_floor")}


@pytest.fixture
def generations(monkeypatch) -> list[Any]:
    """What is generated, in turn: the draws of each set of images."""
    seen: list[Any] = []
    plain = context_module.generated_images

    def generated(model: Any, likelihood: Any, labels: Any, generator: Any, draws: Any = None) -> Any:
        seen.append(draws and draws.__self__.name)
        return plain(model, likelihood, labels, generator, draws)

    monkeypatch.setattr(context_module, "generated_images", generated)
    return seen


def test_images_are_generated_and_looked_at_once(generations, monkeypatch):
    looked: list[str] = []
    plain = Pixels.__call__

    def look(self: Pixels, batches: Any, what: str = "", num: int = 0) -> Any:
        looked.append(what)
        return plain(self, batches, what, num)

    monkeypatch.setattr(Pixels, "__call__", look)
    made = evaluator(small_vae(), smooth_data(0), "prior", "gmm", "aggregate")
    dict(made.measure())
    assert generations == [None, "gmm", "aggregate"]
    assert [what for what in looked if "generated" in what] == [
        "generated images",
        "generated images (gmm)",
        "generated images (aggregate)",
    ]
    assert not made.context._kept  # nothing stays in memory afterwards
    dict(made.measure())
    assert generations == [None, "gmm", "aggregate"] * 2


def test_distances_of_equal_images_and_of_real_ones_are_computed_once(monkeypatch):
    calls: list[str] = []

    def counted(module: str, name: str, told: Any = None) -> None:
        plain = getattr(import_module(f"fmvae.evaluation.{module}"), name)

        def call(*given: Any, **others: Any) -> Any:
            calls.append(told(others) if told else name)
            return plain(*given, **others)

        monkeypatch.setattr(f"fmvae.evaluation.{module}.{name}", call)

    counted("distances", "frechet_standard_error")
    counted("distances", "kernel_distance")
    counted("neighbours", "nearest_distances", lambda others: "real" if others.get("others") else "nearest")
    counted("measures.samplers", "real_copying_measures")
    made = evaluator(small_vae(), smooth_data(0, NUM), "prior", "gmm", "aggregate")
    measured = dict(made.measure())
    once = {name: calls.count(name) for name in calls}
    # the prior's images, those of gmm and of aggregate; and of kernel distances the floor
    assert once["frechet_standard_error"] == 3
    assert once["kernel_distance"] == 4
    assert once["real_copying_measures"] == once["real"] == 1
    assert once["nearest"] == 2 * 3 + 1
    calls.clear()
    made.context.forget()
    alone = {}
    for name in measured:
        alone[name] = made.compute(name)
        made.context.forget()  # control: nothing is shared, and all digits are the same
    assert alone == measured
    assert calls.count("frechet_standard_error") == 4
    assert calls.count("real_copying_measures") == 3
    assert calls.count("kernel_distance") == 8


@pytest.mark.parametrize("keyed", [True, False], ids=["by weights", "control"])
def test_with_other_weights_nothing_of_the_earlier_ones_is_used(keyed, monkeypatch):
    """Also where no one says that the weights have changed; the fit is another, too."""
    if not keyed:
        for module in ("fmvae.evaluation.measure", "fmvae.evaluation.samplers.store"):
            monkeypatch.setattr(f"{module}.weights_sha256", lambda *_: "the same")
    names = ("samplers/prior/pixels", "samplers/gmm/pixels")
    model, data = small_vae(), smooth_data(0)
    made = evaluator(model, data, "prior", "gmm")
    before = {name: made.compute(name) for name in names}
    model.load_state_dict(small_vae(seed=1).state_dict())
    after = {name: made.compute(name) for name in names}
    fresh = evaluator(small_vae(seed=1), data, "prior", "gmm")
    expected = {name: fresh.compute(name) for name in names}
    assert all(before[name] != expected[name] for name in names)
    assert (after == expected) == keyed
    assert (after == before) == (not keyed)


def test_posteriors_are_encoded_with_one_thread():
    """Blocks of one fit may be measured, and verified, with different numbers of threads."""
    model: Any = small_vae()
    made, seen, plain = evaluator(model, smooth_data(0), "gmm"), [], model.encode
    model.encode = lambda *given: seen.append(torch.get_num_threads()) or plain(*given)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        made.context.samplers.get("gmm", {"num_components": 1})
        assert set(seen) == {1}
        seen.clear()
        made.compute("samplers/gmm/pixels")  # negative control: what follows is as before
        encode_split(model, made.context.data.train)
        assert set(seen) == {3}
    finally:
        torch.set_num_threads(threads)


# --- accuracy -------------------------------------------------------------------------------------------------


class ExactConditionalVAE(ExactVAE):
    """The class is in the latents alone: the decoder does not look at the labels."""

    conditional = True


class Brightness:
    """A classifier that takes images above a mean of 0.45 for those of the second, bright class."""

    name = "resnet18"
    identity: Mapping[str, Any] = {"features": "the mean of all pixels"}

    def __call__(self, batches: Any, what: str = "", num: int = 0) -> Features:
        means = np.concatenate([batch.double().mean((1, 2, 3)).numpy() for batch in batches])
        return Features(means[:, None], np.stack([0.45 - means, means - 0.45], 1))


def test_the_accuracy_of_a_sampler_is_that_of_its_own_images_and_of_the_class_asked_for():
    """Its latents are drawn here once more, and their pixels averaged; a class has 60 images."""
    made = evaluator(ExactConditionalVAE(), smooth_data(0))
    like, asked = Accuracy(Brightness(), 60), torch.arange(2).repeat_interleave(60)
    found = {}
    for name, fit in (("gmm", {"num_components": 1}), ("aggregate", {}), ("prior", {})):
        sampler = made.context.samplers.get(name, fit)
        with torch.inference_mode():
            block = SampledAccuracy(name, fit, like).block(made.context, sampler)["generated"]
        z = sampler.sample(120, asked, rng.stream(0, "sampling", 1)).clamp(1e-6, 1 - 1e-6)
        bright = (z.mean(1) > 0.45).long()
        assert block["overall"] == (bright == asked).double().mean().item()
        assert block["confusion"] == [[int(((asked == a) & (bright == b)).sum()) for b in (0, 1)] for a in (0, 1)]
        assert (block["num_images"], list(block["per_class"])) == (120, ["0", "1"])
        found[name] = block["overall"]
    assert min(found["gmm"], found["aggregate"]) > 0.9
    assert found["prior"] < 0.7  # control: latents without a class
    with torch.inference_mode():
        assert like.compute(made.context)["generated"]["overall"] == found["prior"]


# --- bounds ---------------------------------------------------------------------------------------------------


def noise() -> torch.Generator:
    return rng.stream(0, "evaluation")


def standard(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(stats.norm.logpdf(z.numpy()).sum(-1))


@pytest.mark.parametrize("kind", [BaseVAE, partial(ConditionalVAE, num_classes=2)])
def test_with_the_density_of_the_models_prior_the_bound_is_the_models_own(kind):
    model, split = small_vae(kind), smooth_data(0).test
    bound = partial(importance_weighted_bound, model, OBJECTIVE, split, num_samples=7, num_images=40)
    own = bound(noise())
    assert bound(noise(), density=standard) == pytest.approx(own, rel=1e-12)
    assert bound(noise(), density=lambda z, labels: standard(1.1 * z, labels)) != pytest.approx(own, rel=1e-6)


def mixture_log_prob(state: dict[str, torch.Tensor], label: int, z: np.ndarray) -> np.ndarray:
    """log p(z) (N,) of one class's mixture, by SciPy from the stored tensors."""
    weights, means, factors = (state[f"{label}.{part}"].numpy() for part in ("weights", "means", "factors"))
    parts = [
        np.log(weight) + stats.multivariate_normal.logpdf(z, mean, factor @ factor.T)
        for weight, mean, factor in zip(weights, means, factors, strict=True)
    ]
    return np.asarray(special.logsumexp(np.stack(parts), axis=0))


@torch.no_grad()
@pytest.mark.parametrize("conditional", [False, True])
def test_the_bound_with_a_mixture_is_its_formula(conditional):
    """In NumPy and SciPy, image by image, in double precision; for a class, with the mixture of this class."""
    kind: Any = partial(ConditionalVAE, num_classes=2) if conditional else BaseVAE
    model, data, num, draws = small_vae(kind), smooth_data(0), 20, 6
    given = {"features": False, "draws": draws, "gmm": {"num_components": 3}}
    made = evaluator(model, data, "gmm", **given)
    assert list(made.measures) == ["test", "iwae", "samplers/gmm/bound"]
    block = made.compute("samplers/gmm/bound")
    state, _ = made.context.samplers.get("gmm", {"num_components": 3}).state()
    x, labels = data.test.images[:num].float() / 255, data.test.labels[:num]
    mu, logvar = (part.double().numpy() for part in model.encode(x, labels))

    def brute_force(of_class: Any) -> float:
        generator, bounds = made.context.noise(), []
        for i in range(num):
            std = np.exp(logvar[i] / 2)
            z = mu[i] + std * torch.randn(draws, 2, generator=generator, dtype=torch.float64).numpy()
            label = labels[i : i + 1].expand(draws)
            logits = model.decode(torch.from_numpy(z).float(), label).double().numpy()
            image = x[i].double().numpy()
            log_p = (image * special.log_expit(logits) + (1 - image) * special.log_expit(-logits)).sum((1, 2, 3))
            log_q = stats.norm.logpdf(z, mu[i], std).sum(1)
            weights = log_p + mixture_log_prob(state, of_class(int(labels[i])), z) - log_q
            bounds.append(np.log(draws) - special.logsumexp(weights))
        return float(np.mean(bounds))

    assert block["num_images"] == num
    assert block["iwae_6"] == pytest.approx(brute_force(lambda label: label if conditional else 0), rel=1e-9)
    if conditional:  # negative control
        assert abs(block["iwae_6"] - brute_force(lambda label: 1 - label)) > 1e-4
    assert abs(block["iwae_6"] - made.compute("iwae")["iwae_6"]) > 1e-4


def shifted(model: LinearGaussianVAE, num: int) -> Split:
    """Images of latents from N(m, S) with correlated dimensions: not the prior that the model was made for."""
    random = np.random.default_rng(2)
    z = np.array([0.6, -0.4]) + random.normal(size=(num, 2)) @ np.array([[0.5, 0.0], [0.4, 0.9]])
    x = 0.5 + z @ model.loadings.T + model.SIGMA * random.normal(size=(num, 36))
    images = torch.from_numpy((255 * x).clip(0, 255).astype(np.uint8))
    return Split("drawn", images.view(num, *model.image_shape), torch.zeros(num, dtype=torch.int64))


def test_in_a_linear_model_the_bound_falls_to_the_closed_form_of_the_fitted_gaussian():
    """p(z) = N(m, S) makes x Gaussian, and KL(q || p(z | x)) has a closed form: the gap for one draw."""
    model, num = LinearGaussianVAE(), 1500
    split = shifted(model, num)
    posteriors = Latents(*(part.cpu() for part in encode_split(model, split)))
    sampler = GaussianMixtureSampler(num_components=1)
    sampler.fit(posteriors, posteriors, seed=0)
    state, _ = sampler.state()
    mean, prior = state["0.means"][0].numpy(), (state["0.factors"][0] @ state["0.factors"][0].T).numpy()
    x = (split.images.float() / 255).flatten(1).double().numpy() - 0.5
    covariance: Any = model.loadings @ prior @ model.loadings.T + model.SIGMA**2 * np.eye(36)
    exact = -stats.multivariate_normal.logpdf(x, model.loadings @ mean, covariance)
    bound = partial(importance_weighted_bound, model, LINEAR, split, num_images=num)
    gaps = {k: bound(noise(), num_samples=k, density=sampler.log_prob) - exact.mean() for k in (1, 4, 16, 64)}

    precision = np.linalg.inv(prior) + model.loadings.T @ model.loadings / model.SIGMA**2
    true = np.linalg.solve(
        precision, (x @ model.loadings / model.SIGMA**2 + np.linalg.solve(prior, mean)).T
    ).T  # the means of p(z | x)
    q_mean, q_var = posteriors.mu.double().numpy(), posteriors.logvar.double().exp().numpy()
    apart = true - q_mean
    kl = 0.5 * (
        q_var @ precision.diagonal()
        + np.einsum("ni,ij,nj->n", apart, precision, apart)
        - 2
        - np.linalg.slogdet(precision)[1]
        - np.log(q_var).sum(1)
    )
    print(f"gaps {gaps}, KL {kl.mean():.4f}")
    # the log weights of one draw have a standard deviation below 1
    assert gaps[1] == pytest.approx(kl.mean(), abs=4 / np.sqrt(num))
    assert gaps[1] > 0.02
    assert gaps[1] > gaps[4] > gaps[16] > gaps[64]
    assert abs(gaps[64]) < 4 * np.sqrt(2 * kl.mean() / 64 / num)  # as near to it as the draws tell
    # negative control: under N(0, 1), which is another model, it ends elsewhere
    assert abs(bound(noise(), num_samples=64) - exact.mean()) > 0.05


@pytest.mark.parametrize("by_content", [True, False], ids=["by content", "control"])
def test_a_bound_goes_on_only_with_the_fit_that_it_began_with(by_content, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killing(self: Partial, tensors: Any, values: Any = None, keep: Any = Partial.keep) -> None:
        keep(self, tensors, values)
        if len(tensors["bounds"]) == 8:
            raise Killed

    if not by_content:
        monkeypatch.setattr(GaussianMixtureSampler, "digest", lambda self: "the same")
    monkeypatch.setattr(likelihood, "DECODED_ROWS", 12)  # four images at once
    monkeypatch.setattr(partial_results, "SECONDS", 0.0)
    name, data, given = "samplers/gmm/bound", smooth_data(0), {"features": False, "draws": 3}

    def bound(**kept: Any) -> float:
        made = evaluator(small_vae(), data, "gmm", **given)
        made.context.partials = Partials(tmp_path / "partial", {}, **kept) if kept else Partials()
        found = made.compute(name)["iwae_3"]
        made.context.partials.done(name)
        return found

    def kill() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Partial, "keep", killing)
            with pytest.raises(Killed):
                bound(anew=False)
        assert len(list((tmp_path / "partial").iterdir())) == 1

    usual = bound()
    kill()
    assert bound(anew=False) == usual
    assert not (tmp_path / "partial").exists()
    kill()
    assert bound(anew=True) == usual  # by force: begun anew, and nothing is left
    assert not (tmp_path / "partial").exists()
    kill()
    plain = GaussianMixtureSampler._one

    def moved(self: Any, part: Any) -> Any:
        density, note = plain(self, part)
        return type(density)(density.weights, density.means + 0.5, density.factors), note

    monkeypatch.setattr(GaussianMixtureSampler, "_one", moved)  # a refit with other numbers, of equal settings
    expected = bound()
    assert expected != usual
    assert (bound(anew=False) == expected) == by_content
    assert not (tmp_path / "partial").exists()


# --- names, columns, what is left out -------------------------------------------------------------------------


def test_every_block_has_columns_and_every_number_one():
    model = small_vae(partial(ConditionalVAE, num_classes=2))
    made = evaluator(model, smooth_data(0), "prior", "gmm", "aggregate", draws=3)
    measured = dict(made.measure())
    results = nested(measured)
    sampled = [name for name in measured if name.startswith("samplers/")]
    assert sampled == [
        *("samplers/prior/pixels", "samplers/gmm/pixels", "samplers/gmm/bound", "samplers/aggregate/pixels"),
    ]
    assert [name for name in blocks(results) if name.startswith("samplers/")] == sampled
    scalars, listed = flat_scalars(results), {column.tag for column in columns_in(results)}
    assert set(scalars) == listed
    for name in sampled:
        tags = {f"{group_of(name)}/{tag}" for tag, _ in numbers(measured[name])}
        assert tags == {column.tag for column in columns_of(name, measured[name])}
        assert tags == {column.within(name).tag for column in made.measures[name].columns}
        assert at(results, name) == measured[name]
    assert measured["samplers/gmm/bound"]["fitted"] == {"num_components": 1}
    assert scalars["samplers/gmm/bound/iwae_3"] != scalars["test/iwae_3"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("samplers/gmm/resnet18/generation", "minimize"),
        ("samplers/aggregate/pixels/recall", "maximize"),
        ("samplers/gmm/bound/iwae_64", "minimize"),
        ("samplers/gmm/accuracy/generated/overall", "maximize"),
    ],
)
def test_a_search_goes_by_any_number_of_a_sampler(name, expected):
    assert directions(compose([f"objective={name}"])) == (expected,)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("samplers/gmm/pixel/generation", r"did you mean samplers/\w+/pixels/generation"),
        ("samplers/prior/bound/iwae_64", "did you mean"),
    ],
)
def test_a_number_that_no_sampler_has_is_refused(name, told):
    with pytest.raises(ConfigError, match=f"^objective: .*{told}"):
        compose([f"objective={name}"])


def test_on_small_data_a_sampler_is_measured_by_what_the_prior_is_measured_by(caplog):
    """The default numbers of components, so that nothing but the size of the data decides."""
    usual: dict[str, Any] = {"gmm": {"num_components": [1, 10, 100]}}
    unasked = {"fid": {**settings()["fid"], "num_images": None}, **usual}
    made = evaluator(small_vae(), smooth_data(0), "prior", "gmm", draws=2, **unasked)
    assert list(made.measures) == ["test", "iwae", "samplers/gmm/bound"]
    with caplog.at_level(logging.INFO, "fmvae"):
        next(made.measure())
    told = [line for line in caplog.messages if "is left out" in line]
    assert len(told) == 2  # and not one for each sampler
    assert told[0].startswith("FID (pixels) is left out: ")
    assert told[1] == "FID of samples from gmm is left out: so is that of the prior's"
    asked = evaluator(small_vae(), smooth_data(0), "prior", "gmm", draws=2, **usual)
    assert "samplers/gmm/pixels" in asked.measures
    assert asked.context.notes == []


def test_more_training_images_than_there_are_is_refused():
    data = smooth_data(0)
    for num in (len(data.train), len(data.train) + 1):
        fid = {**settings()["fid"], "num_train": num}
        if num == len(data.train):  # the control
            assert "samplers/gmm/pixels" in evaluator(small_vae(), data, "prior", "gmm", fid=fid).measures
        else:
            with pytest.raises(
                ConfigError, match=rf"^evaluation\.fid\.num_train: {num} of {num - 1} training images"
            ):
                evaluator(small_vae(), data, "prior", "gmm", fid=fid)


def test_only_fitted_densities_have_a_bound():
    made = evaluator(small_vae(), smooth_data(0), *SAMPLERS, features=False, draws=2)
    assert [name for name in made.measures if name.startswith("samplers/")] == [
        f"samplers/{name}/bound" for name in DENSITIES
    ]


# --- a run ----------------------------------------------------------------------------------------------------

ASKED = [
    *("device=cpu", "evaluation.cache=null", "figures=none", "evaluation.latent=false"),
    *(
        "evaluation.fid.features=[pixels]",
        "evaluation.fid.num_images=100",
        "evaluation.decomposition.num_samples=0",
    ),
    *("evaluation.iwae.num_samples=2", "evaluation.iwae.num_images=10", "evaluation.accuracy.num_per_class=0"),
    *("evaluation.samplers=[prior,gmm,aggregate]", "evaluation.gmm.num_components=2"),
]
BLOCKS = [
    *("test", "iwae", "fid/pixels"),
    *("samplers/prior/pixels", "samplers/gmm/pixels", "samplers/gmm/bound", "samplers/aggregate/pixels"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[tuple[Path, Any]]:
    """A run of one epoch on small images of one's own, and what makes configs of it."""
    root = tmp_path_factory.mktemp("sampled")
    with pytest.MonkeyPatch.context() as patch:
        configured = partial(own_config, root, patch, image_shape=(1, 8, 8), num_classes=0)
        given = ["data.num_images=700", "model=base", "model.hidden_dim=16", "latent_dim=2", "trainer.epochs=1"]
        given += [*ASKED, f"output_root={root}/outputs"]
        train(configured(*given))
        (run,) = (root / "outputs").glob("base-*")
        yield run, partial(configured, *given)


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / trained[0].name))


def evaluate(run: Path, *overrides: str) -> dict[str, Any]:
    (results,) = evaluate_runs(compose([f"run={run}", *ASKED, *overrides], "evaluate"))
    return results


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    names: list[str] = []
    plain = Evaluator.compute
    monkeypatch.setattr(Evaluator, "compute", lambda self, name: names.append(name) or plain(self, name))
    return names


def test_only_what_other_settings_touch_is_measured_anew(run, computed):
    evaluate(run)  # with no figures
    computed.clear()
    before, first = snapshot(run), read_record(run / "results.json")
    assert list(first["provenance"]["evaluation"]) == BLOCKS
    assert {path.name for path in (run / "samplers").iterdir()} == {"gmm.safetensors"}
    evaluate(run)
    assert computed == []
    assert snapshot(run) == before
    after = evaluate(run, "evaluation.gmm.num_components=3")
    assert computed == ["samplers/gmm/pixels", "samplers/gmm/bound"]
    assert {name for name in BLOCKS if at(after, name) != at(first, name)} == set(computed)
    assert at(after, "samplers/gmm/bound")["fitted"] == {"num_components": 3}
    computed.clear()
    evaluate(run, "evaluation.gmm.num_components=3", "evaluation.fid.num_train=200")
    assert computed == [f"samplers/{name}/pixels" for name in ("prior", "gmm", "aggregate")]
    assert "samplers" not in read_record(run / "fid.json")


def test_a_temperature_measures_the_mixture_anew_without_a_new_fit(run, computed, monkeypatch):
    first = evaluate(run)
    assert "temperature" not in at(first, "samplers/gmm/pixels")["settings"]["fit"]
    monkeypatch.setattr(GaussianMixtureSampler, "fit", None)
    computed.clear()
    assert at(evaluate(run, "evaluation.gmm.temperature=1"), "samplers") == first["samplers"]
    assert computed == []
    cold = evaluate(run, "evaluation.gmm.temperature=0.3")
    assert computed == ["samplers/gmm/pixels", "samplers/gmm/bound"]
    for name, tag in (("pixels", "generation"), ("bound", "iwae_2")):
        before, after = (found["samplers"]["gmm"][name] for found in (first, cold))
        assert after[tag] != before[tag]
        assert after["settings"]["fit"] == {"num_components": 2, "temperature": 0.3}
        assert after["fitted"] == {"num_components": 2, "temperature": 0.3}
    (directory,) = find_runs(run)
    monkeypatch.undo()
    assert verify(directory, device="cpu").problems == []
    assert evaluate(run)["samplers"] == first["samplers"]


def test_a_search_takes_no_number_of_another_temperature(run):
    """Settings of a sampler name no run, so a trial finds the results of the trial before it."""
    asked = ["objective=samplers/gmm/pixels/generation", *ASKED]
    results = evaluate(run, "evaluation.gmm.temperature=0.5")
    value = objective(compose([*asked, "evaluation.gmm.temperature=0.5"]), results)
    assert value == at(results, "samplers/gmm/pixels")["generation"]
    for other in ("evaluation.gmm.temperature=0.6", "evaluation.gmm.temperature=1"):
        with pytest.raises(RunError, match=r"generation was measured with .*0\.5.* is asked for; ") as caught:
            objective(compose([*asked, other]), results)
        assert "\n" not in str(caught.value)


def test_a_kill_between_blocks_keeps_what_was_done(run, computed, monkeypatch):
    (run / "results.json").unlink()
    shutil.rmtree(run / "samplers")

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as killing:
        killing.setattr("fmvae.evaluation.measures.samplers.SampledBound.block", killed)
        with pytest.raises(Killed):
            evaluate(run)
    assert computed == BLOCKS[:6]
    assert list(read_record(run / "results.json")["provenance"]["evaluation"]) == BLOCKS[:5]
    computed.clear()
    fits: list[str] = []
    monkeypatch.setattr(GaussianMixtureSampler, "fit", lambda self, *_: fits.append(self.name))
    evaluate(run)
    assert computed == BLOCKS[5:]
    assert fits == []  # the fit was kept, too


def test_force_fits_anew(run, monkeypatch):
    fits: list[int] = []
    plain = GaussianMixtureSampler.fit
    monkeypatch.setattr(GaussianMixtureSampler, "fit", lambda self, *given: fits.append(1) or plain(self, *given))
    before = snapshot(run)
    evaluate(run, "force=true")
    assert fits == [1]
    assert snapshot(run)["samplers/gmm.safetensors"] == before["samplers/gmm.safetensors"]


def test_the_blocks_are_verified_bit_for_bit_and_fitted_once(run, monkeypatch):
    fits: list[int] = []
    plain = GaussianMixtureSampler.fit
    monkeypatch.setattr(GaussianMixtureSampler, "fit", lambda self, *given: fits.append(1) or plain(self, *given))
    (directory,) = find_runs(run)
    found = verify(directory, device="cpu")
    assert found.problems == []
    assert found.measures == BLOCKS
    assert "samplers/gmm.safetensors" in found.files
    assert fits == [1]
    for name, tag in (("samplers/gmm/pixels", "nearest_train"), ("samplers/gmm/bound", "iwae_2")):
        record = read_record(run / "results.json")
        at(record, name)[tag] *= 1 + 2**-52
        write_record(run / "results.json", record)
        problems = verify(directory, device="cpu").problems
        assert problems[-1].startswith(f"{name}/{tag}: ")
    assert len(problems) == 2


def test_a_search_by_a_sampler_that_is_not_measured_is_refused_before_training(trained):
    _, configured = trained
    name = "objective=samplers/gmm/pixels/generation"
    VAEExperiment(configured(name), torch.device("cpu"))
    for off in ("evaluation.samplers=[prior]", "evaluation.samplers=[]", "evaluation.fid.num_images=0"):
        with pytest.raises(ObjectiveError, match=r"^objective: 'samplers/gmm/pixels/generation'") as caught:
            VAEExperiment(configured(name, off), torch.device("cpu"))
        assert str(caught.value).endswith(f"; {Sampled.way_in}")
        assert "\n" not in str(caught.value)

"""The importance-weighted bound is its formula in double precision, and reaches a marginal that is known."""

import copy
import errno
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

from fmvae import rng
from fmvae.data import Split
from fmvae.errors import ConfigError
from fmvae.evaluation import likelihood as module
from fmvae.evaluation import partial as partial_module
from fmvae.evaluation.likelihood import importance_weighted_bound
from fmvae.evaluation.partial import Partial, Partials
from fmvae.models import (
    VAE,
    BaseVAE,
    BetaVAE,
    ConditionalVAE,
    ConvVAE,
    FlowPrior,
    GatedVAE,
    MixturePrior,
    ResidualVAE,
    StandardPrior,
    VampPrior,
)
from fmvae.objectives import ELBO, Bernoulli, Constant, ContinuousBernoulli, Gaussian, Likelihood

MODELS = {
    "base": lambda: BaseVAE(2, hidden_dim=16),
    "conv": lambda: ConvVAE(3),
    "beta": lambda: BetaVAE(2),
    "gated": lambda: GatedVAE(2, hidden_dim=16),
    "residual": lambda: ResidualVAE(2, width=8),
    "conditional": lambda: ConditionalVAE(2, hidden_dim=16),
}


@pytest.fixture(scope="module")
def split(small_data) -> Split:
    return small_data(num_test=70).test


def made(name: str) -> VAE:
    with rng.seeded_init(0):
        return MODELS[name]()


def noise(seed: int = 0) -> torch.Generator:
    return rng.stream(seed, "evaluation")


def objective_of(likelihood: Likelihood | None = None, beta: float = 4.0) -> ELBO:
    return ELBO(likelihood or Bernoulli(), Constant(beta))


class LinearGaussianVAE(VAE):
    """Probabilistic PCA, x = 0.5 + W z + sigma * noise: its density is known.

    The posterior is diagonal, as the columns of W are orthogonal. ``widening`` multiplies the standard deviation
    that ``encode`` gives it.
    """

    SIGMA = 0.1
    SIDE = 6

    def __init__(self, widening: float = 1.0):
        super().__init__(2, (1, self.SIDE, self.SIDE))
        signs = np.column_stack([np.ones(36), np.tile([1, -1], 18)])  # flat, so that 0.5 + W z stays in (0, 1)
        self.loadings = signs / 6 * [0.15, 0.3]
        self.widening = widening

    def encode(self, x, labels=None):
        precision = torch.from_numpy((self.loadings**2).sum(0) / self.SIGMA**2 + 1)
        mu = (x.double().flatten(1) - 0.5) @ torch.from_numpy(self.loadings) / self.SIGMA**2 / precision
        return mu, (2 * np.log(self.widening) - precision.log()).expand_as(mu)

    def decode(self, z, labels=None):
        return (0.5 + z @ torch.from_numpy(self.loadings).T).logit().unflatten(1, self.image_shape)

    def drawn(self, num: int) -> Split:
        random = np.random.default_rng(1)
        x = 0.5 + random.normal(size=(num, 2)) @ self.loadings.T + self.SIGMA * random.normal(size=(num, 36))
        images = torch.from_numpy((255 * x).clip(0, 255).astype(np.uint8))
        return Split("drawn", images.view(num, *self.image_shape), torch.zeros(num, dtype=torch.int64))

    def exact(self, split: Split) -> float:
        """-log p(x) in nats per image."""
        covariance: Any = self.loadings @ self.loadings.T + self.SIGMA**2 * np.eye(36)
        x = (split.images.float() / 255).flatten(1).double().numpy()
        return -stats.multivariate_normal.logpdf(x, np.full(36, 0.5), covariance).mean()


LINEAR = objective_of(Gaussian(LinearGaussianVAE.SIGMA))


@pytest.mark.parametrize("num_samples", [1, 2, 50])
def test_with_the_exact_posterior_the_bound_is_the_log_marginal_for_any_number_of_draws(num_samples):
    model, wide = LinearGaussianVAE(), LinearGaussianVAE(widening=1.1)
    split = model.drawn(40)
    bound = importance_weighted_bound(model, LINEAR, split, noise(), num_samples=num_samples)
    assert bound == pytest.approx(model.exact(split), abs=1e-9)
    inexact = importance_weighted_bound(wide, LINEAR, split, noise(), num_samples=num_samples)
    assert inexact != pytest.approx(model.exact(split), abs=1e-4)


def test_with_too_wide_a_posterior_the_bound_falls_from_the_elbo_to_the_log_marginal():
    model = LinearGaussianVAE(widening=2.0)
    split = model.drawn(2000)
    gaps = {
        k: importance_weighted_bound(model, LINEAR, split, noise(), num_samples=k, num_images=2000)
        - model.exact(split)
        for k in (1, 8, 64)
    }
    kl = 2 * 0.5 * (4 - 1 - np.log(4))  # KL(q || true posterior), which is the ELBO's gap
    assert gaps[1] == pytest.approx(kl, abs=4 * 3 / np.sqrt(2000))  # the log weights' deviation is 3
    variance = (2 / np.sqrt(2 - 1 / 4)) ** 2 - 1  # of the weights
    assert gaps[64] == pytest.approx(variance / 2 / 64, abs=4 * np.sqrt(variance / 64 / 2000))
    assert gaps[1] > 2 * gaps[8] > 8 * gaps[64] > 0


LOG_LIKELIHOODS = {
    "bernoulli": (
        Bernoulli(),
        lambda logits, x: (x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)).sum((1, 2, 3)),
    ),
    "gaussian": (Gaussian(0.3), lambda logits, x: stats.norm.logpdf(x, special.expit(logits), 0.3).sum((1, 2, 3))),
    "continuous": (
        ContinuousBernoulli(),
        lambda logits, x: (
            torch.distributions.ContinuousBernoulli(logits=torch.from_numpy(logits))
            .log_prob(torch.from_numpy(x))
            .sum((1, 2, 3))
            .numpy()
        ),
    ),
}


@torch.no_grad()
def bound_in_double(model: VAE, log_likelihood: Any, split: Split, num_samples: int) -> float:
    """-L_K of the model's own logits, the rest in NumPy and SciPy, at the noise of ``noise()``."""
    x, generator = split.images.float() / 255, noise()
    mu, logvar = (part.double().numpy()[:, None] for part in model.encode(x, split.labels))
    shape = (num_samples, model.latent_dim)
    epsilon = np.stack([torch.randn(shape, generator=generator, dtype=torch.float64).numpy() for _ in x])
    z = mu + epsilon * np.exp(logvar / 2)  # (N, K, latent_dim)
    index = np.arange(len(x)).repeat(num_samples)
    latents = torch.from_numpy(z.reshape(-1, model.latent_dim)).float()
    logits = model.decode(latents, split.labels[index]).double().numpy()
    log_p = log_likelihood(logits, x.double().numpy()[index]).reshape(z.shape[:2])
    log_ratio = (stats.norm.logpdf(z) - stats.norm.logpdf(z, mu, np.exp(logvar / 2))).sum(2)
    log_weights: Any = special.logsumexp(log_p + log_ratio, axis=1)
    return float(np.log(num_samples) - log_weights.mean())


CASES = [(name, "bernoulli", k) for name in MODELS for k in (1, 9)]
CASES += [("base", name, 9) for name in ("gaussian", "continuous")]


@pytest.mark.parametrize(("name", "likelihood", "num_samples"), CASES)
def test_the_bound_is_the_formula_in_double_precision(name, likelihood, num_samples, split):
    model, (own, independent) = made(name).eval(), LOG_LIKELIHOODS[likelihood]
    expected = bound_in_double(model, independent, split, num_samples)
    measured = importance_weighted_bound(model, objective_of(own), split, noise(), num_samples=num_samples)
    assert measured == pytest.approx(expected, rel=1e-9)


def test_the_weights_are_beyond_float32(split):
    """What the float64 is for: exponentials of the weights vanish in float32, and their sums are coarse."""
    log_p = -importance_weighted_bound(made("base"), objective_of(), split, noise())
    assert np.exp(np.float32(log_p)) == 0

    class Coarse(Bernoulli):
        def nll(self, logits, x):
            return super().nll(logits.float(), x.float())

    expected = bound_in_double(made("base"), LOG_LIKELIHOODS["bernoulli"][1], split, 9)
    coarse = importance_weighted_bound(made("base"), objective_of(Coarse()), split, noise(), num_samples=9)
    assert coarse != pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["base", "beta", "conditional"])
@pytest.mark.parametrize("rows", [1, 7, 64, 10**6])
def test_how_many_latents_are_decoded_at_once_does_not_matter(name, rows, split, monkeypatch):
    def bound(seed: int = 0) -> float:
        return importance_weighted_bound(
            made(name), objective_of(), split, noise(seed), num_samples=16, num_images=20
        )

    whole, other = bound(), bound(1)
    monkeypatch.setattr(module, "DECODED_ROWS", rows)
    assert bound() == pytest.approx(whole, rel=1e-7)
    assert other != pytest.approx(whole, rel=1e-6)  # other noise would be seen


def test_the_first_images_are_taken_or_all_there_are(split):
    def bound(s: Split, num_images: int) -> float:
        return importance_weighted_bound(
            made("base"), objective_of(), s, noise(), num_samples=4, num_images=num_images
        )

    first = Split("first", split.images[:20], split.labels[:20])
    assert bound(split, 20) == bound(first, 20) == bound(first, 1000) != bound(split, 70)
    assert bound(split, 70) == bound(split, 10**6)


@pytest.mark.parametrize("training", [True, False])
def test_the_bound_is_the_same_again_and_leaves_no_trace(training, split):
    model = made("beta").train(training)
    before: dict[str, Any] = copy.deepcopy(model.state_dict())
    global_state = torch.get_rng_state()
    first, again, other = (
        importance_weighted_bound(model, objective_of(), split, noise(seed), num_samples=3) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), global_state)


def test_beta_plays_no_part_in_the_bound_and_the_images_own_labels_do(split):
    model = made("conditional")
    wrong = Split("wrong", split.images, (split.labels + 1) % 10)
    one, four, other = (
        importance_weighted_bound(model, objective_of(beta=beta), s, noise(), num_samples=3)
        for beta, s in ((1.0, split), (4.0, split), (1.0, wrong))
    )
    assert one == four != other


@pytest.mark.parametrize("arguments", [{"num_samples": 0}, {"num_samples": -3}, {"num_images": 0}])
def test_too_few_draws_or_images_are_refused_by_name(arguments, split):
    ((name, value),) = arguments.items()
    with pytest.raises(ConfigError, match=f"^evaluation.iwae.{name}: {value} "):
        importance_weighted_bound(made("base"), objective_of(), split, noise(), **arguments)


# --- other priors -------------------------------------------------------------------------------------------


class WithPrior(LinearGaussianVAE):
    """The same model, with the prior N(m, s^2) in each dimension as a mixture of two equal components."""

    MEAN, STD = np.array([0.7, -0.4]), np.array([0.5, 1.4])

    def __init__(self):
        super().__init__()
        self.latent_prior = MixturePrior(2, 2).double()
        with torch.no_grad():
            self.latent_prior.mu.copy_(torch.from_numpy(self.MEAN))
            self.latent_prior.logvar.copy_(torch.from_numpy(2 * np.log(self.STD)))

    def encode(self, x, labels=None):
        precision = torch.from_numpy((self.loadings**2).sum(0) / self.SIGMA**2 + 1 / self.STD**2)
        shift = (x.double().flatten(1) - 0.5) @ torch.from_numpy(self.loadings) / self.SIGMA**2
        mu = (shift + torch.from_numpy(self.MEAN / self.STD**2)) / precision
        return mu, (-precision.log()).expand_as(mu)

    def exact(self, split: Split) -> float:
        covariance: Any = (self.loadings * self.STD**2) @ self.loadings.T + self.SIGMA**2 * np.eye(36)
        x = (split.images.float() / 255).flatten(1).double().numpy()
        return -stats.multivariate_normal.logpdf(x, 0.5 + self.loadings @ self.MEAN, covariance).mean()


@pytest.mark.parametrize("num_samples", [1, 50])
def test_with_the_exact_posterior_under_another_prior_the_bound_is_its_log_marginal(num_samples):
    model, asked = WithPrior(), []
    split = model.drawn(40)
    find = model.prior_density
    model.prior_density = lambda: asked.append(1) or find()
    bound = importance_weighted_bound(model, LINEAR, split, noise(), num_samples=num_samples)
    assert bound == pytest.approx(model.exact(split), abs=1e-9)
    assert len(asked) == 1  # the density is made once
    model.latent_prior = StandardPrior()
    other = importance_weighted_bound(model, LINEAR, split, noise(), num_samples=num_samples)
    assert abs(other - bound) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("prior", [lambda: VampPrior((1, 28, 28), 4), lambda: FlowPrior(2, hidden=[8])])
def test_the_bound_with_a_learned_prior_is_its_formula(prior, split):
    model, split = made("base"), Split("first", split.images[:12], split.labels[:12])
    with rng.seeded_init(1):
        model.latent_prior = prior()
        for parameter in model.latent_prior.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    measured = importance_weighted_bound(model, objective_of(), split, noise(), num_samples=8)
    generator, bounds, other = noise(), [], []
    density = model.prior_density()
    for x in split.images.float() / 255:
        mu, logvar = (part.double() for part in model.eval().encode(x[None]))
        posterior = torch.distributions.Normal(mu, (0.5 * logvar).exp())
        z = mu + torch.randn(8, 2, generator=generator, dtype=torch.float64) * posterior.stddev
        nll = Bernoulli().nll(model.decode(z.float()).double(), x.double().expand(8, -1, -1, -1))
        weights = density.log_prob(z) - posterior.log_prob(z).sum(1) - nll
        bounds.append(math.log(8) - weights.logsumexp(0).item())
        flat = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) - posterior.log_prob(z).sum(1) - nll
        other.append(math.log(8) - flat.logsumexp(0).item())
    assert measured == pytest.approx(np.mean(bounds), rel=1e-7)
    assert measured != pytest.approx(np.mean(other), rel=1e-4)  # as with N(0, 1)


# --- many draws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [StandardPrior, lambda: VampPrior((1, 28, 28), 4)])
def test_in_double_precision_chunks_change_nothing_beyond_rounding(prior, split, monkeypatch):
    """Also with more draws than are decoded at once."""
    with rng.seeded_init(0):
        model = GatedVAE(3, hidden_dim=16)
        model.latent_prior = prior()
    model.double()
    monkeypatch.setattr(module, "to_float", lambda images: images.double() / 255)
    encode = model.encode
    model.encode = lambda x, labels=None: encode(x.double(), labels)

    def bound(rows: int, seed: int = 0) -> float:
        monkeypatch.setattr(module, "DECODED_ROWS", rows)
        return importance_weighted_bound(model, objective_of(), split, noise(seed), num_samples=50, num_images=10)

    whole = bound(10**6)
    for rows in (1, 7, 49, 50, 120):
        assert bound(rows) == pytest.approx(whole, rel=1e-9)
    assert bound(10**6, seed=1) != pytest.approx(whole, rel=1e-6)


def test_the_bound_does_not_rise_with_more_draws(split):
    """In expectation: Burda et al. 2016, theorem 1; per repetition, differences between other draws."""
    model = GatedVAE(8, hidden_dim=32)
    with torch.no_grad():  # wide posteriors, and logits that depend on z: the bound is far from the marginal
        model.logvar.bias.fill_(0.5)
        dict(model.named_parameters())["decoder.4.weight"].mul_(3)
    counts, repeats = (1, 4, 16, 64), 12
    bounds = np.array(
        [
            [
                importance_weighted_bound(
                    model, objective_of(), split, noise(100 * repeat + k), num_samples=k, num_images=30
                )
                for k in counts
            ]
            for repeat in range(repeats)
        ]
    )
    drops = bounds[:, :-1] - bounds[:, 1:]
    errors = drops.std(0, ddof=1) / np.sqrt(repeats)
    assert (drops.mean(0) > -3 * errors).all()
    assert (drops.mean(0) > 3 * errors).all()  # here it falls; a mean of log weights would not


class Killed(Exception):
    pass


class KilledAfter(Partial):
    """Keeps after every chunk, and dies after the n-th."""

    def __init__(self, path: Path, num: int, **key: Any):
        super().__init__(path, key)
        self.left = num

    def keep(self, tensors, values=None):
        super().keep(tensors, values)
        self.left -= 1
        if not self.left:
            raise Killed


def kept_at(path: Path, **key: Any) -> Partial:
    return Partial(path, key)


@pytest.mark.parametrize(("num_samples", "rows"), [(4, 20), (16, 7)])
@pytest.mark.parametrize("num_chunks", [1, 3])
def test_a_killed_measurement_continues_with_the_same_bits(
    num_samples, rows, num_chunks, split, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "DECODED_ROWS", rows)
    monkeypatch.setattr(partial_module, "SECONDS", 0.0)
    decoded: list[int] = []

    def bound(partial: Partial | None = None, seed: int = 0) -> float:
        model = made("gated")
        decode = model.decode
        model.decode = lambda z, labels=None: decoded.append(len(z)) or decode(z, labels)
        arguments = {"num_samples": num_samples, "num_images": 33, "partial": partial}
        return importance_weighted_bound(model, objective_of(), split, noise(seed), **arguments)

    path = tmp_path / "partial" / "iwae.safetensors"
    whole, all_rows = bound(), sum(decoded)
    with pytest.raises(Killed):
        bound(KilledAfter(path, num_chunks, run="a"))
    per_chunk = max(1, rows // num_samples)
    decoded.clear()
    assert bound(kept_at(path, run="a"), seed=5) == whole  # the generator's state is kept too
    assert sum(decoded) == all_rows - num_chunks * per_chunk * num_samples
    # negative controls: what another checkpoint left, or a damaged file, is not used
    for other, damage in (("b", False), ("a", True)):
        path.unlink()
        with pytest.raises(Killed):
            bound(KilledAfter(path, num_chunks, run="a"))
        if damage:
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        decoded.clear()
        assert bound(kept_at(path, run=other)) == whole
        assert sum(decoded) == all_rows


def test_partial_results_are_written_once_in_a_while_and_removed_at_the_end(split, tmp_path, monkeypatch):
    def run(partials: Partials) -> list[int]:
        partial, written = partials.of("iwae", {"num_samples": 2}), []
        monkeypatch.setattr(partial, "keep", lambda tensors: written.append(len(tensors["bounds"])))
        importance_weighted_bound(
            made("base"), objective_of(), split, noise(), num_samples=2000, num_images=4, partial=partial
        )
        return written

    assert run(Partials(tmp_path / "partial")) == []  # it takes less than a minute
    monkeypatch.setattr(partial_module, "SECONDS", 0.0)
    assert run(Partials()) == []
    assert run(Partials(tmp_path / "partial")) == [1, 2, 3, 4]
    partials = Partials(tmp_path / "partial", {"checkpoint": "a"})
    one, other = partials.of("iwae", {"num_samples": 2}), partials.of("iwae", {"num_samples": 3})
    unrelated = partials.of("fid/pixels", {})
    for partial in (one, other, unrelated):
        partial.keep({"bounds": torch.zeros(1)})
    assert len({one.path, other.path, unrelated.path}) == 3
    partials.done("iwae")
    assert list((tmp_path / "partial").iterdir()) == [unrelated.path]
    partials.done("fid/pixels")
    assert not (tmp_path / "partial").exists()


def test_a_full_disk_does_not_end_a_measurement(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    Partial(tmp_path / "file" / "iwae.safetensors").keep({"bounds": torch.zeros(1)})
    assert "partial results are not kept" in caplog.text


def test_a_disk_that_keeps_a_partial_result_does_not_end_a_measurement(tmp_path, monkeypatch, caplog):
    partial = Partial(tmp_path / "partial" / "iwae.safetensors")
    partial.keep({"bounds": torch.zeros(1)})

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        partial.remove()
    assert "Read-only file system; it is no longer needed, so delete it" in caplog.text
    partial.remove()
    assert not (tmp_path / "partial").exists()  # control: without the refusal it is deleted

"""fmvae.objectives.iwae: the bound against loops and quadrature, and both of its gradients."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal

from fmvae.models import VAE
from fmvae.objectives import IWAE, Batch, Gaussian, Terms, Warmup, kl_divergence
from fmvae.training.precision import in_precision
from tests.objectives.tiny import (
    base,
    batch_of,
    batched_and_alone,
    conditional,
    gradients,
    gradients_are_right,
    with_pseudo_inputs,
)

MODELS = {"base": base, "conditional": conditional, "prior of encoded images": with_pseudo_inputs}


def draws_of(num_images: int, draws: int, batch: Batch, seed: int = 0) -> Batch:
    """Copies of the first image of a batch, each with draws of its own."""
    copies = [tensor[:1].repeat(num_images, *[1] * (tensor.dim() - 1)) for tensor in batch[:2]]
    generator = torch.Generator().manual_seed(seed)
    shape = (num_images, 2) if draws == 1 else (draws, num_images, 2)
    return Batch(copies[0], copies[1], torch.randn(shape, generator=generator, dtype=torch.float64), 50)


@torch.no_grad()
def log_w_by_loops(model: VAE, batch: Batch, beta: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log w, the reconstruction terms and the log ratios, each (K, B), one draw of one image at a time."""
    noise = batch.noise if batch.noise.dim() == 3 else batch.noise[None]
    recon, kl = np.zeros(noise.shape[:2]), np.zeros(noise.shape[:2])
    for k in range(len(noise)):
        for i in range(len(batch.x)):
            mu, logvar = model.encode(batch.x[i : i + 1], batch.labels[i : i + 1])
            z = mu + noise[k, i] * (0.5 * logvar).exp()
            logits = model.decode(z, batch.labels[i : i + 1])
            recon[k, i] = F.binary_cross_entropy_with_logits(logits, batch.x[i : i + 1], reduction="sum").item()
            posterior = Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum()
            kl[k, i] = (posterior - model.prior_density().log_prob(z).sum()).item()
    return -recon - beta * kl, recon, kl


# --- the bound ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("doubly", [False, True])
@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("kind", MODELS)
def test_the_bound_and_its_parts_are_those_of_loops_over_draws(kind, beta, doubly):
    model, batch = MODELS[kind](), batch_of(5, draws=3)
    terms = IWAE(num_samples=3, doubly_reparameterised=doubly)(model, batch, {"beta": beta})
    log_w, recon, kl = log_w_by_loops(model, batch, beta)
    assert list(terms.parts) == ["recon", "kl"]
    assert terms.loss.item() == pytest.approx(-np.log(np.exp(log_w).mean(0)).mean(), rel=1e-12)
    assert terms.parts["recon"].item() == pytest.approx(recon.mean(), rel=1e-12)
    assert terms.parts["kl"].item() == pytest.approx(kl.mean(), rel=1e-11)
    # negative control: the mean over draws and images at once
    assert abs(terms.loss.item() + np.log(np.exp(log_w).mean())) > 1e-3


def test_every_draw_is_decoded_with_the_label_of_its_image():
    model, batch = conditional(), batch_of(6, draws=2)
    log_w, _, _ = log_w_by_loops(model, batch)
    loss = IWAE(num_samples=2)(model, batch, {"beta": 1.0}).loss.item()
    assert loss == pytest.approx(-np.log(np.exp(log_w).mean(0)).mean(), rel=1e-12)
    # negative control: with labels in the order of the images' draws, it is another number
    mu, logvar = model.encode(batch.x, batch.labels)
    z = mu + batch.noise * (0.5 * logvar).exp()
    logits = [
        model.decode(z.flatten(0, 1), labels)
        for labels in (batch.labels.repeat(2), batch.labels.repeat(2, 1).T.flatten())
    ]
    right, wrong = (F.binary_cross_entropy_with_logits(one, batch.x.repeat(2, 1, 1, 1)).item() for one in logits)
    assert abs(right - wrong) > 1e-3


@pytest.mark.parametrize("doubly", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_with_one_draw_it_is_the_elbo_of_the_draw(kind, doubly):
    """Not the one with the closed-form KL."""
    model, batch = MODELS[kind](), batch_of(6)
    assert batch.noise.dim() == 2
    objective = IWAE(num_samples=1, doubly_reparameterised=doubly)
    loss, parts, _ = objective(model, batch, {"beta": 1.0})
    output = model(batch.x, batch.labels, noise=batch.noise)
    recon = objective.likelihood.nll(output.logits, batch.x).mean()
    kl = Normal(output.mu, (0.5 * output.logvar).exp()).log_prob(output.z).sum(1)
    elbo = recon + (kl - model.prior_density().log_prob(output.z)).mean()
    assert loss.item() == pytest.approx(elbo.item(), rel=1e-13)
    assert loss.item() == pytest.approx((parts["recon"] + parts["kl"]).item(), rel=1e-13)
    assert abs((recon + kl_divergence(output.mu, output.logvar).sum(1).mean()).item() - loss.item()) > 1e-3


def log_likelihood(model: VAE, batch: Batch) -> float:
    """log p(x) of the first image, for the prior N(0, 1) in two dimensions, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    grid = torch.tensor(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2))
    mass = torch.tensor(np.outer(weights, weights).reshape(-1) / (2 * math.pi))
    with torch.no_grad():
        logits = model.decode(grid, batch.labels[:1].expand(len(grid)))
        x = batch.x[:1].expand_as(logits)
        log_p = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    return (log_p.exp() * mass).sum().log().item()


def test_the_bound_rises_with_the_draws_towards_the_likelihood():
    """For posteriors that are far off, over 4,000 times the first K of 64 draws, in 100 blocks of 40."""
    model, batch = base(), batch_of(1)
    with torch.no_grad():
        model.get_parameter("mu.bias").add_(1.0)
    exact, every = log_likelihood(model, batch), draws_of(4000, 64, batch)
    numbers = (1, 4, 16, 64)
    bounds = np.zeros((len(numbers), 100))
    ratios = np.zeros(100)
    with torch.no_grad():
        for row, num in enumerate(numbers):
            for block in range(100):
                part = slice(40 * block, 40 * block + 40)
                noise = every.noise[0, part] if num == 1 else every.noise[:num, part]
                given = Batch(every.x[part], every.labels[part], noise, every.num_train)
                loss, parts, _ = IWAE(num_samples=num)(model, given, {"beta": 1.0})
                bounds[row, block] = -loss.item()
                ratios[block] = -(parts["recon"] + parts["kl"]).item()
    print(
        "bounds",
        {num: (round(row.mean(), 4), round(row.std() / 10, 4)) for num, row in zip(numbers, bounds, strict=True)},
    )
    print("log p(x)", exact)

    def rise(low: np.ndarray, high: Any) -> float:
        """The mean difference, in its standard errors."""
        return (high - low).mean() / ((high - low).std(ddof=1) / 10)

    for low, high in zip(bounds, [*bounds[1:], exact], strict=True):
        assert rise(low, high) > 4
    assert exact - bounds[-1].mean() < 0.1 * (exact - bounds[0].mean())
    # negative control: the mean of the logarithms, here over 64 draws, does not rise with the draws
    assert abs(rise(bounds[0], ratios)) < 4


def test_it_follows_its_schedule_with_numbers_as_floats_and_as_tensors():
    model, batch = base(), batch_of(4, draws=3)
    for doubly in (False, True):
        objective = IWAE(num_samples=3, doubly_reparameterised=doubly, beta=Warmup(4.0, fraction=0.5))
        for progress, beta in ((0.0, 0.0), (0.25, 2.0), (1.0, 4.0)):
            numbers = objective.numbers(progress)
            loss = objective(model, batch, numbers).loss
            log_w, _, _ = log_w_by_loops(model, batch, beta)
            assert loss.item() == pytest.approx(-np.log(np.exp(log_w).mean(0)).mean(), rel=1e-12)
            as_tensors = {name: torch.tensor(number, dtype=torch.float64) for name, number in numbers.items()}
            again = objective(model, batch, as_tensors).loss
            assert again.item() == pytest.approx(loss.item(), rel=1e-13)


# --- its gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_agree_with_finite_differences(kind, beta):
    """The doubly reparameterised one of the encoder is not that of a single draw, so only the decoder's can."""
    model, batch = MODELS[kind](), batch_of(3, draws=3)
    decoder = "backbone.decoder" if kind == "conditional" else "decoder"
    assert gradients_are_right(model, IWAE(num_samples=3), batch, beta)
    doubly = IWAE(num_samples=3, doubly_reparameterised=True)
    assert gradients_are_right(model, doubly, batch, beta, decoder)
    assert not gradients_are_right(model, doubly, batch, beta)  # negative control: it is noticed


class OtherFactor(IWAE):
    """A fault: what comes through z is multiplied by another power of the weights, 0 (not at all) or 1."""

    def __init__(self, power: int, **arguments: Any):
        super().__init__(**arguments, doubly_reparameterised=True)
        self.power = power

    def __call__(self, model: Any, batch: Batch, numbers: Any) -> Any:
        mu, logvar = model.encode(batch.x, batch.labels)
        z = mu + batch.noise * (0.5 * logvar).exp()
        recon = self.likelihood.nll(
            model.decode(z.flatten(0, 1), batch.labels.repeat(self.num_draws)),
            batch.x.repeat(self.num_draws, 1, 1, 1),
        )
        kl = Normal(mu.detach(), (0.5 * logvar.detach()).exp()).log_prob(z).sum(2)
        log_w = -recon.view(z.shape[:2]) - numbers["beta"] * (kl - model.prior_density().log_prob(z))
        weights = log_w.detach().softmax(0)[:, :, None] ** self.power
        z.register_hook(lambda gradient: gradient * weights)
        return Terms(-log_w.logsumexp(0).mean(), {})


def in_blocks(model: VAE, objective: IWAE, batch: Batch, beta: float, blocks: int, size: int) -> dict[str, Tensor]:
    """The gradient of each parameter over draws for one image: (blocks, numel), each the mean of ``size``."""
    rows: dict[str, list[Tensor]] = {}
    for seed in range(blocks):
        given = draws_of(size, objective.num_draws, batch, seed)
        for name, slope in gradients(model, objective, given, beta).items():
            rows.setdefault(name, []).append(slope.flatten())
    return {name: torch.stack(row) for name, row in rows.items()}


def z_of_difference(one: dict[str, Tensor], other: dict[str, Tensor], name: str) -> float:
    """The largest difference of means of a parameter's entries, in standard errors, for equal draws."""
    difference = one[name] - other[name]
    error = difference.std(0) / math.sqrt(len(difference))
    return (difference.mean(0).abs() / error.clamp(min=1e-15)).max().item()


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("kind", "beta"),
    [("prior of encoded images", 1.0), ("base", 1.0), ("conditional", 1.0), ("base", 0.5), ("conditional", 2.0)],
)
def test_both_gradients_have_the_same_expectation(kind, beta):
    """Over 160,000 times 4 draws. What depends on the encoder directly, as this prior, keeps the usual weights; so
    does a learned prior of classes, in whose units latents are."""
    model, batch = MODELS[kind](), batch_of(1)
    sizes = 80, 2000
    plain = in_blocks(model, IWAE(num_samples=4), batch, beta, *sizes)
    doubly = in_blocks(model, IWAE(num_samples=4, doubly_reparameterised=True), batch, beta, *sizes)
    wrong = [in_blocks(model, OtherFactor(power, num_samples=4), batch, beta, *sizes) for power in (0, 1)]
    for name in plain:
        if "decoder" in name:
            torch.testing.assert_close(doubly[name], plain[name], rtol=1e-10, atol=1e-14)
    encoder = [name for name in plain if "decoder" not in name]
    largest = [max(z_of_difference(found, plain, name) for name in encoder) for found in (doubly, *wrong)]
    print("standard errors", largest)
    assert max(plain[name].mean(0).abs().max() for name in encoder) > 1e-3
    assert largest[0] < 4.5  # of about 60 entries
    # negative controls: without the second factor of the weights, and, unless beta = 1, with the one of beta = 1
    assert largest[1] > 10
    assert (largest[2] == pytest.approx(largest[0])) if beta == 1 else (largest[2] > 10)


def test_with_many_draws_the_encoders_gradient_varies_less():
    model, batch = base(), batch_of(1)
    variances = {}
    for doubly in (False, True):
        objective = IWAE(num_samples=64, doubly_reparameterised=doubly)
        found = in_blocks(model, objective, batch, 1.0, blocks=300, size=1)
        for part in ("decoder", ""):
            rows = [row.var(0).sum() for name, row in found.items() if name.startswith("decoder") == bool(part)]
            variances[doubly, part] = torch.stack(rows).sum().item()
    print("variances", {str(key): value for key, value in variances.items()})
    assert variances[True, ""] < variances[False, ""] / 2
    assert variances[True, "decoder"] == pytest.approx(variances[False, "decoder"], rel=1e-9)


# --- engines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("kind", MODELS)
def test_runs_of_a_stack_get_what_they_would_alone(kind, draws):
    models = [MODELS[kind](seed=seed) for seed in range(3)]
    batches = [batch_of(5, draws=draws, seed=seed) for seed in range(3)]
    for found, alone in batched_and_alone(models, IWAE(num_samples=draws), batches, [1.0, 4.0, 0.5]):
        for one, other in zip(found, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


def test_only_the_plain_gradient_goes_through_vmap():
    assert IWAE().vmap
    assert not IWAE(doubly_reparameterised=True).vmap
    assert IWAE.vmap
    # why it says so: the hook on z is lost there
    objective = IWAE(num_samples=2, doubly_reparameterised=True)
    ((found, alone),) = batched_and_alone([base()], objective, [batch_of(3, draws=2)], [1.0])
    assert not all(torch.allclose(one, other, rtol=1e-6) for one, other in zip(found, alone, strict=True))


@pytest.mark.parametrize("doubly", [False, True])
def test_without_gradients_the_value_is_the_same(doubly):
    """As in evaluation, where no hook can be set."""
    model, batch = base(), batch_of(4, draws=3)
    objective = IWAE(num_samples=3, doubly_reparameterised=doubly)
    loss = objective(model, batch, {"beta": 1.0}).loss.item()
    with torch.inference_mode():
        assert objective(model, batch, {"beta": 1.0}).loss.item() == loss


@pytest.mark.parametrize("doubly", [False, True])
def test_it_runs_in_bf16(doubly):
    model, batch = base().float(), batch_of(32, draws=3)
    batch = batch._replace(x=batch.x.float(), noise=batch.noise.float())
    objective = IWAE(num_samples=3, doubly_reparameterised=doubly)
    terms = objective(in_precision(model, "bf16", batch.x), batch, {"beta": 1.0})
    assert terms.loss.dtype == torch.float32
    assert terms.loss.item() == pytest.approx(objective(model, batch, {"beta": 1.0}).loss.item(), rel=0.01)
    terms.loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_it_uses_its_own_likelihood():
    model, batch = base(), batch_of(4, draws=2)
    terms = IWAE(Gaussian(0.3), num_samples=2)(model, batch, {"beta": 1.0})
    mu, logvar = model.encode(batch.x)
    z = mu + batch.noise * (0.5 * logvar).exp()
    expected = torch.stack([Gaussian(0.3).nll(model.decode(one), batch.x) for one in z]).mean()
    assert terms.parts["recon"].item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("num_samples", [0, -1])
def test_less_than_one_draw_is_refused(num_samples):
    with pytest.raises(ValueError, match=f"num_samples must be >= 1, got {num_samples}"):
        IWAE(num_samples=num_samples)

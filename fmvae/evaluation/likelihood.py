"""The terms of the ELBO on a split, and the tighter importance-weighted bound."""

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from fmvae.common.phases import phase
from fmvae.data import Split
from fmvae.data.split import to_float
from fmvae.errors import ConfigError
from fmvae.evaluation.partial import Partial
from fmvae.models import VAE, Posteriors, encode_split
from fmvae.models.modes import in_evaluation_mode
from fmvae.objectives import Batch, Density, Likelihood, Objective, StandardNormal, draw_noise

LogDensity = Callable[[Tensor, Tensor], Tensor]  # of z (..., latent_dim) and labels that expand to (...)
EVALUATION_BATCH = 500
DECODED_ROWS = 1024  # latents decoded at once for the importance-weighted bound; more are not faster
log = logging.getLogger("fmvae")


@torch.inference_mode()
def measure_elbo(
    model: VAE,
    objective: Objective,
    split: Split,
    generator: torch.Generator,
    *,
    at_mean: bool = False,
    batch_size: int = EVALUATION_BATCH,
    num_train: int | None = None,
) -> dict[str, float]:
    """Return the mean terms over a split, in nats per image, with one posterior draw per image.

    Schedules have their final values, so that epochs can be compared. The KL from a prior without a closed form is
    estimated at the same draw.

    Args:
        generator: the stream of the posterior draws, on the model's device.
        at_mean: also decode the posterior means, as many published tables do.
        batch_size, num_train: images in a training batch and in the training split, for objectives that depend on
            them; by default, ``num_train`` is the size of this split.

    Returns:
        ``objective``, ``recon``, ``kl``, ``neg_elbo`` (= recon + kl); with ``at_mean`` also ``recon_at_mean``, and
        ``objective_at_mean`` if the objective is a function of the two terms; then what the likelihood has learned
        (``sigma``), and the objective's other parts.
    """
    sums: dict[str, torch.Tensor] = {}

    def add(name: str, per_image: torch.Tensor) -> None:
        sums[name] = sums.get(name, 0) + per_image.double().sum()

    with in_evaluation_mode(model, objective):
        prior = model.prior_density()
        for x, labels in split.batches(EVALUATION_BATCH):
            output = model(x, labels, generator=generator)
            add("recon", objective.likelihood.nll(output.logits, x))
            add("kl", prior.kl(output.mu, output.logvar, output.z))
            if at_mean:
                add("recon_at_mean", objective.likelihood.nll(model.decode(output.mu, labels), x))
        means = {name: (total / len(split)).item() for name, total in sums.items()}
        loss, others = objective.of_means(means["recon"], means["kl"]), {}
        if loss is None:
            others = _mean_parts(model, objective, split, generator, batch_size, num_train or len(split))
            loss = others.pop("objective")
    result = {"objective": loss, **means}
    result["neg_elbo"] = means["recon"] + means["kl"]
    if at_mean and (loss := objective.of_means(means["recon_at_mean"], means["kl"])) is not None:
        result["objective_at_mean"] = loss
    return result | objective.likelihood.learned() | others


def _mean_parts(
    model: VAE, objective: Objective, split: Split, generator: torch.Generator, batch_size: int, num_train: int
) -> dict[str, float]:
    """Average ``objective`` and its parts other than recon and kl over batches, weighted by batch size."""
    sums: dict[str, float] = {}
    numbers = objective.numbers(1.0)
    for x, labels in split.batches(batch_size):
        noise = draw_noise(x, model.latent_dim, objective.num_draws, generator)
        terms = objective(model, Batch(x, labels, noise, num_train), numbers)
        for name, value in {"objective": terms.loss, **terms.parts}.items():
            if name not in ("recon", "kl"):
                sums[name] = sums.get(name, 0.0) + value.item() * len(x)
    return {name: total / len(split) for name, total in sums.items()}


@torch.inference_mode()
def importance_weighted_bound(
    model: VAE,
    objective: Objective,
    split: Split,
    generator: torch.Generator,
    *,
    num_samples: int = 64,
    num_images: int = 1000,
    partial: Partial | None = None,
    density: LogDensity | None = None,
) -> float:
    """Return the negative importance-weighted bound -L_K of log p(x) (Burda et al. 2016, eq. 8), K = num_samples.

    Its expectation is at most that of ``neg_elbo``, equal for K = 1, and falls towards -log p(x) as K grows.
    Decoding uses the model's dtype, everything after it float64. Beta has no effect.

    Args:
        generator: the stream of the posterior draws, on the model's device. Draws are made image by image, so that
            the result does not depend on the batch size of decoding.
        num_samples: posterior draws per image, >= 1.
        num_images: use this many images from the start of the split, >= 1, or all if it has fewer.
        partial: where to keep the bounds of the images so far. What an earlier call has kept there is continued,
            with the same bits.
        density: log p(z) in place of the model's prior, as of a density fitted after training. The bound is then
            that of the model with this prior.

    Returns:
        The mean over the images, in nats per image; lower is better.

    Raises:
        ConfigError: num_samples or num_images is below 1.
    """
    for name, value in (("num_samples", num_samples), ("num_images", num_images)):
        if value < 1:
            raise ConfigError(f"evaluation.iwae.{name}", f"{value} is too few", "give 1 or more")
    posteriors = encode_split(model, split, num_images)
    num_images = len(posteriors.labels)
    per_chunk = max(1, DECODED_ROWS // num_samples)
    partial = partial or Partial()
    bounds = _continued(partial, generator)
    what, detail = "importance-weighted bound", f" of {num_images:,} images, {num_samples:,} draws each"
    bar = phase(what, num_images, done=len(bounds), detail=detail)
    with in_evaluation_mode(model, objective), bar as current:
        log_prior = density or _log_prior(model.prior_density())
        for start in range(len(bounds), num_images, per_chunk):
            chunk = Posteriors(*(part[start : start + per_chunk] for part in posteriors))
            x = to_float(split.images[start : start + len(chunk.labels)])
            noise = torch.stack([_noise(mu, num_samples, generator) for mu in chunk.mu])  # (B, K, latent_dim)
            # more than one part only if a single image has more draws than DECODED_ROWS
            parts = noise.split(DECODED_ROWS, dim=1)
            weights = [_log_weights(model, objective.likelihood, log_prior, x, chunk, part) for part in parts]
            found = math.log(num_samples) - torch.cat(weights, dim=1).logsumexp(1)
            bounds = torch.cat([bounds, found])
            current.advance(len(found))
            if partial.is_due:
                partial.keep({"bounds": bounds, "generator": generator.get_state()})
    return bounds.mean().item()


def _continued(partial: Partial, generator: torch.Generator) -> Tensor:
    """Return the bounds (N,) of the images that an earlier call has measured, and restore its generator.

    N is 0 if there are none. On a GPU too, they are on the generator's device, where their mean is taken.
    """
    kept, _ = partial.read()
    if not kept:
        return torch.empty(0, dtype=torch.float64, device=generator.device)
    generator.set_state(kept["generator"])
    log.info("  continuing after %s images", f"{len(kept['bounds']):,}")
    return kept["bounds"].to(generator.device)


def _log_prior(prior: Density) -> LogDensity | None:
    """Return log p(z) of a model's prior; None for N(0, 1), whose logarithm simplifies."""
    return None if prior.is_standard else lambda z, labels: prior.log_prob(z)


def _noise(mu: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
    """Draw standard normal noise (num_samples, latent_dim) in float64 for one image's mu (latent_dim,)."""
    return torch.randn(num_samples, len(mu), generator=generator, device=mu.device, dtype=torch.float64)


def _log_weights(
    model: VAE,
    likelihood: Likelihood,
    log_prior: LogDensity | None,
    x: Tensor,
    posteriors: Posteriors,
    noise: Tensor,
) -> Tensor:
    """Return log p(x | z) + log p(z) - log q(z | x) at z = mu + noise * exp(logvar / 2), in float64.

    Args:
        log_prior: None for N(0, 1).
        x: (B, C, H, W), in [0, 1].
        noise: (B, K, latent_dim) in float64.

    Returns:
        (B, K), in nats.
    """
    num_images, num_samples, _ = noise.shape
    mu, logvar = posteriors.mu.double()[:, None], posteriors.logvar.double()[:, None]  # (B, 1, latent_dim)
    z = mu + noise * (0.5 * logvar).exp()
    labels = posteriors.labels.repeat_interleave(num_samples)
    logits = model.decode(z.flatten(0, 1).to(posteriors.mu.dtype), labels)  # (B * K, C, H, W)
    # the likelihood in float64 too: a sum of 784 float32 terms has an error of about 1e-5 nats, inside exp
    nll = likelihood.nll(logits.double(), x.double().repeat_interleave(num_samples, dim=0))
    # log N(z; 0, 1) - log q(z | x), where 2 pi cancels
    log_ratio = 0.5 * (noise.square() + logvar - z.square()).sum(2)
    if log_prior is not None:
        log_prob = log_prior(z, posteriors.labels[:, None])
        log_ratio = log_ratio + log_prob - StandardNormal(model.latent_dim, z).log_prob(z)
    return log_ratio - nll.view(num_images, num_samples)

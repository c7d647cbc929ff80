"""The ELBO of a split, term by term."""

import torch

from fmvae.data import Split
from fmvae.models import VAE
from fmvae.objectives import Objective

EVALUATION_BATCH = 500


@torch.inference_mode()
def measure_elbo(
    model: VAE,
    objective: Objective,
    split: Split,
    generator: torch.Generator,
    *,
    at_mean: bool = False,
) -> dict[str, float]:
    """The mean terms over a split, in nats per image, with one posterior draw per image.

    The weight of the KL is the schedule's final one, so that epochs compare.

    Args:
        generator: the stream of the posterior draws, on the model's device.
        at_mean: also decode the posterior means, as many published tables do.

    Returns:
        ``objective``, ``recon``, ``kl``, ``neg_elbo`` (= recon + kl); with ``at_mean`` also ``recon_at_mean`` and
        ``objective_at_mean``.
    """
    was_training = model.training
    model.eval()
    sums: dict[str, torch.Tensor] = {}

    def add(name: str, per_image: torch.Tensor) -> None:
        sums[name] = sums.get(name, 0) + per_image.double().sum()

    for x, labels in split.batches(EVALUATION_BATCH):
        output = model(x, labels, generator=generator)
        terms = objective.terms(output.logits, x, output.mu, output.logvar)
        add("recon", terms.recon)
        add("kl", terms.kl)
        if at_mean:
            add("recon_at_mean", objective.likelihood.nll(model.decode(output.mu, labels), x))
    model.train(was_training)

    means = {name: (total / len(split)).item() for name, total in sums.items()}
    result = {"objective": objective(means["recon"], means["kl"]), **means}
    result["neg_elbo"] = means["recon"] + means["kl"]
    if at_mean:
        result["objective_at_mean"] = objective(means["recon_at_mean"], means["kl"])
    return result

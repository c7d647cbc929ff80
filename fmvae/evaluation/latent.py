"""Measures of latents: KL and activity of each dimension, q(z) compared with the prior, a linear probe."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmvae.common.phases import phase
from fmvae.models import Posteriors
from fmvae.objectives import kl_divergence

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, sec. 5.3
# numbers that compare posteriors with N(0, I)
OF_STANDARD_PRIOR = ("kl_per_dimension", "aggregate_mean_norm", "aggregate_covariance_gap", "aggregate_kl")
PROBE_L2 = 1e-4
PROBE_STEPS = 500  # an upper bound for pathological cases; standardised latents converge earlier

Array = NDArray[np.float64]


def latent_measures(
    train: Posteriors | None, test: Posteriors, num_classes: int, *, standard_prior: bool = True
) -> dict[str, Any]:
    """Compute measures of the test images' posteriors, in float64 on the CPU; return floats, ints and lists.

    m and S are the exact mean and covariance of the aggregate posterior q(z), the mixture of the test images'
    posteriors (Hoffman & Johnson 2016); the covariance is normalised by N.

    Args:
        train: posteriors to fit the linear probe on; classes may be missing. None omits the probe.
        test: posteriors to measure, of N images and latent_dim dimensions.
        num_classes: labels are in [0, num_classes).
        standard_prior: whether the prior is N(0, I). If not, the numbers that compare with N(0, I) are left out:
            ``kl_per_dimension``, ``aggregate_mean_norm``, ``aggregate_covariance_gap`` and ``aggregate_kl``.

    Returns:
        ``num_images``: N.
        ``kl_per_dimension``: latent_dim numbers in nats per image, >= 0; their sum is the test KL.
        ``mu_variance``: latent_dim numbers, the variance of mu over the images.
        ``active_units``: the number of dimensions where that variance is above 0.01 (Burda et al. 2016, sec. 5.3).
        ``aggregate_mean_norm``: the Euclidean norm of m; 0 for the prior.
        ``aggregate_covariance_gap``: the Frobenius norm of S - I; 0 for the prior.
        ``aggregate_kl``: KL(N(m, S) || N(0, I)) in nats, >= 0 up to rounding.
        ``gaussian_total_correlation``: KL(N(m, S) || N(m, diag S)) in nats, >= 0 up to rounding: of the Gaussian
        with the moments of q(z), not of q(z) itself (see ``fmvae.evaluation.decomposition``).
        ``linear_probe_accuracy``: in [0, 1], see ``probe_accuracy``.

    Raises:
        IndexError: a training label is not below num_classes.
    """
    mu = _float64(test.mu)
    mean, explained, unexplained = mu.mean(0), _covariance(mu), np.exp(_float64(test.logvar)).mean(0)
    mu_variance = explained.diagonal()
    covariance = explained + np.diag(unexplained)  # law of total variance
    log_determinant = _log_determinant(explained, unexplained)
    mahalanobis = np.trace(covariance) + np.square(mean).sum() - len(mean)
    kl = kl_divergence(test.mu.cpu().double(), test.logvar.cpu().double()).mean(0)
    measures = {
        "num_images": len(mu),
        "kl_per_dimension": kl.tolist(),
        "mu_variance": mu_variance.tolist(),
        "active_units": int((mu_variance > ACTIVE_VARIANCE).sum()),
        "aggregate_mean_norm": float(np.linalg.norm(mean)),
        "aggregate_covariance_gap": float(np.linalg.norm(covariance - np.eye(len(mean)))),
        "aggregate_kl": float(0.5 * (mahalanobis - log_determinant)),
        "gaussian_total_correlation": float(0.5 * (np.log(covariance.diagonal()).sum() - log_determinant)),
    }
    if not standard_prior:
        measures = {name: value for name, value in measures.items() if name not in OF_STANDARD_PRIOR}
    if train is not None:
        measures["linear_probe_accuracy"] = probe_accuracy(train, test, num_classes)
    return measures


def probe_accuracy(train: Posteriors, test: Posteriors, num_classes: int) -> float:
    """Return the test accuracy of a linear classifier on mu, fitted on the training posteriors.

    Multinomial logistic regression (Alain & Bengio 2017) on mu, standardised with its training mean and standard
    deviation. The optimum is unique, so that the result depends on the latents and not on the optimiser.
    """
    mu = _float64(train.mu)
    mean, deviation = mu.mean(0), mu.std(0)
    used = deviation > 1e-6 * np.abs(mean)  # the others are constant up to float32 rounding

    def inputs(mu: Array) -> Array:
        """Return the standardised dimensions, and a column of ones for the bias: (N, num_used + 1)."""
        standardised = (mu[:, used] - mean[used]) / deviation[used]
        return np.column_stack([standardised, np.ones(len(mu))])

    with phase("linear probe", PROBE_STEPS, counted=True, minor=True) as current:
        weights = fit_probe(inputs(mu), train.labels.cpu().numpy(), num_classes, current.advance)
    predicted = (inputs(_float64(test.mu)) @ weights).argmax(1)
    return float((predicted == test.labels.cpu().numpy()).mean())


def fit_probe(
    inputs: Array, labels: NDArray[np.int64], num_classes: int, stepped: Callable[[], None] | None = None
) -> Array:
    """Return weights (D, num_classes) that minimise mean cross-entropy + PROBE_L2 / 2 * (sum of squared weights).

    The bias is penalised too, so that a unique minimum exists for all labels, even if a class is missing or the
    classes are separable.

    Args:
        inputs: (N, D).
        labels: (N,), in [0, num_classes).
        stepped: called after each of at most PROBE_STEPS steps.
    """
    from scipy.optimize import minimize  # slow to import, and training needs none of it

    one_hot = np.eye(num_classes)[labels]

    def loss_and_gradient(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(-1, num_classes)
        logits = inputs @ weights
        logits -= logits.max(1, keepdims=True)
        exponentials = np.exp(logits)
        totals = exponentials.sum(1, keepdims=True)
        cross_entropy = np.log(totals).mean() - np.vdot(one_hot, logits) / len(inputs)
        residuals = exponentials / totals - one_hot
        gradient = inputs.T @ residuals / len(inputs) + PROBE_L2 * weights
        return float(cross_entropy + 0.5 * PROBE_L2 * np.vdot(weights, weights)), gradient.ravel()

    start = np.zeros(inputs.shape[1] * num_classes)
    # stop by the gradient only: the default criterion on the loss can stop far from the optimum
    options = {"maxiter": PROBE_STEPS, "gtol": 1e-5, "ftol": 0.0}
    found = minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options=options,
        callback=stepped and (lambda _: stepped()),
    )
    return found.x.reshape(-1, num_classes)


def _float64(tensor: Tensor) -> Array:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _covariance(samples: Array) -> Array:
    centred = samples - samples.mean(0)
    return centred.T @ centred / len(samples)


def _log_determinant(covariance: Array, variances: Array) -> float:
    """Return log det(covariance + diag(variances)) for a semidefinite covariance and positive variances.

    Scaled by the variances, the sum is I + a semidefinite matrix. Its eigenvalues are >= 1, so rounding cannot
    make the argument of the logarithm <= 0, even if the latents are almost linearly dependent.
    """
    scale = 1 / np.sqrt(variances)
    scaled = np.linalg.eigvalsh(covariance * scale * scale[:, None]).clip(min=0)
    return float(np.log(variances).sum() + np.log1p(scaled).sum())

"""Observation models p(x | logits): the reconstruction term, and the expected image."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

# one grey level of 8-bit images: a narrower density would gain likelihood from the rounding of pixels to levels
SMALLEST_SIGMA = 1 / 255
Method = Literal["optimal", "trained"]


class Likelihood(ABC):
    """A factorised observation model over pixels, parametrised by the decoder's logits.

    One with parameters or state of its own is an ``nn.Module`` too, as ``LearnedGaussian``.
    """

    @abstractmethod
    def nll(self, logits: Tensor, x: Tensor) -> Tensor:
        """Return the negative log-likelihood of each image.

        Args:
            logits: (B, C, H, W), unbounded.
            x: (B, C, H, W), in [0, 1].

        Returns:
            (B,), in nats, summed over pixels.
        """

    @abstractmethod
    def mean(self, logits: Tensor) -> Tensor:
        """Return the expected image: same shape as ``logits``, in [0, 1]. It is what figures and measures use."""

    def learned(self) -> dict[str, float]:
        """Return what training has found out about the likelihood, by name, to be recorded; {} for nothing."""
        return {}

    def stacked(self) -> Likelihood:
        """Return the likelihood that gives the bits of this one under ``torch.vmap``, for runs in a stack."""
        return self


def _cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy (B,), summed over an image's pixels."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


class _StackedCrossEntropy(Function):
    """``_cross_entropy`` for the batched pass of a stack; the images get no gradient.

    Under ``torch.vmap``, torch's own function is decomposed into about a dozen operations that round differently;
    this one is called once for the images of all runs. Outside of ``vmap`` it gives the same bits, more slowly.
    """

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:
        return _cross_entropy(logits, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, x = ctx.saved_tensors
        return logits.sigmoid().sub_(x).mul_(grads[0].view(-1, *[1] * (x.dim() - 1))), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], *inputs: Tensor) -> tuple[Tensor, int]:
        """Compute the images of all runs as one batch."""
        logits, x = (
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(inputs, in_dims, strict=True)
        )
        found = _StackedCrossEntropy.apply(logits.flatten(0, 1), x.flatten(0, 1))
        return found.view(logits.shape[:2]), 0


class Bernoulli(Likelihood):
    """Each logit gives the probability of a white pixel; nll is the binary cross-entropy, for grey values too.

    Kingma & Welling 2014.
    """

    _nll: Callable[[Tensor, Tensor], Tensor] = staticmethod(_cross_entropy)

    def nll(self, logits: Tensor, x: Tensor) -> Tensor:
        return self._nll(logits, x)

    def mean(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def stacked(self) -> Bernoulli:
        stacked = copy.copy(self)
        stacked._nll = _StackedCrossEntropy.apply
        return stacked


class ContinuousBernoulli(Likelihood):
    """The Bernoulli normalised over [0, 1], a density for grey values (Loaiza-Ganem & Cunningham 2019).

    In terms of the logits l, the normaliser is l coth(l / 2) and the mean is (1 + coth(l / 2)) / 2 - 1 / l.
    ``torch.distributions`` computes with clamped probabilities, and is wrong beyond abs(l) = 15 in float32.
    """

    def nll(self, logits: Tensor, x: Tensor) -> Tensor:
        near, small, large = self._by_size(logits)
        s = small.square()
        series = math.log(2) + s * (1 / 12 - s * (7 / 1440 - s * (31 / 90720)))
        log_normaliser = torch.where(near, series, (large / (large / 2).tanh()).log())
        bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        return (bce - log_normaliser).flatten(1).sum(1)

    def mean(self, logits: Tensor) -> Tensor:
        near, small, large = self._by_size(logits)
        s = small.square()
        series = 0.5 + small * (1 / 12 - s * (1 / 720 - s / 30240))
        return torch.where(near, series, 0.5 + 0.5 / (large / 2).tanh() - 1 / large)

    @staticmethod
    def _by_size(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a mask of logits near 0, where coth(l / 2) has a pole and its series is used; those; the others.

        In the last two, the excluded entries are a harmless constant, as ``where`` lets NaN gradients through.
        """
        near = logits.abs() < 0.1
        return near, logits.where(near, 0.0), logits.where(~near, 1.0)


class Gaussian(Likelihood):
    """A normal density around sigmoid(logits), with one fixed standard deviation for all pixels.

    Args:
        sigma: standard deviation in units of pixel intensity, > 0.
    """

    def __init__(self, sigma: float = 0.1):
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma must be finite and > 0, got {sigma}")
        self.sigma = sigma

    def nll(self, logits: Tensor, x: Tensor) -> Tensor:
        squares = ((x - torch.sigmoid(logits)) / self.sigma).square()
        return (0.5 * squares + math.log(self.sigma) + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def mean(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class LearnedGaussian(Likelihood, nn.Module):
    """A normal density around sigmoid(logits), with one standard deviation for all pixels that is learned.

    Rybkin et al. 2021, "Simple and effective VAE training with calibrated decoders". The weight between
    reconstruction and KL is then learned too: sigma^2 of a Gaussian acts like beta.

    Args:
        method: ``optimal``: in training mode, sigma^2 is the mean squared error of the batch, at which the batch's
            mean nll is smallest. It is detached: at a minimum the derivative by sigma is 0, so that the mean nll
            has the same gradients. With K draws of each image (IWAE), the mean is over all draws. In evaluation
            mode, sigma^2 is a running mean over training batches, so that the nll of an image does not depend on
            the others. ``trained``: log sigma is a parameter. Adam moves it by about its learning rate a step, so
            that 1,600 steps of 0.001 lead from 0.5 to 0.1; a ``start`` nearby saves them.
        start: sigma before training, in units of pixel intensity, > 1/255. The default is the largest standard
            deviation that values in [0, 1] can have.

    Sigma never falls below one grey level (1/255), or the loss of images that can be reconstructed exactly would
    fall without limit.

    Attributes:
        log_sigma: the parameter () of ``trained``, with sigma^2 = exp(2 log_sigma) + 1/255^2: unlike a clamp, it
            has a gradient everywhere.
        variance: the running mean () of ``optimal``: over all batches up to ``horizon``, then exponential.
        num_batches: how many batches it has seen, ``horizon`` at most. Like the statistics of batch
            normalisation, both change in place.
    """

    horizon = 50  # batches: a longer mean would be of a model of long ago, a shorter one would be noisier
    log_sigma: Tensor
    variance: Tensor
    num_batches: Tensor

    def __init__(self, method: Method = "optimal", start: float = 0.5):
        super().__init__()
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
        if not (math.isfinite(start) and start > SMALLEST_SIGMA):
            raise ValueError(f"start must be finite and > 1/255, got {start}")
        self.method = method
        if method == "trained":
            self.log_sigma = nn.Parameter(torch.tensor(0.5 * math.log(start**2 - SMALLEST_SIGMA**2)))
        else:
            self.register_buffer("variance", torch.tensor(start**2))
            self.register_buffer("num_batches", torch.tensor(0.0))

    def nll(self, logits: Tensor, x: Tensor) -> Tensor:
        squares = (x - logits.sigmoid()).square().flatten(1)  # (B, pixels)
        errors, num_pixels = squares.sum(1), squares.shape[1]
        variance = self._variance(errors.mean() / num_pixels)
        return 0.5 * (errors / variance + num_pixels * (variance.log() + math.log(2 * math.pi)))

    def mean(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def learned(self) -> dict[str, float]:
        """Return ``sigma`` as evaluation uses it, in units of pixel intensity."""
        variance = (2 * self.log_sigma).exp() + SMALLEST_SIGMA**2 if self.method == "trained" else self.variance
        return {"sigma": max(variance.item() ** 0.5, SMALLEST_SIGMA)}

    def _variance(self, error: Tensor) -> Tensor:
        """Return sigma^2 () for a batch with this mean squared error (); in training mode, count the batch."""
        if self.method == "trained":
            return (2 * self.log_sigma).exp() + SMALLEST_SIGMA**2
        if self.training:
            found = error.detach()
            with torch.no_grad():
                self.num_batches.copy_((self.num_batches + 1).clamp(max=self.horizon))
                self.variance.add_((found - self.variance) / self.num_batches)
        else:
            found = self.variance.to(error.dtype)
        return found.clamp(min=SMALLEST_SIGMA**2)


class Laplace(Likelihood):
    """A Laplace density around sigmoid(logits), with one fixed scale for all pixels; nll is an L1 distance.

    Args:
        scale: mean absolute deviation in units of pixel intensity, > 0.
    """

    def __init__(self, scale: float = 0.1):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be finite and > 0, got {scale}")
        self.scale = scale

    def nll(self, logits: Tensor, x: Tensor) -> Tensor:
        return ((x - logits.sigmoid()).abs() / self.scale + math.log(2 * self.scale)).flatten(1).sum(1)

    def mean(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

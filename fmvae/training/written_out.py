"""The two terms of the fully connected VAE with their gradients written out, for training on a CPU.

At its sizes a step is a few matrix products and many small operations, and recording those for autograd takes
time. These are autograd's operations in its order, so that no bit differs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _has_any_global_hook

from fmvae.models import VAE, BaseVAE
from fmvae.objectives import Bernoulli, Objective

LAYERS = [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.Linear, nn.Linear, nn.ReLU, nn.Linear, nn.Unflatten]
METHODS = {"forward", "encode", "reparameterize", "decode", "terms", "nll"}  # that go into the terms
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
relu_backward = torch.ops.aten.threshold_backward


def base_as_built(model: VAE, objective: Objective, x: Tensor) -> BaseVAE | None:
    """The model, if it is what this module is about: BaseVAE as built, its Bernoulli terms, on a CPU.

    What is replaced on an object, hooked, compiled, frozen, or in autocast is left to autograd, which heeds it; so
    is a gradient of x. This is asked at each step, so in few operations.
    """
    if not (type(model) is BaseVAE and type(model.encoder) is type(model.decoder) is nn.Sequential):
        return None
    if not (type(objective) is Objective and type(objective.likelihood) is Bernoulli):
        return None
    if x.device.type != "cpu" or x.requires_grad or torch.is_autocast_enabled("cpu") or _has_any_global_hook():
        return None
    layers = _layers(model)
    if [type(layer) for layer in layers] != LAYERS:
        return None
    modules = [model, model.encoder, model.decoder, *layers]
    if not all(METHODS.isdisjoint(vars(part)) for part in (objective, objective.likelihood, *modules)):
        return None
    if any(vars(module)[hooks] for module in modules for hooks in HOOKS):
        return None
    if any(module._compiled_call_impl is not None for module in modules):
        return None
    for layer in layers:
        for p in vars(layer)["_parameters"].values():
            if p is None or not (p.requires_grad and p.is_contiguous()):
                return None
    return model


def mean_terms(model: BaseVAE, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The means over the batch of both terms, as ``Objective.terms`` of the model's output gives them.

    They have gradients in the parameters alone, and those have none.

    Args:
        x: (B, C, H, W), in [0, 1].
        noise: (B, latent_dim), of the posterior draws.
    """
    linear = (layer for layer in _layers(model) if isinstance(layer, nn.Linear))
    return _MeanTerms.apply(x.flatten(1), noise, *(p for layer in linear for p in (layer.weight, layer.bias)))


def _layers(model: BaseVAE) -> list[nn.Module]:
    return [*model.encoder, model.mu, model.logvar, *model.decoder]


class _MeanTerms(Function):
    """x -> h -> (mu, logvar) -> z -> g -> logits; h and g are the hidden layers of encoder and decoder."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        w_h, b_h, w_mu, b_mu, w_logvar, b_logvar, w_g, b_g, w_x, b_x = parameters
        h = F.linear(x, w_h, b_h).relu_()
        mu, logvar = F.linear(h, w_mu, b_mu), F.linear(h, w_logvar, b_logvar)
        std = (0.5 * logvar).exp_()
        z = (noise * std).add_(mu)
        g = F.linear(z, w_g, b_g).relu_()
        logits = F.linear(g, w_x, b_x)
        recon = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        excess = logvar.expm1()  # of the variance over the prior's
        kl = mu.square().add_(excess).sub_(logvar).mul_(0.5).sum(1)
        ctx.save_for_backward(x, noise, w_mu, w_logvar, w_g, w_x, h, mu, excess, std, z, g, logits)
        return recon.mean(), kl.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_recon, grad_kl = grads
        x, noise, w_mu, w_logvar, w_g, w_x, h, mu, excess, std, z, g, logits = ctx.saved_tensors
        d_logits = logits.sigmoid().sub_(x).mul_(grad_recon / len(x))
        d_g = relu_backward(d_logits.mm(w_x), g, 0)
        d_z = d_g.mm(w_g)
        half = grad_kl / len(x) * 0.5  # of one image's KL, and of the 1/2 in it
        d_mu = (mu * 2 * half).add_(d_z)
        d_logvar = (half * (excess + 1)).sub_(half).add_((d_z * noise).mul_(std).mul_(0.5))
        d_h = relu_backward(d_logvar.mm(w_logvar).add_(d_mu.mm(w_mu)), h, 0)
        layers = ((d_h, x), (d_mu, h), (d_logvar, h), (d_g, z), (d_logits, g))  # of each, d_output and input
        return None, None, *(gradient for d, y in layers for gradient in (d.T.mm(y), d.sum(0)))

"""Samplers: from what latents are drawn when a trained model generates images (``evaluation.samplers``)."""

from fmvae.evaluation.samplers.base import Latents, Sampler
from fmvae.evaluation.samplers.registry import check_samplers, fit_settings, make_sampler
from fmvae.evaluation.samplers.store import SamplerStore

__all__ = ["Latents", "Sampler", "SamplerStore", "check_samplers", "fit_settings", "make_sampler"]

"""The variational autoencoders, each with five methods: encode, reparameterize, decode, forward, sample."""

from fmvae.models.base import BaseVAE
from fmvae.models.beta import BetaVAE
from fmvae.models.conditional import ConditionalVAE
from fmvae.models.conv import ConvVAE
from fmvae.models.vae import VAE, VAEOutput

__all__ = ["VAE", "BaseVAE", "BetaVAE", "ConditionalVAE", "ConvVAE", "VAEOutput"]

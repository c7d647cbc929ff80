"""Models: variational autoencoders (encode, reparameterize, decode, forward, sample) and the classifier."""

from fmvae.models.beta import BetaVAE
from fmvae.models.conditional import ConditionalVAE
from fmvae.models.conv import ConvVAE
from fmvae.models.gated import GatedVAE
from fmvae.models.mlp import BaseVAE
from fmvae.models.posterior import Posteriors, encode_split
from fmvae.models.priors import FlowPrior, MixturePrior, Prior, StandardPrior, VampPrior
from fmvae.models.residual import ResidualVAE
from fmvae.models.resnet import ClassifierOutput, FashionResNet18
from fmvae.models.vae import VAE, LatentAxis, VAEOutput, separate_heads

__all__ = [
    "VAE",
    "BaseVAE",
    "BetaVAE",
    "ClassifierOutput",
    "ConditionalVAE",
    "ConvVAE",
    "FashionResNet18",
    "FlowPrior",
    "GatedVAE",
    "LatentAxis",
    "MixturePrior",
    "Posteriors",
    "Prior",
    "ResidualVAE",
    "StandardPrior",
    "VAEOutput",
    "VampPrior",
    "encode_split",
    "separate_heads",
]

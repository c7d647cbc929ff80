"""What a config may say: number shorthand, types and ranges, what names a run, and how it becomes objects."""

from fmvae.config.building import ALLOWED_TARGETS, build
from fmvae.config.composing import compose, composed_by, resolve, sweep_jobs
from fmvae.config.identity import NAMED_BY_CONTENT, NON_SEMANTIC, is_vae, semantic, whole
from fmvae.config.project import PROJECT_ROOT
from fmvae.config.shorthand import expand_shorthand
from fmvae.config.stored import ASKED_ANEW, NotAVAE, read_config, to_yaml

__all__ = [
    "ALLOWED_TARGETS",
    "ASKED_ANEW",
    "NAMED_BY_CONTENT",
    "NON_SEMANTIC",
    "PROJECT_ROOT",
    "NotAVAE",
    "build",
    "compose",
    "composed_by",
    "expand_shorthand",
    "is_vae",
    "read_config",
    "resolve",
    "semantic",
    "sweep_jobs",
    "to_yaml",
    "whole",
]

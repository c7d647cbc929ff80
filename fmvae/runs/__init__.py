"""A run on disk: its name, lock and status, its checkpoints, its records, and what produced it."""

from fmvae.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fmvae.runs.directory import RunDirectory, config_sha256, run_name
from fmvae.runs.recorder import Recorder

__all__ = [
    "Checkpoint",
    "Recorder",
    "RunDirectory",
    "config_sha256",
    "load_checkpoint",
    "run_name",
    "save_checkpoint",
]

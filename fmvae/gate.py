"""What a config, whoever wrote it, may have Hydra do; installed before it reads one, and in every worker.

Hydra would call what a config names as a callback, a logging handler, or an argument of its sweeper or launcher,
before any of our code has seen that config. Its own list of what is forbidden has os.system, but not torch.load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from hydra._internal import callbacks, logging_config
from hydra._internal.instantiate import _instantiate2 as instantiation
from omegaconf import DictConfig, OmegaConf

from fmvae.config import ALLOWED_TARGETS, PROJECT_ROOT
from fmvae.errors import ConfigError

OF_HYDRA = ("hydra_plugins.", "hydra._internal.core_plugins.", "optuna.samplers.")
VARIABLES = re.compile(r"(OMP|MKL|OPENBLAS)_NUM_THREADS|CUDA_VISIBLE_DEVICES")  # PATH, for one, decides what runs
# functions that conf/hydra/sweeper/optuna.yaml names
SEARCH = ("fmvae.search.direction", "fmvae.search.storage", "fmvae.search.trials_left")
LOGGING = PROJECT_ROOT / "conf" / "hydra" / "job_logging" / "fmvae.yaml"

_init_callbacks = callbacks.Callbacks.__init__
_resolve_target = instantiation._resolve_target
_configure_logging = logging_config.configure_logging


def install() -> None:
    """Set the three places at which Hydra calls what a config names."""
    callbacks.Callbacks.__init__ = no_callbacks
    logging_config.configure_logging = our_logging
    instantiation._resolve_target = known_class


def uninstall() -> None:
    """Hydra as it is, to see in tests what it would do."""
    callbacks.Callbacks.__init__ = _init_callbacks
    logging_config.configure_logging = _configure_logging
    instantiation._resolve_target = _resolve_target


def no_callbacks(self: callbacks.Callbacks, config: DictConfig | None = None) -> None:
    if config is not None and OmegaConf.select(config, "hydra.callbacks"):
        raise ConfigError("hydra.callbacks", "nothing is called from a config", "remove it")
    self.callbacks = []


def our_logging(settings: dict[str, Any]) -> None:
    """A handler may be any callable, and write to any file."""
    ours = yaml.safe_load(LOGGING.read_text())
    level = settings["root"].get("level")
    if not isinstance(level, str) or settings != {**ours, "root": {**ours["root"], "level": level}}:
        raise ConfigError("hydra.job_logging", "only its root.level may be changed", "remove the rest")
    _configure_logging(settings)


def known_class(target: Any, full_key: str) -> Any:
    """The class that a ``_target_`` names, if it is one of a VAE's parts or a plugin of Hydra's."""
    allowed = (*ALLOWED_TARGETS, *OF_HYDRA)
    name = target if isinstance(target, str) else f"{getattr(target, '__module__', '')}."
    found = _resolve_target(target, full_key) if name.startswith(allowed) else None
    if target in SEARCH:
        return found
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(allowed):
        raise ConfigError(f"{full_key or 'hydra'}._target_", f"{target!r} is not allowed", "remove it")
    return found


def check_environment(variables: Mapping[str, Any]) -> None:
    """``hydra.job.env_set`` of a config may say how many threads or which GPUs there are, and nothing else.

    Raises:
        ConfigError: it sets another variable.
    """
    for name in variables:
        if not VARIABLES.fullmatch(name):
            raise ConfigError(f"hydra.job.env_set.{name}", "not set from a config", "set it in the shell")

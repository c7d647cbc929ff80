"""Read the configs stored in run directories, as plain data and never through Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmvae.config.identity import RunIdentity, whole
from fmvae.config.own_code import refuse_in_files
from fmvae.config.schema import is_tree, validate
from fmvae.errors import ConfigError


class NotAVAE(ConfigError):
    """The run trained a classifier, which has no latents to measure."""


# groups that are not read from a stored config: evaluate.py composes them anew, and stored keys may be outdated
ASKED_ANEW = ("evaluation", "figures", "tracker")


def read_config(path: Path) -> dict[str, Any]:
    """Read a config stored in a run directory, without the groups in ``ASKED_ANEW``.

    It is read as plain YAML: tags are refused, and interpolations are not resolved.

    Raises:
        ConfigError: the file is missing, or is not the config of a run.
        NotAVAE: the run is a classifier's.
    """
    import yaml

    way_out = "run the training command again, it rewrites the file"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # much faster; not in every build of PyYAML
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except FileNotFoundError:
        raise ConfigError(path, "there is no such file", "name a run's directory") from None
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(path, f"not readable as YAML ({type(error).__name__})", way_out) from None
    if not is_tree(config):
        raise ConfigError(path, "not the config of a run (it has YAML aliases)", way_out)
    if isinstance(config, dict) and "trainer" in config and not {"beta", "latent_dim"} & config.keys():
        raise NotAVAE(
            path,
            "the config of a classifier's run",
            "name a VAE's; the classifier's results.json has its accuracy",
        )
    groups = ("model", "beta", "latent_dim", "data")
    if not isinstance(config, dict) or not all(isinstance(config.get(group), dict) for group in groups):
        raise ConfigError(path, "not the config of a run", way_out)
    refuse_in_files(config, path)
    try:
        found = whole(validate({key: value for key, value in config.items() if key not in ASKED_ANEW}))
        RunIdentity.of(found)
    except ConfigError as error:
        raise ConfigError(path, f"{error.subject}: {error.problem}", way_out) from None
    except (LookupError, TypeError, ValueError, AttributeError):  # the name needs a missing value
        raise ConfigError(path, "not the config of a run", way_out) from None
    return found


def to_yaml(config: Mapping[str, Any]) -> str:
    """Return a resolved config as YAML, with the keys in their order."""
    from omegaconf import OmegaConf  # reading a config does not need this import

    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))

"""What is done to the command line's arguments before Hydra reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

from hydra.core.override_parser.overrides_parser import OverridesParser

from fmvae import config as configs
from fmvae.errors import ConfigError
from fmvae.rules import RULES

# Hydra's flags that take the next argument as their value
VALUED = ("--config-name", "-cn", "--config-dir", "-cd", "--config-path", "-cp", "--package", "-p", "--cfg", "-c")


def list_paths(arguments: Sequence[str]) -> list[str]:
    """``run=a,b`` as the list ``run=[a,b]``: several runs to evaluate, not a sweep over them."""
    return [re.sub(r"^run=([^\[{].*,.*)$", r"run=[\1]", argument) for argument in arguments]


def flags_first(arguments: Sequence[str]) -> list[str]:
    """``seed=0,1 -m beta=2`` with its -m in front: Hydra reads no overrides on both sides of a flag."""
    flags, overrides = [], []
    before = ""
    for argument in arguments:
        (flags if argument.startswith("-") or before in VALUED else overrides).append(argument)
        before = argument
    return flags + overrides


def name_sweep(arguments: Sequence[str]) -> list[str]:
    """Give a multirun without a name one of its own overrides, so that the same command finds the same folder."""
    multirun = {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments)
    named = any(key_of(argument) in ("sweep_name", "sweep") for argument in arguments)  # sweeps/ have names
    if named or not multirun:
        return list(arguments)
    nameless = tuple(key for key in configs.NON_SEMANTIC if key not in configs.NAMED_BY_CONTENT)
    semantic = sorted(
        argument
        for argument in arguments
        if "=" in argument
        and not argument.startswith(("-", "hydra"))
        and not key_of(argument).startswith(nameless)
    )
    parsed = OverridesParser.create().parse_overrides(semantic)
    swept = dict.fromkeys(o.key_or_group.removesuffix(".value") for o in parsed if o.is_sweep_override())
    words = [re.sub(r"[^A-Za-z0-9._]", "", key) for key in swept] or ["sweep"]
    name = "-".join([*words, sha256("\n".join(semantic).encode()).hexdigest()[:8]])
    return [*arguments, f"sweep_name={name}"]


def check_removed(overrides: Sequence[str]) -> None:
    """Refuse ``~key``, unless it is an argument of a constructor that the program itself does not read."""
    for override in overrides:
        key = key_of(override)
        _, _, name = key.partition(".")
        needed = not name or name.startswith("_") or (key in RULES and not RULES[key].spare)
        if override.startswith("~") and needed:
            raise ConfigError(override, "this key is needed", "give it another value instead")


def key_of(argument: str) -> str:
    return argument.split("=", 1)[0].lstrip("+~")

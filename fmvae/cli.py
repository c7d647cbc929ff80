"""Between the shell and Hydra: what is done to the arguments before, and what is said of errors after."""

from __future__ import annotations

import difflib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NoReturn, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fmvae import config as configs
from fmvae.errors import ConfigError, FmvaeError

T = TypeVar("T")
log = logging.getLogger("fmvae")

HELP = "--help lists the keys and groups"


def launch(main: Callable[[], Any]) -> NoReturn:
    """Run a ``@hydra.main`` function on the command line's arguments and end the process.

    Exit status: 0; 1 after an error, said in one line; 130 and 143 after Ctrl-C and SIGTERM.
    """
    configs.register_resolvers()
    arguments = name_sweep(list_paths(configs.expand_shorthand(sys.argv[1:])))
    sys.argv[1:] = arguments
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us whole, and leave as one line
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
    except (FmvaeError, HydraException, OmegaConfBaseException, OSError) as error:
        fail(explain(error, arguments))
    sys.exit(0)


def job(function: Callable[[dict[str, Any], list[str]], T], composed: DictConfig) -> T:
    """Call ``function(config, overrides)`` for one composed config.

    A single run that fails ends the process here, with its one line. A job of a sweep says its line and raises:
    Hydra then goes on with the other jobs, which ``sys.exit`` would end.
    """
    hydra_config = HydraConfig.get()
    try:
        return function(configs.resolve(composed), list(hydra_config.overrides.task))
    except (FmvaeError, OmegaConfBaseException, OSError) as error:
        if hydra_config.mode == RunMode.MULTIRUN:
            log.error("fmvae: error: %s", explain(error))
            raise
        fail(explain(error))


def fail(error: FmvaeError) -> NoReturn:
    print(f"fmvae: error: {error}", file=sys.stderr)
    sys.exit(1)


# --- arguments ----------------------------------------------------------------------------------------------


def list_paths(arguments: Sequence[str]) -> list[str]:
    """``run=a,b`` as the list ``run=[a,b]``: several runs to evaluate, not a sweep over them."""
    return [re.sub(r"^run=([^\[{].*,.*)$", r"run=[\1]", argument) for argument in arguments]


def name_sweep(arguments: Sequence[str]) -> list[str]:
    """Give a multirun without a name one of its own overrides, so that the same command finds the same folder."""
    multirun = {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments)
    if not multirun or any(argument.startswith("sweep_name=") for argument in arguments):
        return list(arguments)
    semantic = sorted(
        argument
        for argument in arguments
        if "=" in argument
        and not argument.startswith(("-", "hydra"))
        and not _key(argument).startswith(configs.NON_SEMANTIC)
    )
    swept = dict.fromkeys(
        _key(a).removesuffix(".value") for a in semantic if re.search(r"[,(]", a.split("=", 1)[1])
    )
    words = [re.sub(r"[^A-Za-z0-9._]", "", key) for key in swept] or ["sweep"]
    name = "-".join([*words, sha256("\n".join(semantic).encode()).hexdigest()[:8]])
    return [*arguments, f"sweep_name={name}"]


def _key(argument: str) -> str:
    return argument.split("=", 1)[0].lstrip("+~")


# --- errors -------------------------------------------------------------------------------------------------


def explain(error: BaseException, arguments: Sequence[str] = ()) -> FmvaeError:
    """Any foreseeable error as one that names the key or file, the problem and the way out."""
    if isinstance(error, FmvaeError):
        return error
    text = str(error)
    if isinstance(error, OSError):
        where = error.filename or "output"
        return FmvaeError(where, error.strerror or text, "check the path, its permissions and the free space")
    if found := re.search(
        r"Could not find '([^']+)/([^'/]+)'\s*(?:Available options in '[^']+':(.*))?", text, re.DOTALL
    ):
        group, option, options = found.groups()
        known = sorted((options or "").split())
        hint = _closest(option, known)
        return ConfigError(group, f"there is no option {option!r}", f"{hint}choose from {', '.join(known)}")
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found.group(1))
    if found := re.search(
        r"Config group override must be a string or a list. Got (\w+)|Ambiguous value for argument '([^']*)'",
        text,
    ):
        argument = found.group(2) or _first_number(arguments)
        problem = (
            "several values, but this is a single run"
            if found.group(2)
            else "a number where a group's option belongs"
        )
        return ConfigError(argument, problem, "add -m for a sweep" if found.group(2) else HELP)
    if found := re.search(r"Missing mandatory value: (\S+)|Missing key (\S+)", text):
        key = next(filter(None, found.groups()))
        return ConfigError(key, "no value given", f"add {key}=...")
    problem = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return ConfigError("command line", problem, HELP)


def _first_number(arguments: Sequence[str]) -> str:
    return next((a for a in arguments if re.fullmatch(r"\w+=[\d.,+-]+", a)), "command line")


def _unknown_key(key: str) -> ConfigError:
    known = list(_known_keys())
    leaves: dict[str, str] = {}
    for name in known:
        leaves.setdefault(name.split(".")[-1], name)
    close = difflib.get_close_matches(key, known, 1)
    close = close or [leaves[leaf] for leaf in difflib.get_close_matches(key.split(".")[-1], list(leaves), 1)]
    return ConfigError(key, "there is no such key", f"did you mean {close[0]}?" if close else HELP)


def _known_keys() -> Iterator[str]:
    """Every key and group that an override of this program can name."""
    name = "evaluate" if sys.argv[0].endswith("evaluate.py") else "train"
    placeholders = ["run=x"] if name == "evaluate" else []

    def walk(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in node.items():
            yield f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")

    yield from walk(configs.compose(placeholders, name), "")
    yield "experiment"


def _closest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]}? " if close else ""

"""What is done to the command line's arguments before Hydra reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from fmvae.common.text import expand_home
from fmvae.config.hydra_internals import OverridesParser
from fmvae.config.identity import NAMED_BY_CONTENT, NON_SEMANTIC
from fmvae.config.project import SWEEPS, groups
from fmvae.config.schema import RULES
from fmvae.config.shorthand import expand_shorthand, in_quotes
from fmvae.errors import ConfigError

# Hydra's flags that take the next argument as their value; tests compare them with Hydra's own parser
VALUED = ("--config-name", "-cn", "--config-dir", "-cd", "--package", "-p", "--cfg", "-c")
PLAIN = ("--help", "-h", "--version", "--resolve", "--run", "-r", "--multirun", "-m", "--shell-completion", "-sc")
INFO, TOPICS = ("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
REFUSED = {
    "--experimental-rerun": (
        "it reads a pickle, which could run anything",
        "repeat the run's command to continue it",
    ),
    "--hydra-help": ("not shown here", "--help lists the keys and groups of this program"),
    "--config-path": ("the project's own configs are always read", "give a folder of yours by --config-dir"),
    "-cp": ("the project's own configs are always read", "give a folder of yours by --config-dir"),
}
PRIMARY = {"train": ("train", "classifier"), "evaluate": ("evaluate",)}  # values of --config-name
FOLDERS = ("--config-dir", "-cd")
MULTIRUN = ("-m", "--multirun", "hydra.mode=MULTIRUN")
LONGEST_NAME = 200  # of a sweep, as its rule says
OPENING, CLOSING = "[({", "])}"


def prepared(arguments: Sequence[str], program: str) -> list[str]:
    """A command line as people type it, as Hydra reads it.

    Raises:
        ConfigError: an argument is no override, or a flag that is not for these programs.
    """
    flags, overrides = split_flags(arguments)
    check_flags(flags, program)
    overrides = list(together(overrides, program))
    overrides = [quoted(argument) for argument in list_paths(expand_shorthand(overrides))]
    return [*flags, *overrides]


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and the overrides: Hydra reads no overrides on both sides of a flag."""
    flags, overrides = [], []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, given, value = argument.partition("=")
        if name in FOLDERS and given:
            flags.append(f"{name}={expand_home(value)}")
        elif argument in VALUED:
            value = [waiting.pop(0)] if waiting else []
            flags += [argument, *(map(expand_home, value) if argument in FOLDERS else value)]
        elif argument in INFO:
            topic = waiting.pop(0) if waiting and waiting[0] in TOPICS else TOPICS[0]
            flags.append(f"{INFO[0]}={topic}")
        elif argument.startswith("-"):
            flags.append(argument)
        else:
            overrides.append(argument)
    return flags, overrides


def check_flags(flags: Sequence[str], program: str) -> None:
    """Refuse flags that Hydra does not have, and those that these programs do not heed.

    Raises:
        ConfigError: with what to write in the flag's place.
    """
    for place, flag in enumerate(flags):
        if place and flags[place - 1] in VALUED:
            continue
        name, given, value = flag.partition("=")
        if name in REFUSED:
            raise ConfigError(name, *REFUSED[name])
        if name in ("--config-name", "-cn"):
            value = value if given else "".join(flags[place + 1 : place + 2])
            if value not in PRIMARY[program]:
                way_out = (
                    f"choose from {', '.join(PRIMARY[program])}; keys of your own go into an experiment's file"
                )
                raise ConfigError("config", f"there is no option {value!r}", way_out)
        elif flag not in (*PLAIN, *VALUED) and name not in (*VALUED, *INFO):
            key = name.lstrip("-")
            known = key in RULES or key in groups() or key == "run"
            way_out = f"write {key}={value or '<value>'}" if known else "--help lists the keys and groups"
            raise ConfigError(flag, "there is no such flag", way_out)


def together(overrides: Sequence[str], program: str) -> Iterator[str]:
    """Yield the overrides; refuse one that a space split in two, and a path without its key.

    Raises:
        ConfigError: an argument is a part of the one before it, or a path alone.
    """
    before = ""
    for place, argument in enumerate(overrides):
        alone = "=" not in argument and not re.match(r"~\w", argument)
        goes_on = alone and (before.endswith((",", "=")) or _is_open(before))
        begun_before = (argument.startswith("=") and before and "=" not in before) or argument.startswith(",")
        if before and (goes_on or begun_before):
            parts = [before, argument]
            for part in overrides[place + 1 :]:
                if not (parts[-1].endswith((",", "=")) or part.startswith(",")) or re.match(r"\w[\w.]*=", part):
                    break
                parts.append(part)
            way_out = f"write {''.join(parts)} without a space, or quote it: '{' '.join(parts)}'"
            raise ConfigError(" ".join(parts), "a space parts this argument", way_out)
        if alone and program == "evaluate" and ("/" in argument or Path(argument).exists()):
            raise ConfigError(argument, "a path alone", f"say that it is the run: run={argument}")
        before = argument
        yield argument


def _is_open(text: str) -> bool:
    """Whether brackets are open at the end of a text."""
    return sum(map(text.count, OPENING)) > sum(map(text.count, CLOSING))


def list_paths(arguments: Sequence[str]) -> list[str]:
    """``run=a,b`` as the list ``run=[a,b]``: several runs to evaluate, not a sweep over them."""

    def listed(argument: str) -> str:
        if not re.match(r"run=[^\[{].*,", argument):
            return argument
        paths = argument.removeprefix("run=")
        try:
            OverridesParser.create().parse_override(f"run=[{paths}]")
        except Exception:  # Hydra's and its parser's own
            paths = ",".join(_readable("run", path.strip()) for path in paths.split(","))
        return f"run=[{paths}]"

    return [listed(argument) for argument in arguments]


def quoted(argument: str) -> str:
    """A path or name as people type it, in quotes where Hydra would not read it, or read a number."""
    key, _, value = argument.partition("=")
    rule = RULES.get(key.lstrip("+"))
    is_text = key == "run" or (rule is not None and rule.type is str and not rule.choices)
    if not is_text or not value or value[0] in "'\"[{":
        return argument
    return f"{key}={_readable(key.lstrip('+'), value)}"


def _readable(key: str, value: str) -> str:
    """A text as it is if Hydra reads it as a text, several values or null; in quotes if not."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={value}")
    except Exception:  # Hydra's and its parser's own
        return in_quotes(value)
    is_text = override.is_sweep_override() or isinstance(override.value(), str | list | None)
    share = value.startswith("\\\\")  # of Windows, \\server\folder: Hydra takes two backslashes for one
    return value if is_text and not share else in_quotes(value)


# --- sweeps -----------------------------------------------------------------------------------------------------


def is_multirun(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for a sweep; a named one's file may, too."""
    return bool(set(MULTIRUN) & set(arguments))


def name_sweep(arguments: Sequence[str]) -> list[str]:
    """Give a multirun without a name one of its own overrides, so that the same command finds the same folder."""
    named = any(key_of(argument) in ("sweep_name", "sweep") for argument in arguments)  # sweeps/ have names
    if named or not is_multirun(arguments):
        return list(arguments)
    nameless = tuple(key for key in NON_SEMANTIC if key not in NAMED_BY_CONTENT)
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
    digest = sha256("\n".join(semantic).encode()).hexdigest()[:8]
    while (
        len("-".join([*words, digest])) > LONGEST_NAME
    ):  # the digest tells sweeps apart; the words are for people
        words.pop()
    return [*arguments, f"sweep_name={'-'.join([*words, digest])}"]


def put_off(
    arguments: Sequence[str], keys: Callable[[Sequence[str]], Collection[str]], folders: Sequence[Path] = (SWEEPS,)
) -> list[str]:
    """A sweep's overrides of keys that only some options of a swept group have, for its runs alone.

    Hydra composes a sweep's own config first, with the default option of a swept group. What that does not hold is
    given as a sweep over one value, which Hydra leaves to the runs.

    Args:
        keys: the paths of the keys that some overrides compose. If it raises, the arguments stay as they are, and
            Hydra will say what is wrong with them.
        folders: of configs, in which a named sweep's file may lie.
    """
    unchanged, options = list(arguments), groups()
    if not (is_multirun(arguments) or _file_asks_for_sweep(arguments, folders)):
        return unchanged
    parsed = _parsed([argument for argument in arguments if not argument.startswith("-")])
    if not any(key_of(a) in options and override.is_sweep_override() for a, override in parsed.items()):
        return unchanged
    single = [argument for argument, override in parsed.items() if not override.is_sweep_override()]
    dotted = [a for a in single if re.match(r"(?!hydra\.)\w+\.", a) and parsed[a].value() not in (None, "")]
    if not dotted:
        return unchanged
    try:
        known = keys([argument for argument in single if argument not in dotted])
    except Exception:
        return unchanged
    missing = {a for a in dotted if key_of(a) not in known}
    return [f"{key_of(a)}=choice({a.partition('=')[2]})" if a in missing else a for a in arguments]


def _file_asks_for_sweep(arguments: Sequence[str], folders: Sequence[Path]) -> bool:
    """Whether a named sweep or experiment is one whose file says ``hydra.mode: MULTIRUN``."""
    for argument in arguments:
        group, _, option = argument.lstrip("+").partition("=")
        for folder in folders if group in ("sweep", "experiment") else ():
            with suppress(OSError, ValueError, yaml.YAMLError, AttributeError):
                tree = yaml.safe_load((folder / group / f"{option}.yaml").read_text(encoding="utf-8"))
                if tree.get("hydra", {}).get("mode") == "MULTIRUN":
                    return True
    return False


def _parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """Arguments that are overrides, with Hydra's reading of each; others are left out."""
    parser, parsed = OverridesParser.create(), {}
    for argument in arguments:
        try:
            parsed[argument] = parser.parse_override(argument)
        except Exception:  # whoever composes says what is wrong with it
            continue
    return parsed


def check_removed(overrides: Sequence[str]) -> None:
    """Refuse ``~key``, unless it is an argument of a constructor that the program itself does not read."""
    for override in overrides:
        key = key_of(override)
        _, _, name = key.partition(".")
        if key in ("experiment", "sweep"):  # none is chosen unless one is asked for
            continue
        needed = not name or name.startswith("_") or (key in RULES and not RULES[key].spare)
        if override.startswith("~") and needed:
            raise ConfigError(override, "this key is needed", f"give it another value instead: {_example(key)}")


def _example(key: str) -> str:
    """How a key is given a value."""
    if options := groups().get(key):
        return f"{key}={options[0]} (or {', '.join(options[1:])})" if options[1:] else f"{key}={options[0]}"
    return f"{key}=<{RULES[key]}>" if key in RULES else f"{key}=<value>"


def key_of(argument: str) -> str:
    return argument.split("=", 1)[0].lstrip("+~")

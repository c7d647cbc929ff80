"""Check and rewrite the command line's arguments before Hydra reads them."""

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
from fmvae.config.identity import FROM_FILES, NAMED_BY_CONTENT, NON_SEMANTIC
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
LONGEST_NAME = 200  # characters of a sweep's name, as in the rule of sweep_name
OPENING, CLOSING = "[({", "])}"


def prepared(arguments: Sequence[str], program: str) -> list[str]:
    """Rewrite a command line into one that Hydra can read: flags first, shorthand expanded, values quoted.

    Raises:
        ConfigError: an argument is not an override, or is a flag that the program does not support.
    """
    flags, overrides = split_flags(arguments)
    check_flags(flags, program)
    overrides = list(together(overrides, program))
    overrides = [quoted(argument) for argument in list_paths(expand_shorthand(overrides))]
    return [*flags, *overrides]


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return Hydra's flags with their values, and the overrides. Hydra can't read a mixture of both."""
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
    """Refuse flags that Hydra does not have, or that the program does not support.

    Raises:
        ConfigError: the message says what to write instead.
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
    """Yield the overrides; refuse one that a space has split in two, and a path without a key.

    Raises:
        ConfigError: an argument is the second part of the one before it, or is a path without ``run=``.
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
            raise ConfigError(" ".join(parts), "a space splits this argument", way_out)
        if alone and program == "evaluate" and ("/" in argument or Path(argument).exists()):
            raise ConfigError(argument, "a path without a key", f"write run={argument}")
        before = argument
        yield argument


def _is_open(text: str) -> bool:
    """Return whether a text has more opening than closing brackets."""
    return sum(map(text.count, OPENING)) > sum(map(text.count, CLOSING))


def list_paths(arguments: Sequence[str]) -> list[str]:
    """Rewrite ``run=a,b`` to the list ``run=[a,b]``: one evaluation of several runs instead of a sweep."""

    def listed(argument: str) -> str:
        if not re.match(r"run=[^\[{].*,", argument):
            return argument
        paths = argument.removeprefix("run=")
        try:
            OverridesParser.create().parse_override(f"run=[{paths}]")
        except Exception:  # of Hydra, or of its parser's library
            paths = ",".join(_readable("run", path.strip()) for path in paths.split(","))
        return f"run=[{paths}]"

    return [listed(argument) for argument in arguments]


def quoted(argument: str) -> str:
    """Quote an argument's value if it is a path or name that Hydra could not read, or would read as a number."""
    key, _, value = argument.partition("=")
    rule = RULES.get(key.lstrip("+"))
    is_text = key == "run" or (rule is not None and rule.type is str and not rule.choices)
    if not is_text or not value or value[0] in "'\"[{":
        return argument
    return f"{key}={_readable(key.lstrip('+'), value)}"


def _readable(key: str, value: str) -> str:
    """Return a value unchanged if Hydra reads it as a text, several values or null; in quotes otherwise."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={value}")
    except Exception:  # of Hydra, or of its parser's library
        return in_quotes(value)
    is_text = override.is_sweep_override() or isinstance(override.value(), str | list | None)
    share = value.startswith("\\\\")  # a Windows path \\server\folder: Hydra reads two backslashes as one
    return value if is_text and not share else in_quotes(value)


# --- sweeps -----------------------------------------------------------------------------------------------------


def is_multirun(arguments: Sequence[str]) -> bool:
    """Return whether a flag asks for a sweep. The file of a named sweep may ask for one as well."""
    return bool(set(MULTIRUN) & set(arguments))


def name_sweep(arguments: Sequence[str]) -> list[str]:
    """Add a ``sweep_name`` to a sweep that has none, made from its overrides: equal commands use one folder."""
    # the files of named sweeps set sweep_name
    named = any(key_of(argument) in ("sweep_name", "sweep") for argument in arguments)
    if named or not is_multirun(arguments):
        return list(arguments)
    kept = (*NAMED_BY_CONTENT, *(("data.root",) if {a.lstrip("+") for a in arguments} & {*FROM_FILES} else ()))
    nameless = tuple(key for key in NON_SEMANTIC if key not in kept)
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
    while len("-".join([*words, digest])) > LONGEST_NAME:  # the digest alone is unique; the words are for readers
        words.pop()
    return [*arguments, f"sweep_name={'-'.join([*words, digest])}"]


def put_off(
    arguments: Sequence[str], keys: Callable[[Sequence[str]], Collection[str]], folders: Sequence[Path] = (SWEEPS,)
) -> list[str]:
    """Defer a sweep's overrides of keys that only some options of a swept group have; return all arguments.

    Hydra first composes a config for the sweep itself, with the default option of each swept group. It would
    refuse an override of a key that this option lacks. Written as a sweep over one value (``choice(...)``), the
    override is applied to the runs only.

    Args:
        keys: returns the paths of all keys that some overrides compose. If it raises, the arguments are returned
            unchanged, and Hydra reports what is wrong with them.
        folders: folders of configs that may have the file of a named sweep.
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
    """Return whether the file of a named sweep or experiment says ``hydra.mode: MULTIRUN``."""
    for argument in arguments:
        group, _, option = argument.lstrip("+").partition("=")
        for folder in folders if group in ("sweep", "experiment") else ():
            with suppress(OSError, ValueError, yaml.YAMLError, AttributeError):
                tree = yaml.safe_load((folder / group / f"{option}.yaml").read_text(encoding="utf-8"))
                if tree.get("hydra", {}).get("mode") == "MULTIRUN":
                    return True
    return False


def _parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """Return each argument that is an override with Hydra's parsed form of it; other arguments are left out."""
    parser, parsed = OverridesParser.create(), {}
    for argument in arguments:
        try:
            parsed[argument] = parser.parse_override(argument)
        except Exception:  # composing reports what is wrong with it
            continue
    return parsed


def check_removed(overrides: Sequence[str]) -> None:
    """Refuse ``~key`` (removing a key), unless only a constructor reads the key."""
    for override in overrides:
        key = key_of(override)
        _, _, name = key.partition(".")
        if key in ("experiment", "sweep"):  # these groups have no default option
            continue
        needed = not name or name.startswith("_") or (key in RULES and not RULES[key].spare)
        if override.startswith("~") and needed:
            raise ConfigError(override, "this key is needed", f"give it another value instead: {_example(key)}")


def _example(key: str) -> str:
    """Return an example of an override that gives the key a value."""
    if options := groups().get(key):
        return f"{key}={options[0]} (or {', '.join(options[1:])})" if options[1:] else f"{key}={options[0]}"
    return f"{key}=<{RULES[key]}>" if key in RULES else f"{key}=<value>"


def key_of(argument: str) -> str:
    return argument.split("=", 1)[0].lstrip("+~")

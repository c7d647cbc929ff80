"""Turn errors into one line that names the key or file, the problem and the way out."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from hydra.errors import MissingConfigException, OverrideParseException

from fmvae.cli.arguments import key_of
from fmvae.common.text import typed_path
from fmvae.config import composing as configs
from fmvae.config.own_code import KEY, refusal
from fmvae.config.project import groups, install
from fmvae.config.schema import RULES
from fmvae.config.shorthand import in_quotes
from fmvae.config.stored import ASKED_ANEW
from fmvae.errors import ConfigError, FmvaeError, exited, is_of_a_run, of_the_machine

EXTRAS = {"joblib": "parallel", "submitit": "slurm"}  # pyproject.toml's extra for a plugin, if named differently
PLAIN = str.maketrans("−–“”„‘’\u00a0", '--"""\'\' ')  # signs that word processors put in place of plain ones
HELP = "--help lists the keys and groups"


def program() -> Literal["train", "evaluate"]:
    return "evaluate" if sys.argv[0].endswith("evaluate.py") else "train"


def config_name() -> str:
    """Return the name of the primary config: the one given by --config-name, or else the program's own."""
    named = re.search(r"(?:^|\s)(?:--config-name|-cn)[= ](\S+)", " ".join(sys.argv[1:]))
    return named.group(1) if named else program()


def config_dir() -> Path | None:
    """Return the folder of configs given by --config-dir; None if there is none."""
    named = re.search(r"(?:^|\s)(?:--config-dir|-cd)[= ](\S+)", " ".join(sys.argv[1:]))
    return typed_path(named.group(1)).absolute() if named else None


def keys_of(overrides: Sequence[str]) -> list[str]:
    """Return the keys in the config that these overrides compose, with the program's config and --config-dir."""
    return configs.keys_of(overrides, config_name(), config_dir())


def explain(error: BaseException, arguments: Sequence[str] = ()) -> FmvaeError | None:
    """Return a foreseeable error as an ``FmvaeError``; None if the error is a bug of the program.

    Args:
        arguments: the command line's, from which a message finds the argument at fault.
    """
    text = str(error)
    if isinstance(error, FmvaeError):
        return error
    if left := exited(error):
        return left
    if isinstance(error.__cause__, FmvaeError):  # raised by a constructor that Hydra called
        return error.__cause__
    if is_of_a_run(error):
        return of_the_machine(error)
    if isinstance(error, MissingConfigException):  # before OSError, its base class
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return _unknown_option(group or "config", option, error.options or ())
    if failed := of_the_machine(error):
        return failed
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if mark := getattr(error, "problem_mark", None):  # an error of YAML
        problem = getattr(error, "problem", None) or "not readable as YAML"
        return ConfigError(f"{mark.name}, line {mark.line + 1}", problem, "correct the file")
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        key = max(found.group(1), getattr(error.__cause__, "full_key", None) or "", key=len)
        return _unknown_key(key, arguments)
    if found := re.search(r"An item is already at '([^']+)'", text):
        return ConfigError(found.group(1), "this key exists already", "leave out the +")
    if found := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", text):
        key, _, values = found.group(1).partition("=")
        rule = RULES.get(key)
        as_list = (
            f", or give them as one list: '{key}=[{values}]'" if rule and (rule.many or rule.type is list) else ""
        )
        return ConfigError(
            found.group(1), "several values, but this is a single run", f"add -m for a sweep{as_list}"
        )
    if found := re.search(r"Sweeping over Hydra's configuration is not supported : '(.*?)=", text):
        return ConfigError(
            found.group(1), "several values", "give one, as all runs of a sweep share Hydra's settings"
        )
    if "Config group override must be a string or a list" in text:
        return _no_name_of_an_option(arguments)
    if found := re.search(r"plugin (?:class : ')?hydra_plugins\.hydra_(\w+?)_(launcher|sweeper)\.", text):
        name, kind = found.groups()
        problem = f"the plugin hydra-{name}-{kind} is not installed"
        return ConfigError(f"hydra/{kind}", problem, install(EXTRAS.get(name, name)))
    if found := re.search(r"Missing mandatory value: (\S+)", text):
        return ConfigError(found.group(1), "no value given", f"add {found.group(1)}=...")
    if "does not support sweep type" in text:
        way_out = "list the values, as beta=0.5,1, or search the interval with hydra/sweeper=optuna"
        return ConfigError("command line", "a sweep cannot run over an interval", way_out)
    # before the first job, Hydra works only on the user's arguments, so any other error is about them
    key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
    if (found := re.match(r"Error merging override \S+?=(.*)", text)) and (rule := RULES.get(key or "")):
        return ConfigError(str(key), f"{found.group(1)} is not {rule}", rule.way_out(found.group(1)))
    problem, _, rest = text.strip().partition("\n")
    if problem.endswith(":"):  # the next line says what the problem is
        problem = f"{problem} {rest.strip().partition(chr(10))[0]}"
    return ConfigError(key or "command line", problem or type(error).__name__, HELP)


def _unreadable(argument: str) -> ConfigError:
    key, given, value = argument.partition("=")
    way_out = "quote a value of many parts: 'key=\"a b, c\"'"
    if (plain := argument.strip().strip(",").translate(PLAIN)) != argument:
        return ConfigError(argument, "not readable as key=value", f"write it as {plain}")
    if key and given and not set(value) & set("[]{}\"'$"):  # quotes would turn a list into a text
        way_out = f'quote the value, for the shell and for Hydra: "{key}={in_quotes(value)}"'
    return ConfigError(argument, "not readable as key=value", way_out)


def _unknown_option(group: str, option: str, options: Sequence[str]) -> ConfigError:
    options = [name for name in options if not name.startswith(".")]  # an editor's temporary file
    close = difflib.get_close_matches(option, options, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    choice = f"choose from {', '.join(sorted(options))}" if options else HELP
    number = ", or give a number" if f"{group}.value" in RULES else ""
    return ConfigError(group, f"there is no option {option!r}", hint + choice + number)


def _no_name_of_an_option(arguments: Sequence[str]) -> ConfigError:
    """Return the error for the first argument that gives a group something other than names of its options."""
    options = _options()
    for argument in arguments:
        key, value = key_of(argument), argument.partition("=")[2]
        if "=" in argument and not key:
            return _unreadable(argument)
        if key in options and not all(word.strip() in options[key] for word in value.split(",")):
            return _unknown_option(key, value, options[key])
    return ConfigError("command line", "a number in place of the name of a group's option", HELP)


def _unknown_key(key: str, arguments: Sequence[str]) -> ConfigError:
    """Return the error for an unknown key.

    It suggests the options of the key's group that have it, or else the most similar key and its group's keys.
    """
    if key == KEY:  # on a command line it is removed before Hydra reads it, so this one is from a sweep's file
        return refusal()
    options, (group, _, leaf) = _options(), key.partition(".")
    if program() == "evaluate" and group in set(options).difference(ASKED_ANEW):
        way_out = "leave it out, or train another run with it"
        return ConfigError(key, "part of the run's own config, which an evaluation cannot change", way_out)
    known = [name for name in _known_keys(arguments) if name != key]
    parent = key.rpartition(".")[0]
    beside = [name for name in known if parent and name.rpartition(".")[0] == parent and "._" not in name]
    rest = f"{parent} holds {', '.join(name.rpartition('.')[2] for name in beside)}" if beside else HELP
    if leaf and (having := _options_with(group, key)):
        chosen = next((a.partition("=")[2] for a in arguments if key_of(a) == group and "=" in a), "")
        problem = f"{group}={chosen} has no such key" if chosen in options[group] else "there is no such key here"
        return ConfigError(key, problem, f"choose {group}={' or '.join(having)} to give it ({rest})")
    leaves = {name.split(".")[-1]: name for name in known}
    close = difflib.get_close_matches(key, known, 1)
    close = close or [leaves[leaf] for leaf in difflib.get_close_matches(key.split(".")[-1], list(leaves), 1)]
    hint = f"did you mean {close[0]}? " if close else ""
    return ConfigError(key, "there is no such key", hint + rest)


def _options() -> dict[str, list[str]]:
    """Return the options of every group, those in the user's own folder included."""
    folder = config_dir()
    return groups(*((folder,) if folder else ()))


def _options_with(group: str, key: str) -> list[str]:
    """Return the options of a group that have a key."""
    having = []
    for option in _options().get(group, ()):
        with suppress(Exception):  # an option may not compose alone; this is for suggestions only
            if key in keys_of([*_REQUIRED[program()], f"{group}={option}"]):
                having.append(option)
    return having


_REQUIRED: dict[str, list[str]] = {"train": [], "evaluate": ["run=x"]}  # overrides without which composing fails


def _known_keys(arguments: Sequence[str]) -> list[str]:
    """Return every key and group that an override can name, given the options chosen on the command line."""
    options, required = _options(), _REQUIRED[program()]
    # all groups of evaluate.py have keys; train.py also has groups without keys of their own, such as experiment
    more = [KEY, *(options if program() == "train" else ())]
    chosen = [argument for argument in arguments if key_of(argument) in options]
    for overrides in ([*required, *chosen], required):
        with suppress(Exception):  # a choice may be a sweep, or wrong in another way; this is for suggestions only
            return keys_of(overrides) + more
    return more

"""Between the shell and Hydra: what is done to the arguments before, and what is said of errors after."""

from __future__ import annotations

import difflib
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmvae import config as configs
from fmvae import gate
from fmvae.arguments import check_removed, in_quotes, key_of, name_sweep, prepared, put_off
from fmvae.common import streams
from fmvae.config.composing import keys_of
from fmvae.config.project import SWEEPS, groups
from fmvae.config.schema import RULES
from fmvae.errors import ConfigError, FmvaeError, HeldError, ObjectiveError, Terminated, of_the_machine
from fmvae.text import typed_path

T = TypeVar("T")
log = logging.getLogger("fmvae")

TOGETHER = "fmvae.experiments.together"  # where the jobs of a stack are
OWN_SWEEPER = ".FmvaeSweeper"  # runs a list of jobs; others search
PLUGINS = configs.PROJECT_ROOT / "fmvae" / "plugins"
EXTRAS = {"joblib": "parallel", "submitit": "slurm"}  # of pyproject.toml, by the plugin's name if not the same
HELP = "--help lists the keys and groups"


def launch(main: Callable[[], Any]) -> NoReturn:
    """Run a ``@hydra.main`` function on the command line's arguments and end the process.

    Exit status: 0; 1 after an error, said in one line; 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP.
    """
    streams.set_up()
    arguments = sys.argv[1:]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us whole, and leave as one line
    # whatever a launcher starts, and wherever, runs the code that runs here
    sys.path.append(str(PLUGINS))
    paths = [str(configs.PROJECT_ROOT), str(PLUGINS), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    signal.signal(signal.SIGTERM, _terminate)
    # the connection broke; nohup ignores it, and Windows has none
    if (hang_up := getattr(signal, "SIGHUP", None)) and signal.getsignal(hang_up) == signal.SIG_DFL:
        signal.signal(hang_up, _terminate)
    threading.excepthook = _thread_failed
    gate.install()
    try:
        arguments = prepared(arguments, _program())
        if _program() == "train":
            folder = _config_dir()
            folders = (folder, SWEEPS) if folder else (SWEEPS,)
            arguments = put_off(name_sweep(arguments), _keys_of, folders)
        sys.argv[1:] = arguments
        main()
    except (KeyboardInterrupt, Terminated) as stop:
        streams.complain("interrupted; the same command continues")
        sys.exit(stop.code if isinstance(stop, Terminated) else 130)
    except Exception as error:
        if not (explained := explain(error, arguments)):
            raise
        fail(explained)
    sys.exit(0)


def job(function: Callable[[dict[str, Any], list[str]], T], composed: DictConfig) -> T:
    """Call ``function(config, overrides)`` for one composed config.

    A single run that fails ends the process here, with its one line. A job of a sweep says its line and raises an
    exception, whatever it was: Hydra then goes on with the other jobs, which a ``sys.exit`` would end. Only a
    search by a number that is not measured ends, as no trial of it could succeed.
    """
    hydra_config = HydraConfig.get()
    try:
        config, overrides = prepare(composed, hydra_config)
        if hydra_config.mode == RunMode.MULTIRUN and config["device"] == "auto":
            config["device"] = f"auto:{hydra_config.job.num}"
        return function(config, overrides)
    except (Exception, SystemExit) as error:
        if isinstance(error, Terminated):
            raise
        explained = explain(error)
        if hydra_config.mode == RunMode.MULTIRUN and not ends_search(explained, hydra_config):
            said = tell(error)
            if isinstance(error, Exception):
                raise
            raise RuntimeError(said) from error
        if not explained:
            raise
        fail(explained)


def prepare(composed: DictConfig, hydra_config: Any) -> tuple[dict[str, Any], list[str]]:
    """A job's resolved config and its overrides.

    Raises:
        FmvaeError: the config is wrong.
    """
    # as written: ${...} in an override refers to the job's config, not to Hydra's
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    check_removed(overrides)
    gate.check_environment(hydra_config.job.env_set)
    if hydra_config.mode == RunMode.RUN:
        gate.check_single_run(hydra_config.overrides.hydra)
    return configs.resolve(composed, hydra_config.runtime), overrides


def ends_search(error: BaseException | None, hydra_config: Any) -> bool:
    """Whether no trial of a search could succeed: it goes by a number that is not measured."""
    return isinstance(error, ObjectiveError) and not hydra_config.sweeper._target_.endswith(OWN_SWEEPER)


def tell(error: BaseException) -> str:
    """Say the one line of a job of a sweep that failed."""
    explained = explain(error)
    said = str(explained or f"{type(error).__name__}: {error}")
    if isinstance(explained, HeldError):  # no failure of this sweep's: another is at it
        log.warning("%s", said)
    else:
        log.error("fmvae: error: %s", said)
    return said


def _terminate(number: int, *_: object) -> NoReturn:
    raise Terminated(128 + number)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Nothing of a disk or memory that failed: who waits for the thread, as for TensorBoard's, raises it again."""
    if failure.exc_value is None or not of_the_machine(failure.exc_value):
        threading.__excepthook__(failure)


def fail(error: FmvaeError) -> NoReturn:
    streams.complain(f"fmvae: error: {error}")
    sys.exit(1)


def _program() -> Literal["train", "evaluate"]:
    return "evaluate" if sys.argv[0].endswith("evaluate.py") else "train"


def _config_name() -> str:
    """The config that the command line composes: the program's own, or the one that --config-name names."""
    named = re.search(r"(?:^|\s)(?:--config-name|-cn)[= ](\S+)", " ".join(sys.argv[1:]))
    return named.group(1) if named else _program()


def _config_dir() -> Path | None:
    """The folder of configs that --config-dir names."""
    named = re.search(r"(?:^|\s)(?:--config-dir|-cd)[= ](\S+)", " ".join(sys.argv[1:]))
    return typed_path(named.group(1)).absolute() if named else None


def _keys_of(overrides: Sequence[str]) -> list[str]:
    """The keys that these overrides of this program compose, with the user's own folder of configs."""
    return keys_of(overrides, _config_name(), _config_dir())


# --- errors -------------------------------------------------------------------------------------------------


def explain(error: BaseException, arguments: Sequence[str] = ()) -> FmvaeError | None:
    """Any foreseeable error as one that names the key or file, the problem and the way out; None for a bug."""
    text = str(error)
    if isinstance(error, FmvaeError):
        return error
    if isinstance(error.__cause__, FmvaeError):  # of what Hydra instantiates
        return error.__cause__
    if isinstance(error, MissingConfigException):  # which is an OSError, too
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return _unknown_option(group or "config", option, error.options or ())
    if failed := of_the_machine(error):
        return failed
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if mark := getattr(error, "problem_mark", None):  # of YAML
        problem = getattr(error, "problem", None) or "not readable as YAML"
        return ConfigError(f"{mark.name}, line {mark.line + 1}", problem, "mend the file")
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        key = max(found.group(1), getattr(error.__cause__, "full_key", None) or "", key=len)
        return _unknown_key(key, arguments)
    if found := re.search(r"An item is already at '([^']+)'", text):
        return ConfigError(found.group(1), "there is such a key already", "leave out the +")
    if found := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", text):
        return ConfigError(found.group(1), "several values, but this is a single run", "add -m for a sweep")
    if "Config group override must be a string or a list" in text:
        return _no_name_of_an_option(arguments)
    if found := re.search(r"plugin (?:class : ')?hydra_plugins\.hydra_(\w+?)_(launcher|sweeper)\.", text):
        name, kind = found.groups()
        way_out = f"pip install -e '.[{EXTRAS.get(name, name)}]'"
        return ConfigError(f"hydra/{kind}", f"the plugin hydra-{name}-{kind} is not installed", way_out)
    if found := re.search(r"Missing mandatory value: (\S+)", text):
        return ConfigError(found.group(1), "no value given", f"add {found.group(1)}=...")
    if isinstance(error, HydraException | OmegaConfBaseException) or not _comes_from_a_job(error):
        key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
        problem = text.strip().partition("\n")[0] or type(error).__name__
        return ConfigError(key or "command line", problem, HELP)
    return None


def _comes_from_a_job(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(f.f_code is job.__code__ or f.f_globals["__name__"] == TOGETHER for f in frames)


def _unreadable(argument: str) -> ConfigError:
    key, given, value = argument.partition("=")
    way_out = "quote a value of many parts: 'key=\"a b, c\"'"
    if key and given and not set(value) & set("[]{}\"'$"):  # quotes would make a text of a list
        way_out = f'quote the value, for the shell and for Hydra: "{key}={in_quotes(value)}"'
    return ConfigError(argument, "not readable as key=value", way_out)


def _unknown_option(group: str, option: str, options: Sequence[str]) -> ConfigError:
    options = [name for name in options if not name.startswith(".")]  # an editor's
    close = difflib.get_close_matches(option, options, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    choice = f"choose from {', '.join(sorted(options))}" if options else HELP
    number = ", or give a number" if f"{group}.value" in RULES else ""
    return ConfigError(group, f"there is no option {option!r}", hint + choice + number)


def _no_name_of_an_option(arguments: Sequence[str]) -> ConfigError:
    """The first argument that gives a group something else than names of its options."""
    options = groups()
    for argument in arguments:
        key, value = key_of(argument), argument.partition("=")[2]
        if "=" in argument and not key:
            return _unreadable(argument)
        if key in options and not all(word.strip() in options[key] for word in value.split(",")):
            return _unknown_option(key, value, options[key])
    return ConfigError("command line", "a number where a group's option belongs", HELP)


def _unknown_key(key: str, arguments: Sequence[str]) -> ConfigError:
    """With the options of its group that have it, or the nearest key there is, and those beside it."""
    group, _, leaf = key.partition(".")
    if _program() == "evaluate" and group in set(groups()).difference(configs.ASKED_ANEW):
        way_out = "leave it out, or train another run with it"
        return ConfigError(key, "part of the run's own config, which is measured as it was trained", way_out)
    known = [name for name in _known_keys(arguments) if name != key]
    parent = key.rpartition(".")[0]
    beside = [name for name in known if parent and name.rpartition(".")[0] == parent and "._" not in name]
    rest = f"{parent} holds {', '.join(name.rpartition('.')[2] for name in beside)}" if beside else HELP
    if leaf and (having := _options_with(group, key)):
        chosen = next((a.partition("=")[2] for a in arguments if key_of(a) == group and "=" in a), "")
        problem = f"{group}={chosen} has no such key" if chosen in groups()[group] else "there is no such key here"
        return ConfigError(key, problem, f"choose {group}={' or '.join(having)} to give it ({rest})")
    leaves = {name.split(".")[-1]: name for name in known}
    close = difflib.get_close_matches(key, known, 1)
    close = close or [leaves[leaf] for leaf in difflib.get_close_matches(key.split(".")[-1], list(leaves), 1)]
    hint = f"did you mean {close[0]}? " if close else ""
    return ConfigError(key, "there is no such key", hint + rest)


def _options_with(group: str, key: str) -> list[str]:
    """The options of a group that have a key."""
    having = []
    for option in groups().get(group, ()):
        with suppress(Exception):  # one that can't be composed alone; this is for suggestions only
            if key in _keys_of([*_REQUIRED[_program()], f"{group}={option}"]):
                having.append(option)
    return having


_REQUIRED: dict[str, list[str]] = {"train": [], "evaluate": ["run=x"]}  # overrides that a config can't do without


def _known_keys(arguments: Sequence[str]) -> list[str]:
    """Every key and group that an override of this program can name, beside the command line's own choices."""
    options, required = groups(), _REQUIRED[_program()]
    # of evaluate.py's groups all have keys of their own; train.py has some more, as experiment
    more = list(options) if _program() == "train" else []
    chosen = [argument for argument in arguments if key_of(argument) in options]
    try:
        keys = _keys_of([*required, *chosen])
    except Exception:  # a choice may be a sweep, or wrong in another way; this is for suggestions only
        keys = _keys_of(required)
    return keys + more

"""Run Hydra on the command line: prepare the arguments, call each job, and report errors and signals."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn, TypeVar

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmvae.cli import gate
from fmvae.cli.arguments import check_removed, key_of, name_sweep, prepared, put_off
from fmvae.cli.completion import completed
from fmvae.cli.explain import config_dir, explain, keys_of, program
from fmvae.common import streams
from fmvae.common.command import INTERRUPTED, say, silence
from fmvae.common.stop import Stop
from fmvae.config import own_code
from fmvae.config.composing import resolve
from fmvae.config.hydra_internals import HydraConfig
from fmvae.config.project import PROJECT_ROOT, SWEEPS
from fmvae.errors import (
    FmvaeError,
    HeldError,
    ObjectiveError,
    Pruned,
    Terminated,
    interruption,
    of_a_run,
    of_the_machine,
)

T = TypeVar("T")
log = logging.getLogger("fmvae")

IN_PROCESS = ("BasicLauncher", "StackedLauncher")  # launchers that start no processes
OWN_SWEEPER = ".FmvaeSweeper"  # runs a fixed list of jobs; any other sweeper is a search
SEARCH = ".FmvaeSearch"  # the sweeper of hydra/sweeper=optuna
PLUGINS = PROJECT_ROOT / "fmvae" / "plugins"


def launch(main: Callable[[], Any]) -> NoReturn:
    """Run a ``@hydra.main`` function on the command line's arguments and end the process.

    The exit status is 0; 1 after an error, which is reported in one line; 130, 143 and 129 after Ctrl-C, SIGTERM
    and SIGHUP.
    """
    streams.set_up()
    _signals.clear()
    arguments = sys.argv[1:]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors to us; we print one line
    # the workers of a launcher, on any machine, must import this same code
    sys.path.append(str(PLUGINS))
    paths = [str(PROJECT_ROOT), str(PLUGINS), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    signal.signal(signal.SIGTERM, _terminate)
    # SIGHUP: the terminal's connection was lost. nohup has it ignored, and Windows does not have it
    if (hang_up := getattr(signal, "SIGHUP", None)) and signal.getsignal(hang_up) == signal.SIG_DFL:
        signal.signal(hang_up, _terminate)
    threading.excepthook = _thread_failed
    try:
        if program() == "evaluate" and (answer := completed(arguments, os.environ)) is not None:
            say(answer)
            sys.exit(0)
        gate.install()
        arguments = prepared(arguments, program())
        own, arguments = own_code.taken_out(arguments)
        if program() == "train":
            folder = config_dir()
            folders = (folder, SWEEPS) if folder else (SWEEPS,)
            arguments = put_off(name_sweep(arguments), keys_of, folders)
        sys.argv[1:] = arguments
        with gate.handing_on(own):
            main()
    except (KeyboardInterrupt, Terminated) as stop:
        _interrupted(stop)
    except BrokenPipeError:  # the reader closed the pipe, as in `... --help | head`
        silence()
    except Exception as error:
        if stop := _stop_behind(error):
            _interrupted(stop)
        if not (explained := explain(error, arguments)):
            raise
        fail(explained)
    atexit.register(_end_quietly)  # before all that was registered earlier
    sys.exit(0)


def _end_quietly() -> None:
    """From now on, end at once when a signal comes: all is done, and what raises while Python ends is printed."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _: os._exit(128 + received))


def _stop_behind(error: BaseException) -> BaseException | None:
    """Return the interruption behind an error, or None. Interrupted code may raise another error or none."""
    return interruption(error) or (Terminated(128 + _signals[-1]) if _signals else None)


def _interrupted(stop: BaseException) -> NoReturn:
    streams.complain("interrupted; repeat the command to continue")
    sys.exit(stop.code if isinstance(stop, Terminated) else INTERRUPTED)


def job(function: Callable[[dict[str, Any], list[str]], T], composed: DictConfig) -> T:
    """Call ``function(config, overrides)`` for one composed config.

    If a single run fails, its error is printed in one line and the process ends here. If a job of a sweep fails,
    its error is printed, and an exception is raised even for a ``sys.exit``, so that Hydra continues with the
    other jobs. A search whose objective is not measured ends at once, because none of its trials could succeed.
    """
    hydra_config = HydraConfig.get()
    try:
        with gate.handed_on():
            return _work(function, composed, hydra_config)
    except (Exception, SystemExit) as error:
        if stop := _stop_behind(error):
            raise stop from None
        explained = explain(error)
        if hydra_config.mode == RunMode.MULTIRUN and not ends_search(explained, hydra_config):
            said = tell(error)
            if isinstance(error, Exception):
                raise
            with of_a_run():
                raise RuntimeError(said) from error
        if not explained:
            raise
        fail(explained)


def _work(function: Callable[[dict[str, Any], list[str]], T], composed: DictConfig, hydra_config: Any) -> T:
    config, overrides = prepare(composed, hydra_config)
    if hydra_config.mode == RunMode.MULTIRUN:
        if config["device"] == "auto":
            config["device"] = f"auto:{hydra_config.job.num}"
        if not hydra_config.launcher._target_.endswith(IN_PROCESS) and "trainer" in config:
            config["trainer"]["progress"] = False  # several processes share one terminal
            streams.hide_bars()
    with of_a_run():
        with Stop() as stop:  # C code that is being imported can lose an exception raised by a handler
            import_module("fmvae.measurement")
        stop.heed()
        with judging(config, hydra_config):
            return function(config, overrides)


@contextmanager
def judging(config: Mapping[str, Any], hydra_config: Any) -> Iterator[None]:
    """Have the job inside judged by the pruner of the search that it belongs to, if there is one."""
    if hydra_config.mode != RunMode.MULTIRUN or not hydra_config.sweeper._target_.endswith(SEARCH):
        yield
        return
    from fmvae.experiments.search_target import names_of
    from fmvae.sweeps.pruning import judged

    with judged(hydra_config, names_of(config)):
        yield


def prepare(composed: DictConfig, hydra_config: Any) -> tuple[dict[str, Any], list[str]]:
    """Return a job's resolved config and its overrides.

    Raises:
        FmvaeError: the config is wrong.
    """
    # unresolved: ${...} in an override refers to the job's config, not to Hydra's
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    check_removed(overrides)
    if any(key_of(override) == own_code.KEY for override in overrides):  # launch removed the user's own
        raise own_code.refusal()
    gate.check_environment(hydra_config.job.env_set)
    if hydra_config.mode == RunMode.RUN:
        gate.check_single_run(hydra_config)
    config = resolve(composed, hydra_config.runtime)
    if own := own_code.granted():  # recorded, because repeating the command needs it
        overrides = [*overrides, f"{own_code.KEY}=[{','.join(own)}]"]
    return config, overrides


def ends_search(error: BaseException | None, hydra_config: Any) -> bool:
    """Return whether an error ends a search: its objective is not measured, so that no trial could succeed."""
    return isinstance(error, ObjectiveError) and not hydra_config.sweeper._target_.endswith(OWN_SWEEPER)


def tell(error: BaseException) -> str:
    """Log the error of a job of a sweep in one line, and return this line."""
    explained = explain(error)
    said = str(explained or f"{type(error).__name__}: {error}")
    if isinstance(explained, HeldError):  # not a failure: another process is training this run
        log.warning("%s", said)
    elif isinstance(explained, Pruned):
        log.info("%s", said)
    else:
        log.error("fmvae: error: %s", said)
    return said


_signals: list[int] = []  # the signals received so far


def _terminate(number: int, *_: object) -> NoReturn:
    _signals.append(number)
    raise Terminated(128 + number)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Suppress thread tracebacks for I/O and memory errors; the joining thread re-raises them."""
    if failure.exc_value is None or not of_the_machine(failure.exc_value):
        threading.__excepthook__(failure)


def fail(error: FmvaeError) -> NoReturn:
    streams.complain(f"fmvae: error: {error}")
    sys.exit(1)

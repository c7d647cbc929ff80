"""Between the shell and Hydra: what is done to the arguments before, and what is said of errors after."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn, TypeVar

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmvae.cli import gate
from fmvae.cli.arguments import check_removed, key_of, name_sweep, prepared, put_off
from fmvae.cli.explain import config_dir, explain, keys_of, program
from fmvae.common import streams
from fmvae.common.command import INTERRUPTED, silence
from fmvae.common.stop import Stop
from fmvae.config import own_code
from fmvae.config.composing import resolve
from fmvae.config.hydra_internals import HydraConfig
from fmvae.config.project import PROJECT_ROOT, SWEEPS
from fmvae.errors import (
    FmvaeError,
    HeldError,
    ObjectiveError,
    Terminated,
    interruption,
    of_a_run,
    of_the_machine,
)

T = TypeVar("T")
log = logging.getLogger("fmvae")

IN_PROCESS = ("BasicLauncher", "StackedLauncher")  # launchers that start no processes
OWN_SWEEPER = ".FmvaeSweeper"  # runs a list of jobs; others search
PLUGINS = PROJECT_ROOT / "fmvae" / "plugins"


def launch(main: Callable[[], Any]) -> NoReturn:
    """Run a ``@hydra.main`` function on the command line's arguments and end the process.

    Exit status: 0; 1 after an error, said in one line; 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP.
    """
    streams.set_up()
    _signals.clear()
    arguments = sys.argv[1:]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us whole, and leave as one line
    # whatever a launcher starts, and wherever, runs the code that runs here
    sys.path.append(str(PLUGINS))
    paths = [str(PROJECT_ROOT), str(PLUGINS), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    signal.signal(signal.SIGTERM, _terminate)
    # the connection broke; nohup ignores it, and Windows has none
    if (hang_up := getattr(signal, "SIGHUP", None)) and signal.getsignal(hang_up) == signal.SIG_DFL:
        signal.signal(hang_up, _terminate)
    threading.excepthook = _thread_failed
    try:
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
    except BrokenPipeError:  # a reader who has read enough, as of `... --help | head`
        silence()
    except Exception as error:
        if stop := _stop_behind(error):
            _interrupted(stop)
        if not (explained := explain(error, arguments)):
            raise
        fail(explained)
    sys.exit(0)


def _stop_behind(error: BaseException) -> BaseException | None:
    """The signal that caused an error, or None. Interrupted code may raise another error or swallow the signal."""
    return interruption(error) or (Terminated(128 + _signals[-1]) if _signals else None)


def _interrupted(stop: BaseException) -> NoReturn:
    streams.complain("interrupted; the same command continues")
    sys.exit(stop.code if isinstance(stop, Terminated) else INTERRUPTED)


def job(function: Callable[[dict[str, Any], list[str]], T], composed: DictConfig) -> T:
    """Call ``function(config, overrides)`` for one composed config.

    A single run that fails ends the process here, with its one line. A job of a sweep says its line and raises an
    exception, whatever it was: Hydra then goes on with the other jobs, which a ``sys.exit`` would end. Only a
    search by a number that is not measured ends, as no trial of it could succeed.
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
            config["trainer"]["progress"] = False  # of several processes on one terminal
    with of_a_run():
        with Stop() as stop:  # C code may swallow what a handler raises while it is imported
            import_module("fmvae.measurement")
        stop.heed()
        return function(config, overrides)


def prepare(composed: DictConfig, hydra_config: Any) -> tuple[dict[str, Any], list[str]]:
    """A job's resolved config and its overrides.

    Raises:
        FmvaeError: the config is wrong.
    """
    # as written: ${...} in an override refers to the job's config, not to Hydra's
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    check_removed(overrides)
    if any(key_of(override) == own_code.KEY for override in overrides):  # none of the person's comes this far
        raise own_code.refusal()
    gate.check_environment(hydra_config.job.env_set)
    if hydra_config.mode == RunMode.RUN:
        gate.check_single_run(hydra_config)
    config = resolve(composed, hydra_config.runtime)
    if own := own_code.granted():  # kept for people, who will have to give it again
        overrides = [*overrides, f"{own_code.KEY}=[{','.join(own)}]"]
    return config, overrides


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


_signals: list[int] = []  # that came


def _terminate(number: int, *_: object) -> NoReturn:
    _signals.append(number)
    raise Terminated(128 + number)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Nothing of a disk or memory that failed: who waits for the thread, as for TensorBoard's, raises it again."""
    if failure.exc_value is None or not of_the_machine(failure.exc_value):
        threading.__excepthook__(failure)


def fail(error: FmvaeError) -> NoReturn:
    streams.complain(f"fmvae: error: {error}")
    sys.exit(1)

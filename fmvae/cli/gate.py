"""Limit what a config can make Hydra call. Installed before Hydra reads a config, and in every worker process.

Hydra calls what a config names as a callback, as a logging handler, or as an argument of its sweeper or launcher,
before any of our code has seen the config. Hydra's own list of forbidden functions has os.system, but not
torch.load, so a config from somebody else could run any code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from fmvae.config import hydra_internals, own_code
from fmvae.config.building import allowed_targets
from fmvae.config.known import chosen_files
from fmvae.config.project import CONF
from fmvae.config.schema import walk
from fmvae.errors import ConfigError

OF_HYDRA = ("hydra_plugins.", "hydra._internal.core_plugins.")
VARIABLES = re.compile(r"(OMP|MKL|OPENBLAS)_NUM_THREADS|CUDA_VISIBLE_DEVICES")  # not PATH: it chooses programs
LOGGING = CONF / "hydra" / "job_logging" / "fmvae.yaml"

OWN_FOLDER = "leave it out: every run has a directory of its own, below output_root"
# settings of Hydra that must keep this value, and what to do if they have another one
FIXED = {
    "hydra.job.chdir": (False, OWN_FOLDER),
    "hydra.run.dir": (".", OWN_FOLDER),
    "hydra.sweep.subdir": (".", OWN_FOLDER),
    "hydra.output_subdir": (None, "leave it out: config.yaml and overrides.yaml are in each run's directory"),
}
# keys of Hydra's config in which a job may differ from its sweep: Hydra sets them, or reads them, for each job
PER_JOB = ("overrides", "runtime", "help", "hydra_help", "job", "mode")


def install() -> None:
    """Replace the three functions in which Hydra calls what a config names.

    Raises:
        ConfigError: this version of Hydra is not known, and may call it in another function.
    """
    hydra_internals.replace(
        {
            hydra_internals.CALLBACKS: no_callbacks,
            hydra_internals.LOGGING: our_logging,
            hydra_internals.TARGETS: known_class,
        }
    )


class Handed(metaclass=hydra_internals.Singleton):
    """The packages that a command allows (``allow=[...]``), for its jobs in any process.

    Hydra's launchers copy Hydra's singletons to their workers, and this class is one of them. An environment
    variable would also reach all other processes that a job starts.
    """

    names: tuple[str, ...] = ()
    folder = ""


@contextmanager
def handing_on(names: Sequence[str]) -> Iterator[None]:
    """Allow this command and its jobs to name classes of these packages, and of no others, inside.

    Raises:
        ConfigError: a package can't be found, or is not the user's own.
    """
    Handed().names, Handed().folder = tuple(names), str(Path.cwd())
    try:
        with handed_on():
            yield
    finally:
        Handed().names = ()


def handed_on() -> AbstractContextManager[None]:
    """Allow the packages that the command allows, in the process and thread of a job."""
    return own_code.allowing(Handed().names, Handed().folder)


def no_callbacks(self: Any, config: DictConfig | None = None) -> None:
    """Replace ``Callbacks.__init__``, to refuse callbacks and settings that must not change.

    Hydra calls it after composing and before it creates a folder.

    Raises:
        ConfigError: the config names callbacks, or another value for a key of ``FIXED``.
    """
    if config is not None:
        if OmegaConf.select(config, "hydra.callbacks"):
            raise ConfigError("hydra.callbacks", "a config cannot set callbacks", "remove it")
        check_fixed(config)
    self.callbacks = []


def check_fixed(config: DictConfig) -> None:
    """Refuse Hydra settings that would change the working directory or write files elsewhere.

    Raises:
        ConfigError: a key of ``FIXED`` has another value.
    """
    for key, (value, way_out) in FIXED.items():
        if (found := OmegaConf.select(config, key)) != value:
            raise ConfigError(key, f"{found!r} is not supported", way_out)


def our_logging(settings: dict[str, Any]) -> None:
    """Replace Hydra's ``configure_logging``, to refuse changes of the logging other than its level.

    A logging handler can be any callable, and write to any file.

    Raises:
        ConfigError: the settings differ from ours in more than ``root.level``.
    """
    ours = yaml.safe_load(LOGGING.read_text(encoding="utf-8"))
    level = settings["root"].get("level")
    if not isinstance(level, str) or settings != {**ours, "root": {**ours["root"], "level": level}}:
        raise ConfigError("hydra.job_logging", "only its root.level may be changed", "remove the rest")
    hydra_internals.original(hydra_internals.LOGGING)(settings)


def known_class(target: Any, full_key: str) -> Any:
    """Replace Hydra's ``_resolve_target``: return the class that a ``_target_`` names, if it is allowed.

    Allowed are the classes that ``build`` allows, and the plugins of Hydra.

    Raises:
        ConfigError: the target is not allowed.
    """
    allowed = (*allowed_targets(), *OF_HYDRA)
    name = target if isinstance(target, str) else f"{getattr(target, '__module__', '')}."
    resolve = hydra_internals.original(hydra_internals.TARGETS)
    found = resolve(target, full_key) if name.startswith(allowed) else None
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(allowed):
        raise ConfigError(f"{full_key or 'hydra'}._target_", f"{target!r} is not allowed", "remove it")
    return found


def check_single_run(hydra_config: Any) -> None:
    """Refuse settings of a single run that have an effect only in a sweep.

    Raises:
        ConfigError: the command line names a launcher or sweeper, or a file asks for a sweep.
    """
    for override in hydra_config.overrides.hydra:
        if re.match(r"[+~]*hydra[/.](launcher|sweeper)\b", override):
            raise ConfigError(override, "for a sweep, but this is a single run", "add -m, or leave it out")
    way_out = "add -m, or `mode: MULTIRUN` under `hydra:` of the file"
    for key, said in (("params", "a sweep over {}"), ("grids", "a sweep with grids")):
        if values := hydra_config.sweeper.get(key):
            problem = f"{said.format(', '.join(map(str, values)))}, but this is a single run"
            raise ConfigError(f"hydra.sweeper.{key}", problem, way_out)


def check_job(main: DictConfig, job: DictConfig) -> None:
    """Refuse a job whose settings of Hydra differ from those of its sweep. They would have no effect.

    Args:
        main: the sweep's config.
        job: the job's config.

    Raises:
        ConfigError: a setting differs; the message names the key, and the option that sets it.
    """
    check_fixed(job)
    asked, known = (
        {
            path: value
            for path, value in walk(OmegaConf.to_container(config.hydra, resolve=False))
            if path and path.partition(".")[0] not in PER_JOB and not isinstance(value, dict)
        }
        for config in (job, main)
    )
    differ = [path for path in {**known, **asked} if asked.get(path) != known.get(path)]
    if not differ:
        return
    files: Any = OmegaConf.to_container(job.hydra.runtime)
    by = [f"{group}={file.stem}" for group, file in chosen_files(files) if "hydra" in file.read_text("utf-8")]
    problem = f"{', '.join(by) or 'a job'} sets it, but all runs of a sweep share one value"
    way_out = "run a separate sweep with that option"
    if differ[0].startswith("launcher"):
        way_out += ", or give it on the command line, as hydra/launcher=joblib"
    raise ConfigError(f"hydra.{differ[0]}", problem, way_out)


def check_environment(variables: Mapping[str, Any]) -> None:
    """Refuse environment variables in ``hydra.job.env_set`` that do not set a number of threads or the GPUs.

    Raises:
        ConfigError: it sets another variable.
    """
    for name in variables:
        if not VARIABLES.fullmatch(name):
            raise ConfigError(
                f"hydra.job.env_set.{name}", "a config cannot set this variable", "set it in the shell"
            )

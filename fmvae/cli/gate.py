"""What a config, whoever wrote it, may have Hydra do; installed before it reads one, and in every worker.

Hydra would call what a config names as a callback, a logging handler, or an argument of its sweeper or launcher,
before any of our code has seen that config. Its own list of what is forbidden has os.system, but not torch.load.
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
from fmvae.config.project import PROJECT_ROOT
from fmvae.config.schema import walk
from fmvae.errors import ConfigError

OF_HYDRA = ("hydra_plugins.", "hydra._internal.core_plugins.", "optuna.samplers.")
VARIABLES = re.compile(r"(OMP|MKL|OPENBLAS)_NUM_THREADS|CUDA_VISIBLE_DEVICES")  # PATH, for one, decides what runs
# functions that conf/hydra/sweeper/optuna.yaml names
SEARCH = ("fmvae.sweeps.search.storage", "fmvae.sweeps.search.trials_left")
LOGGING = PROJECT_ROOT / "conf" / "hydra" / "job_logging" / "fmvae.yaml"

OWN_FOLDER = "leave it out: every run has a directory of its own, below output_root"
# settings of Hydra that must keep the value they have, and the way out
FIXED = {
    "hydra.job.chdir": (False, OWN_FOLDER),
    "hydra.run.dir": (".", OWN_FOLDER),
    "hydra.sweep.subdir": (".", OWN_FOLDER),
    "hydra.output_subdir": (None, "leave it out: config.yaml and overrides.yaml are in each run's directory"),
}
# of a job's Hydra config, what may differ from its sweep's: what Hydra fills in, or heeds for each job
PER_JOB = ("overrides", "runtime", "help", "hydra_help", "job", "mode")


def install() -> None:
    """Set the three places at which Hydra calls what a config names.

    Raises:
        ConfigError: this Hydra is not known, and may call it elsewhere.
    """
    hydra_internals.replace(
        {
            hydra_internals.CALLBACKS: no_callbacks,
            hydra_internals.LOGGING: our_logging,
            hydra_internals.TARGETS: known_class,
        }
    )


class Handed(metaclass=hydra_internals.Singleton):
    """What a command allows its jobs, wherever they run: Hydra's launchers give its singletons to their workers.

    No variable of the environment does, which whoever starts other processes would pass on, too.
    """

    names: tuple[str, ...] = ()
    folder = ""


@contextmanager
def handing_on(names: Sequence[str]) -> Iterator[None]:
    """Inside, this command and its jobs may name classes of these packages, and of no others.

    Raises:
        ConfigError: one is no importable package, or not one's own.
    """
    Handed().names, Handed().folder = tuple(names), str(Path.cwd())
    try:
        with handed_on():
            yield
    finally:
        Handed().names = ()


def handed_on() -> AbstractContextManager[None]:
    """Inside, what the command allows is allowed, in whatever process and thread a job runs."""
    return own_code.allowing(Handed().names, Handed().folder)


def no_callbacks(self: Any, config: DictConfig | None = None) -> None:
    """Replaces ``Callbacks.__init__``, which Hydra calls after composing and before it creates a folder."""
    if config is not None:
        if OmegaConf.select(config, "hydra.callbacks"):
            raise ConfigError("hydra.callbacks", "nothing is called from a config", "remove it")
        check_fixed(config)
    self.callbacks = []


def check_fixed(config: DictConfig) -> None:
    """Refuse Hydra settings that would change the working directory or write files elsewhere.

    Raises:
        ConfigError: a key of ``FIXED`` has another value.
    """
    for key, (value, way_out) in FIXED.items():
        if (found := OmegaConf.select(config, key)) != value:
            raise ConfigError(key, f"{found!r} would not be heeded", way_out)


def our_logging(settings: dict[str, Any]) -> None:
    """A handler may be any callable, and write to any file."""
    ours = yaml.safe_load(LOGGING.read_text(encoding="utf-8"))
    level = settings["root"].get("level")
    if not isinstance(level, str) or settings != {**ours, "root": {**ours["root"], "level": level}}:
        raise ConfigError("hydra.job_logging", "only its root.level may be changed", "remove the rest")
    hydra_internals.original(hydra_internals.LOGGING)(settings)


def known_class(target: Any, full_key: str) -> Any:
    """The class that a ``_target_`` names, if it is one of a VAE's parts or a plugin of Hydra's."""
    allowed = (*allowed_targets(), *OF_HYDRA)
    name = target if isinstance(target, str) else f"{getattr(target, '__module__', '')}."
    resolve = hydra_internals.original(hydra_internals.TARGETS)
    found = resolve(target, full_key) if name.startswith(allowed) else None
    if target in SEARCH:
        return found
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(allowed):
        raise ConfigError(f"{full_key or 'hydra'}._target_", f"{target!r} is not allowed", "remove it")
    return found


def check_single_run(hydra_config: Any) -> None:
    """Refuse what only a sweep heeds, of a run that is none of a sweep.

    Raises:
        ConfigError: the command line names a launcher or sweeper, or a file asks for a sweep.
    """
    for override in hydra_config.overrides.hydra:
        if re.match(r"[+~]*hydra[/.](launcher|sweeper)\b", override):
            raise ConfigError(override, "for a sweep, but this is a single run", "add -m, or leave it out")
    if params := hydra_config.sweeper.get("params"):
        way_out = "add -m, or `mode: MULTIRUN` under `hydra:` of the file"
        raise ConfigError(
            "hydra.sweeper.params", f"a sweep over {', '.join(params)}, but this is no sweep", way_out
        )


def check_job(main: DictConfig, job: DictConfig) -> None:
    """Refuse a job of a sweep that asks Hydra for something else than the sweep itself: only the sweep is heeded.

    Args:
        main: the sweep's config.
        job: the job's.

    Raises:
        ConfigError: with the key, and the option that asks for it.
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
    problem = f"{', '.join(by) or 'a job'} sets it for itself, but a sweep has one for all its runs"
    way_out = "start a sweep of that option alone"
    if differ[0].startswith("launcher"):
        way_out += ", or give it on the command line, as hydra/launcher=joblib"
    raise ConfigError(f"hydra.{differ[0]}", problem, way_out)


def check_environment(variables: Mapping[str, Any]) -> None:
    """``hydra.job.env_set`` of a config may say how many threads or which GPUs there are, and nothing else.

    Raises:
        ConfigError: it sets another variable.
    """
    for name in variables:
        if not VARIABLES.fullmatch(name):
            raise ConfigError(f"hydra.job.env_set.{name}", "not set from a config", "set it in the shell")

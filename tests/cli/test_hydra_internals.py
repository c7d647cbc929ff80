"""A Hydra whose inner parts are not the known ones: nothing is composed, and one line says what to install."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra._internal import callbacks, logging_config
from hydra._internal.instantiate import _instantiate2
from hydra.core.utils import JobRuntime

from fmvae.cli import gate
from fmvae.config import compose, hydra_internals
from fmvae.errors import ConfigError
from tests.architecture import ROOT, files, imports
from tests.cli.process import call, refused, succeeded

INSTALL = "install hydra-core>=1.3.8,<1.4"


@pytest.fixture
def unpatched(monkeypatch) -> Iterator[None]:
    """Hydra as it is, in this process."""
    hydra_internals.restore()
    monkeypatch.setattr(hydra_internals, "_originals", {})
    yield
    hydra_internals.restore()
    monkeypatch.undo()
    gate.install()


def test_it_is_the_one_module_that_takes_what_is_private():
    private = ("hydra._internal", "hydra.core", "hydra.version")

    def takes(source: str) -> bool:
        return any(module.startswith(private) for module in imports(source))

    found = [path for path in files() if takes((ROOT / path).read_text(encoding="utf-8"))]
    assert found == ["fmvae/config/hydra_internals.py"]
    assert takes("def f():\n    from hydra.core.utils import JobReturn")


def test_the_known_versions_are_those_that_are_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert INSTALL.removeprefix("install ") in project["dependencies"]


def test_this_hydra_is_known():
    assert hydra_internals.problem() == ""
    hydra_internals.check()


@pytest.mark.parametrize("version", ["1.3.8", "1.3.9", "1.3.10", "1.3.12.dev1"])
def test_versions_that_are_known(version, monkeypatch):
    monkeypatch.setattr(hydra, "__version__", version)
    assert hydra_internals.problem() == ""


@pytest.mark.parametrize(
    "version", ["1.3.7", "1.3.2", "1.2.0", "1.4.0", "1.4.0.dev1", "1.4", "2.0.0", "unknown", ""]
)
def test_versions_that_are_not(version, monkeypatch):
    monkeypatch.setattr(hydra, "__version__", version)
    for asks in (hydra_internals.check, gate.install, compose):
        with pytest.raises(ConfigError) as caught:
            asks()
        problem = f"{version} is not a version whose inner parts are known"
        assert str(caught.value) == " ".join(f"hydra-core: {problem}; {INSTALL}".split())


def other(*_: Any) -> None:
    """Of another signature."""


@pytest.mark.usefixtures("unpatched")
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (callbacks.Callbacks, "__init__"),
        (callbacks, "Callbacks"),
        (logging_config, "configure_logging"),
        (_instantiate2, "_resolve_target"),
    ],
)
def test_a_place_that_is_not_there_or_is_another_is_not_patched(owner, name, monkeypatch):
    real = getattr(owner, name)
    monkeypatch.delattr(owner, name)
    with pytest.raises(ConfigError, match=rf"has no hydra\._internal\..*; {INSTALL}"):
        gate.install()
    monkeypatch.setattr(owner, name, other, raising=False)
    with pytest.raises(ConfigError, match=INSTALL):
        gate.install()
    assert getattr(owner, name) is other
    monkeypatch.setattr(owner, name, real)  # the control
    gate.install()
    assert hydra_internals.original(hydra_internals.TARGETS) is not _instantiate2._resolve_target


def test_state_that_is_not_there_is_noticed(monkeypatch):
    class Other:
        @staticmethod
        def instance() -> object:
            return object()

    assert hasattr(JobRuntime.instance(), "conf")
    monkeypatch.setattr(hydra_internals, "JobRuntime", Other)
    assert "Other of" in hydra_internals.problem()


# each with the words that it is refused by
FAKED = {
    "hydra.__version__ = '1.4.0'": "1.4.0 is not a version whose inner parts are known",
    "import hydra._internal.callbacks as c; del c.Callbacks.__init__": "has no hydra._internal.callbacks.",
    "import hydra._internal.logging_config as c; c.configure_logging = lambda a: None": "takes a and not config",
    "import hydra.core.utils as u; del u.JobReturn": "lacks a part (cannot import name 'JobReturn'",
}


@pytest.mark.parametrize("fake", FAKED)
def test_a_program_runs_nothing_by_another_hydra(fake, tmp_path):
    """From its first line: as it begins, nothing of ours has seen Hydra yet."""
    program = "evaluate.py" if "logging" in fake else "train.py"
    code = f"import runpy, sys, hydra, hydra.main\n{fake}\nsys.argv[0] = {program!r}\n"
    code += f"runpy.run_path({str(Path(ROOT, program))!r}, run_name='__main__')"
    arguments = (
        ["run=x"]
        if program == "evaluate.py"
        else [f"output_root={tmp_path}/out", "-m", "seed=0,1", "dry_run=true"]
    )
    refused(call("-c", code, *arguments, cwd=tmp_path), "hydra-core: ", FAKED[fake], INSTALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["BasicSweeper", "BasicLauncher"])
def test_a_part_that_plugins_extend_is_missing(name, tmp_path):
    module = f"hydra._internal.core_plugins.{hydra_internals.LATE[name].rpartition('.')[2]}"
    code = (
        "import runpy, sys, hydra, fmvae.config.hydra_internals as internals\n"
        f"internals.LATE[{name!r}] = {module!r} + '_of_old'\n"
        "sys.argv[0] = 'train.py'\n"
        f"runpy.run_path({str(Path(ROOT, 'train.py'))!r}, run_name='__main__')"
    )
    done = call("-c", code, f"output_root={tmp_path}/out", "-m", "seed=0,1", "dry_run=true", cwd=tmp_path)
    refused(done, f"has no {module}_of_old.{name}", INSTALL)
    assert list(tmp_path.iterdir()) == []


def test_negative_control_the_same_by_the_hydra_that_is_known(tmp_path):
    code = "import runpy, sys, hydra\nsys.argv[0] = 'train.py'\n"
    code += f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    arguments = [f"output_root={tmp_path}/out", "-m", "seed=0,1", "dry_run=true"]
    assert "2 runs" in succeeded(call("-c", code, *arguments, cwd=tmp_path))

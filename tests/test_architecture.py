"""The floors of docs/architecture.md: imports point down, and Hydra is met at the entrance only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# from the ground up; a module may import its own package and whatever stands before it
FLOORS = (
    "errors",
    "text",
    "common",
    "logs",
    "rng",
    "weights",
    "config.project",
    "config.schema",
    "config.presets",
    "config",  # whatever else is in it
    "runs",
    "objectives",
    "data",
    "models",
    "visualization",
    "evaluation",
    "training",
    "startup",
    "assembly",
    "summary",
    "measurement",
    "experiments",
    "report",
    "recompute",
    "verify",
    "sweeping",
    "search",
    "gate",
    "arguments",
    "explain",
    "cli",
    "plugins",
)
HYDRA = {
    "train.py",
    "evaluate.py",
    "fmvae/config/building.py",
    "fmvae/config/composing.py",
    "fmvae/config/presets.py",
    "fmvae/config/stored.py",
    "fmvae/arguments.py",
    "fmvae/cli.py",
    "fmvae/explain.py",
    "fmvae/gate.py",
    "fmvae/plugins/hydra_plugins/fmvae_launcher.py",
    "fmvae/plugins/hydra_plugins/fmvae_sweeper.py",
    "fmvae/plugins/hydra_plugins/fmvae_search.py",
}
ENTRY_SCRIPTS = {"fmvae/data/__main__.py", "fmvae/report/__main__.py"}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "fmvae").rglob("*.py"))


def imports(source: str) -> set[str]:
    """Every module a source text imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str | None:
    """The floor a dotted module stands on; None for foreign ones and the package itself."""
    top, *parts = module.split(".")
    names = [".".join(parts[:depth]) for depth in (2, 1)]
    return next((name for name in names if name in FLOORS), None) if top == "fmvae" else None


def upward(path: str, source: str) -> set[str]:
    """The floors above its own that a file of the package imports."""
    own = room(path.removesuffix(".py").replace("/", "."))
    if own is None:
        return set()
    rooms = {found for module in imports(source) if (found := room(module))}
    return {other for other in rooms if FLOORS.index(other) > FLOORS.index(own)}


@pytest.mark.parametrize("path", [path for path in FILES if path not in ENTRY_SCRIPTS])
def test_imports_point_down(path: str):
    assert not upward(path, (ROOT / path).read_text(encoding="utf-8"))


def test_an_import_that_points_up_is_noticed():
    assert upward("fmvae/models/base.py", "from fmvae.training import VAETrainer") == {"training"}
    assert upward("fmvae/models/base.py", "def f():\n    import fmvae.evaluation.cache") == {"evaluation"}
    assert upward("fmvae/weights/__init__.py", "from fmvae import config") == {"config"}
    assert upward("fmvae/config/schema.py", "from fmvae import config") == {"config"}
    assert upward("fmvae/config/schema.py", "from fmvae.config.composing import resolve") == {"config"}
    assert upward("fmvae/config/presets.py", "from fmvae.config import PROJECT_ROOT") == {"config"}
    assert upward("fmvae/common/locks.py", "from fmvae.logs import Terminal") == {"logs"}
    assert not upward("fmvae/models/base.py", "from fmvae.runs.files import digest")
    assert not upward("fmvae/config/composing.py", "from fmvae.config.schema import RULES")


def test_every_module_stands_on_a_floor_and_every_floor_has_one():
    """A package that is not listed could import anything."""
    rooms = {
        path: room(path.removesuffix(".py").replace("/", ".")) for path in FILES if path != "fmvae/__init__.py"
    }
    assert [path for path, found in rooms.items() if found is None] == []
    assert set(rooms.values()) == set(FLOORS)


@pytest.mark.parametrize("path", ["train.py", "evaluate.py", *FILES])
def test_hydra_and_omegaconf_are_met_at_the_entrance_only(path: str):
    imported = imports((ROOT / path).read_text(encoding="utf-8"))
    uses = any(module.split(".")[0] in ("hydra", "omegaconf") for module in imported)
    assert uses <= (path in HYDRA)


@pytest.mark.parametrize("path", ["train.py", "evaluate.py"])
def test_entry_scripts_are_short(path: str):
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 60


def test_no_file_is_long():
    assert not [path for path in FILES if len((ROOT / path).read_text(encoding="utf-8").splitlines()) > 300]

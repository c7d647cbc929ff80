"""The floors of docs/architecture.md: imports point down, and Hydra is met at the entrance only."""

import subprocess
import sys

import pytest

from tests.architecture import LONGEST, MOST_AT_TOP, ROOT, at_top, circles, files, graph, imports, lengths, sources

# from the ground up; a module may import its own package and whatever stands before it
FLOORS = (
    "errors",
    "common",
    "rng",
    "weights",
    "evaluation.column",
    "evaluation.columns",
    "evaluation.criteria",
    "config.project",
    "config.rule",
    "config.schema",
    "config.hydra_internals",
    "config.presets",
    "config.identity",
    "config",  # whatever else is in it
    "runs",
    "trackers",
    "objectives",
    "data",
    "models",
    "visualization",
    "evaluation",
    "explore",
    "training",
    "assembly",
    "measurement",
    "export",
    "experiments",
    "sweeps",
    "report",
    "verify",
    "udr",
    "cli",
    "plugins",
)
HYDRA = {
    "train.py",
    "evaluate.py",
    "fmvae/config/building.py",
    "fmvae/config/composing.py",
    "fmvae/config/hydra_internals.py",
    "fmvae/config/stored.py",
    "fmvae/cli/main.py",
    "fmvae/cli/explain.py",
    "fmvae/cli/gate.py",
    "fmvae/plugins/hydra_plugins/fmvae_launcher.py",
    "fmvae/plugins/hydra_plugins/fmvae_sweeper.py",
    "fmvae/plugins/hydra_plugins/fmvae_search.py",
}
ENTRY_SCRIPTS = {"fmvae/data/__main__.py", "fmvae/explore/__main__.py", "fmvae/report/__main__.py"}
FILES = files()


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
    assert upward("fmvae/models/mlp.py", "from fmvae.training import VAETrainer") == {"training"}
    assert upward("fmvae/models/mlp.py", "def f():\n    import fmvae.evaluation.cache") == {"evaluation"}
    assert upward("fmvae/weights/__init__.py", "from fmvae import config") == {"config"}
    assert upward("fmvae/config/schema.py", "from fmvae import config") == {"config"}
    assert upward("fmvae/config/schema.py", "from fmvae.config.composing import resolve") == {"config"}
    assert upward("fmvae/config/presets.py", "from fmvae.config import compose") == {"config"}
    assert not upward("fmvae/models/mlp.py", "from fmvae.runs.files import digest")
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
    assert not {path: lines for path, lines in lengths(FILES).items() if lines > LONGEST}


def test_few_modules_lie_at_the_top():
    assert len(at_top()) <= MOST_AT_TOP


def test_nothing_imports_in_a_circle():
    assert not circles(graph(sources()))


def test_a_circle_is_noticed_wherever_its_imports_stand():
    text = {
        "fmvae.a": "from fmvae.b import B",
        "fmvae.b": "def f():\n    import fmvae.c",
        "fmvae.c": "if TYPE_CHECKING:\n    from fmvae.a import A",
        "fmvae.d": "from fmvae import a",
    }
    assert circles(graph(text)) == [["fmvae.a", "fmvae.b", "fmvae.c"]]
    assert not circles(graph(text | {"fmvae.c": ""}))


LIGHT = {
    "fmvae.runs.directory": ("torch", "hydra", "omegaconf"),  # finding runs, and checking whose they are
    "fmvae.config.identity": ("torch", "hydra", "omegaconf"),
    "fmvae.config.stored": ("torch", "hydra", "omegaconf"),
    "fmvae.sweeps.status": ("torch", "hydra", "omegaconf"),
    "fmvae.evaluation.column": ("torch", "hydra", "omegaconf"),
    "fmvae.evaluation.columns": ("torch", "hydra", "omegaconf"),
    "fmvae.evaluation.criteria": ("torch", "hydra", "omegaconf"),
    "fmvae.report.comparison": ("torch", "hydra", "omegaconf"),
    "fmvae.verify": ("torch", "hydra", "omegaconf"),
    "fmvae.cli.main": ("torch",),
}


def loaded_by(modules: str) -> set[str]:
    """The modules that importing these loads, in a new process."""
    code = f"import sys, {modules}; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(said.stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_what_is_heavy_is_not_imported_before_it_is_needed(module: str):
    assert not loaded_by(module) & set(LIGHT[module])


def test_a_heavy_import_is_noticed():
    assert {"torch", "hydra", "omegaconf"} <= loaded_by("fmvae.runs.checkpoint, fmvae.config.composing")

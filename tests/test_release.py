"""A release: one version everywhere, what the archives contain, and every command from an installed wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from datetime import date
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import fmvae
from fmvae.config import project
from fmvae.config.composing import compose
from fmvae.errors import FmvaeError
from fmvae.report.__main__ import main as report
from tests.architecture import ROOT
from tests.cli.finished import Finished
from tests.cli.process import refused, succeeded
from tests.data.own_images import drawn, npz

# --- one version ----------------------------------------------------------------------------------------------

HEADING = re.compile(r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)
# of Citation File Format 1.2.0: what its schema requires, and the types of what we give
CITATION = {"cff-version": str, "message": str, "title": str, "authors": list}
CITATION_MORE = {
    "abstract": str,
    "type": str,
    "version": str,
    "date-released": date,
    "license": str,
    "keywords": list,
}


def differing(version: str, changelog: str, citation: str) -> list[str]:
    """What disagrees on the version or its date, or lacks one."""
    cited = yaml.safe_load(citation)
    newest = re.search(r"^## .*$", changelog, re.MULTILINE)
    dated = HEADING.fullmatch(newest[0]) if newest else None
    if dated is None:
        return ["CHANGELOG.md has no version with a date at its top"]
    found = {"CHANGELOG.md": dated.groups(), "CITATION.cff": (cited["version"], f"{cited['date-released']}")}
    return [file for file, pair in found.items() if pair != (version, dated[2])]


def texts() -> tuple[str, str, str]:
    files = [(ROOT / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "CITATION.cff")]
    return fmvae.__version__, files[0], files[1]


def test_version_changelog_and_citation_agree():
    assert re.fullmatch(r"\d+\.\d+\.\d+", fmvae.__version__)
    assert differing(*texts()) == []


def test_a_version_or_date_that_disagrees_is_noticed():
    version, changelog, citation = texts()
    heading = HEADING.search(changelog)
    assert heading
    unreleased = changelog.replace(heading[0], f"## {version} (unreleased)")
    assert differing("9.9.9", changelog, citation) == ["CHANGELOG.md", "CITATION.cff"]
    assert differing(version, changelog.replace(heading[2], "2020-01-01"), citation) == ["CITATION.cff"]
    assert differing(version, changelog, citation.replace(f"version: {version}", "version: 0.9.0")) == [
        "CITATION.cff"
    ]
    assert len(differing(version, unreleased, citation)) == 1


def test_the_package_has_its_version_from_the_code_alone():
    """So no second one can be forgotten."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in settings["project"]
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fmvae.__version__"}


def faults(citation: Mapping[str, Any]) -> list[str]:
    """What a citation file lacks, or has of a wrong type or under an unknown key."""
    known = {**CITATION, **CITATION_MORE}
    wrong = [key for key, value in citation.items() if not isinstance(value, known.get(key, ()))]
    wrong += [f"author {author}" for author in citation.get("authors", ()) if set(author) != {"name"}]
    return [key for key in CITATION if key not in citation] + wrong


def test_the_citation_file_is_valid():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert faults(citation) == []
    assert (citation["cff-version"], citation["type"], citation["license"]) == ("1.2.0", "software", "MIT")
    without = {key: value for key, value in citation.items() if key != "authors"}
    assert faults(without) == ["authors"]
    assert faults({**citation, "version": 1.0}) == ["version"]  # an unquoted 1.0 is a number to YAML
    assert faults({**citation, "repo": "x"}) == ["repo"]


# --- archives -------------------------------------------------------------------------------------------------

TOPS = ("fmvae", "conf", "sweeps", "docs", "tests", "benchmarks", "notebooks")  # folders of the source archive
FILES = [path.name for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]
JUNK = (  # what lies in a used checkout
    *(
        "data/images.gz",
        "outputs/base-b1-z2-s0-00000000/config.yaml",
        "benchmarks/results/a.json",
        "site/index.html",
    ),
    *(
        "conf/model/.#base.yaml",
        "conf/data/~copy.yaml",
        "fmvae/__pycache__/a.cpython-311.pyc",
        "build/lib/fmvae/a.py",
    ),
    *("tests/__pycache__/b.cpython-311.pyc", ".venv/pyvenv.cfg", ".pytest_cache/c.py"),
)
BUILD = "import sys, setuptools.build_meta as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"


def with_junk(folder: Path, weights: bool) -> Path:
    """Copy the checkout, and put into the copy what must not be released; without weights, theirs are empty."""
    left_out = shutil.ignore_patterns("__pycache__", *(() if weights else ("*.safetensors",)))
    for name in TOPS:
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name in FILES:
        shutil.copy2(ROOT / name, folder / name)
    for name in JUNK:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("junk")
    (folder / "outputs" / ".gitkeep").touch()
    for name in () if weights else (path.name for path in (ROOT / "fmvae" / "weights").glob("*.safetensors")):
        (folder / "fmvae" / "weights" / name).touch()
    return folder


def built(kind: str, source: Path, target: Path) -> Path:
    """Build ``sdist`` or ``wheel`` as a frontend does, in this environment; return the file."""
    target.mkdir(exist_ok=True)
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


def released(folder: Path, weights: bool) -> tuple[Path, Path]:
    """Return the source archive of a copy of the checkout, and the wheel that is built from this archive."""
    if find_spec("setuptools") is None or int(metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs the build backend, setuptools >= 77")  # not imported: it replaces distutils
    checkout = with_junk(folder / "checkout", weights)
    archive = built("sdist", checkout, folder / "dist")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    return archive, built("wheel", source, folder / "dist")


def inside(archive: Path) -> set[str]:
    """The files in an archive, in a source archive without its top folder."""
    if archive.suffix == ".whl":
        return {name for name in zipfile.ZipFile(archive).namelist() if not name.endswith("/")}
    with tarfile.open(archive) as file:
        return {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}


def files_of(*folders: str) -> set[str]:
    """The files of folders of the checkout, but for caches, hidden files and results of benchmarks."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in found}
    return {name for name in names if not re.search(r"(^|/)(\.|~|__pycache__/)|\.pyc$|^benchmarks/results/", name)}


def expected() -> set[str]:
    """What a wheel must have, besides its metadata."""
    return files_of("fmvae") | {f"fmvae/shipped/{name}" for name in files_of("conf", "sweeps")}


def own_files(wheel: Path) -> set[str]:
    return {name for name in inside(wheel) if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> tuple[Path, Path]:
    return released(tmp_path_factory.mktemp("release"), weights=False)


def test_the_source_archive_is_the_checkout_and_nothing_else(archives):
    names = inside(archives[0])
    written = {"PKG-INFO", "setup.cfg"} | {name for name in names if name.startswith("fmvae.egg-info/")}
    assert names - written == files_of(*TOPS) | {*FILES, "outputs/.gitkeep"}
    assert not names & set(JUNK)


def test_the_wheel_is_the_package_with_its_weights_and_configs_and_nothing_else(archives):
    assert own_files(archives[1]) == expected()
    assert archives[1].name == f"fmvae-{fmvae.__version__}-py3-none-any.whl"


def test_negative_control_a_build_without_setup_py_lacks_the_configs(archives, tmp_path):
    with tarfile.open(archives[0]) as file:
        file.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    (source / "setup.py").unlink()
    lacking = expected() - own_files(built("wheel", source, tmp_path / "dist"))
    assert lacking == {f"fmvae/shipped/{name}" for name in files_of("conf", "sweeps")}


def test_the_metadata_names_version_licence_and_what_it_needs(archives):
    wheel = zipfile.ZipFile(archives[1])
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    head = wheel.read(name).decode().partition("\n\n")[0].splitlines()
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {f"Version: {fmvae.__version__}", "License-Expression: MIT", "License-File: LICENSE"} < set(head)
    assert sum(line.startswith("Requires-Dist: ") and "extra ==" not in line for line in head) == len(
        asked["dependencies"]
    )
    assert {f"Classifier: {one}" for one in asked["classifiers"]} < set(head)


# --- an installed wheel ---------------------------------------------------------------------------------------

STUDY = """
import json, sys
from fmvae.config import compose
from fmvae.experiments import train
from fmvae.measurement import load_run
from fmvae.measurement.evaluate import evaluate_runs

for seed in range(3):
    train(compose([*sys.argv[1:], f"seed={seed}"]))
run = load_run("last", device="cpu")
asked = ["device=cpu", "evaluation=fast", "figures.only=[samples]"]
evaluate_runs(compose([f"run={run.run.path}", *asked], "evaluate"))
origin = run.results["provenance"]["training"]
print(json.dumps([origin["versions"]["fmvae"], origin["git"]["commit"], list(run.sample(2).shape)]))
print(len(compose(["sweep=quick"])["data"]))
"""
COMPOSES = "from fmvae.config import compose; compose()"
SETTINGS = [
    "data=arrays",
    "data.batch_size=30",
    "model.hidden_dim=8",
    "trainer.epochs=1",
    "device=cpu",
    "threads=1",
]
SETTINGS += ["trainer.progress=false", "evaluation=fast", "evaluation.fid.num_images=0", "figures.only=[]"]


def commands() -> set[str]:
    """What ``python -m`` can start, of the package."""
    loose = (path for path in (ROOT / "fmvae").glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8"))
    return {f"fmvae.{path.stem}" for path in loose} | {
        f"fmvae.{path.parent.name}" for path in (ROOT / "fmvae").glob("*/__main__.py")
    }


class Installed:
    """An environment with the wheel, which borrows all other packages, and a folder to work in."""

    def __init__(self, folder: Path, wheel: Path):
        self.env, self.here = folder / "env", folder / "here"
        self.here.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.env)], check=True)
        self.python = self.env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        install = ["-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([sys.executable, *install, "--no-cache-dir", str(wheel)], check=True)
        (found,) = self.env.rglob("site-packages")
        self.packages = found
        # a .pth file adds folders, but not what their own .pth files add: not the editable checkout
        (found / "borrowed.pth").write_text("\n".join(site.getsitepackages()))

    def files(self) -> set[Path]:
        """All that is installed, without Python's caches."""
        return {path for path in self.packages.rglob("*") if "__pycache__" not in path.parts}

    def call(self, *arguments: object, **environment: str) -> Finished:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.here, env=env, capture_output=True, text=True, timeout=300)
        return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pip") is None, reason="needs pip, to install the wheel")
def test_every_command_works_from_a_wheel_without_a_checkout(tmp_path):
    archive, wheel = released(tmp_path, weights=True)
    installed = Installed(tmp_path, wheel)
    place = succeeded(installed.call("-c", "import fmvae; print(fmvae.__file__)")).strip()
    assert Path(place).parent == installed.packages / "fmvae"
    before = installed.files()
    images, labels = drawn(150)
    npz(installed.here / "mine.npz", images=images, labels=labels)
    (installed.here / "study.py").write_text(STUDY)

    done = installed.call("study.py", *SETTINGS, "data.root=mine.npz")
    assert done.status == 0, done.stderr
    facts, keys = done.stdout.splitlines()[-2:]
    assert json.loads(facts) == [fmvae.__version__, None, [2, 1, 12, 12]]
    assert int(keys) > 0
    runs = [path.parent for path in (installed.here / "outputs").glob("*/results.json")]
    assert len(runs) == 3

    tried: dict[str, Iterable[object]] = {
        "fmvae.data": ["stats", "data=arrays", "data.root=mine.npz"],
        "fmvae.explore": ["last"],
        "fmvae.export": ["last"],
        "fmvae.report": ["outputs"],
        "fmvae.udr": ["outputs", "--num-images=100", "--device=cpu"],
        "fmvae.verify": ["outputs", "--device=cpu"],
    }
    assert set(tried) == commands()
    for module, arguments in tried.items():
        done = installed.call("-m", module, *arguments)
        if module == "fmvae.export" and find_spec("onnx") is None:
            refused(done, "export")
            continue
        assert done.status == 0, (module, done.stderr)
        assert done.stdout
    assert list(installed.here.glob("outputs/*/explorer.html"))
    assert list(installed.here.glob("outputs/*/figures/samples.png"))
    assert list(installed.here.glob("outputs/report/index.html"))
    assert (
        succeeded(installed.call("-m", "fmvae.report", "status", "outputs")).count("complete") >= 1
    )  # a table of runs
    refused(installed.call("-m", "fmvae.report", "reference"), "docs/published.yaml", "in a checkout")
    assert installed.files() == before  # no run, page or cache is put among the packages

    # the unpacked source archive is a checkout: it trains, and its runs stay in it
    source = tmp_path / "unpacked" / archive.name.removesuffix(".tar.gz")
    done = installed.call(source / "train.py", *SETTINGS, "data.root=mine.npz", "-m", "seed=0,1")
    assert done.status == 0, done.stderr
    assert len(list(source.glob("outputs/*/*/results.json"))) == 2

    # a wheel without its data can do none of this
    succeeded(installed.call("-c", COMPOSES))
    shutil.rmtree(installed.packages / "fmvae" / "shipped")
    assert installed.call("-c", COMPOSES).status != 0
    assert installed.call("-m", "fmvae.data", *tried["fmvae.data"]).status != 0


# --- where files are ------------------------------------------------------------------------------------------


@pytest.fixture
def without_checkout(tmp_path, monkeypatch) -> Path:
    """As in an installed wheel, in an empty working directory."""
    shipped = tmp_path / "fmvae" / "shipped"
    (shipped / "sweeps").mkdir(parents=True)
    monkeypatch.setattr(project, "CHECKOUT", None)
    monkeypatch.setattr(project, "SHIPPED", shipped)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_in_a_checkout_all_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ROOT == project.CHECKOUT
    assert (project.CONF, project.SWEEPS) == (ROOT / "conf", ROOT / "sweeps")
    for name in ("outputs", "sweeps", "conf", "fmvae/plugins", "."):
        assert project.project_path(name) == ROOT / name
    assert compose()["output_root"] == str(ROOT / "outputs")
    assert project.checkout("x", "y") == ROOT


def test_without_a_checkout_runs_go_into_the_working_directory(without_checkout):
    assert compose()["output_root"] == str(without_checkout / "outputs")
    assert project.project_path("sweeps") == project.SHIPPED / "sweeps"
    assert project.project_path("fmvae/plugins") == ROOT / "fmvae" / "plugins"


def test_what_is_missing_is_installed_by_a_command_that_works_there(without_checkout, monkeypatch):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    uses = {path: path.read_text(encoding="utf-8") for path in (ROOT / "fmvae").rglob("*.py")}
    named = [extra for text in uses.values() for extra in re.findall(r'\binstall\("(\w+)"\)', text)]
    assert sorted(named) == ["export", "factors", "flows", "flows", "mlflow", "optuna", "wandb"]
    assert set(named) <= set(extras)
    assert project.install("flows") == f"install it: pip install 'fmvae[flows]=={fmvae.__version__}'"
    monkeypatch.setattr(project, "CHECKOUT", ROOT)
    assert project.install("flows") == "install it: in the checkout, pip install -e '.[flows]'"


def test_a_command_that_needs_the_checkout_says_so(without_checkout, capsys):
    with pytest.raises(FmvaeError, match=r"^python -m x: needs y, .*; run it in a checkout"):
        project.checkout("python -m x", "y")
    assert report(["reference"]) == 1
    assert "docs/published.yaml" in capsys.readouterr().err
    assert list(without_checkout.iterdir()) == [without_checkout / "fmvae"]

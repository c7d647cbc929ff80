"""One's own models by ``allow=[...]``: what a command line grants, and that nothing else grants anything."""

import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from fmvae.config import compose, own_code
from fmvae.config.building import find_class
from fmvae.config.identity import RunIdentity
from fmvae.config.own_code import allowing, carried_on, granted, sources_sha256, taken_out
from fmvae.errors import ConfigError
from fmvae.experiments import train
from fmvae.measurement.load import load_run
from fmvae.runs.files import read_record
from tests.cli.process import ROOT, Finished, Study, call, refused, snapshot, succeeded
from tests.cli.test_launchers import needs
from tests.faults.warmed import warmed

PACKAGE = "ownmodels"
SMALL = """
import json, os, subprocess
from collections import OrderedDict
from fmvae.models import BaseVAE

class Small(BaseVAE):
    def __init__(self, latent_dim: int, width: int = 8, image_shape=(1, 28, 28)):
        super().__init__(latent_dim, width, image_shape)
        if log := os.environ.get("OWN_LOG"):
            with open(log, "w") as file:
                json.dump(dict(os.environ), file)

def make(latent_dim):
    return Small(latent_dim)
"""
MINE = """
_target_: ownmodels.Small
_name_: mine
latent_dim: ${latent_dim.value}
width: 8
image_shape: ${data.image_shape}
"""
ALLOW = "allow=[ownmodels]"
HINT = "give allow=ownmodels"
CHOSEN = ["--config-dir=conf", "model=mine"]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def package(folder: Path) -> Path:
    """A folder to work in: a package with a model, and configs that name it."""
    return write(
        folder,
        {
            f"{PACKAGE}/__init__.py": "from ownmodels.small import OrderedDict, Small, make\n",
            f"{PACKAGE}/small.py": SMALL,
            "conf/model/mine.yaml": MINE,
        },
    )


class Desk(NamedTuple):
    """A folder with a package of one's own, in which commands are given, and a study of its own."""

    here: Path
    study: Study

    @property
    def settings(self) -> list[str]:
        return [*self.study.settings, "figures=none", "threads=1"]

    def train(self, *arguments: str, **more: Any) -> Finished:
        return warmed().call("train.py", *self.settings, *arguments, cwd=self.here, **more)

    def call(self, program: str, *arguments: str, **more: Any) -> Finished:
        return warmed().call(program, *arguments, cwd=self.here, **more)

    def results(self, pattern: str = "mine-*") -> dict[str, Any]:
        return read_record(self.study.run(pattern) / "results.json")


def desk_at(folder: Path, untrained: Study) -> Desk:
    return Desk(package(folder / "here"), Study(untrained.data, untrained.sha256, folder / "out"))


@pytest.fixture
def desk(untrained, tmp_path) -> Desk:
    return desk_at(tmp_path, untrained)


@pytest.fixture(scope="module")
def trained(untrained, tmp_path_factory) -> Desk:
    """A run of one's own model, and one of a model of ours with the same grant. Not to be changed."""
    desk = desk_at(tmp_path_factory.mktemp("trained"), untrained)
    succeeded(desk.train(*CHOSEN, ALLOW))
    succeeded(desk.train("model.hidden_dim=8", ALLOW))
    return desk


@pytest.fixture
def copied(trained, tmp_path) -> Desk:
    """The same, to be changed."""
    here = Path(shutil.copytree(trained.here, tmp_path / "here"))
    return Desk(here, trained.study.copied_to(tmp_path / "out"))


@pytest.fixture
def importable(monkeypatch) -> Iterator[None]:
    """What is imported in this process of one's own packages is forgotten, and so is where it was looked for."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    own_code._contents.cache_clear()
    yield
    own_code._contents.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


# --- what is granted -------------------------------------------------------------------------------------------


def test_a_run_of_ones_own_model_is_like_any_other(trained):
    run = trained.study.run("mine-*")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert "allow" not in config
    assert run.name == RunIdentity.of(config).name
    assert yaml.safe_load((run / "overrides.yaml").read_text())[-1] == ALLOW
    assert trained.results()["test"]["objective"] > 0


def test_its_provenance_has_the_digest_of_the_sources(trained):
    content = hashlib.sha256()
    for name in ("__init__.py", "small.py"):
        source = (trained.here / PACKAGE / name).read_bytes()
        content.update(f"{name}\0{len(source)}\0".encode() + source)
    expected = {PACKAGE: {"sha256": content.hexdigest()}}  # no version, as it is not installed
    provenance = trained.results()["provenance"]
    assert provenance["training"]["own_code"] == expected
    assert [block["own_code"] for block in provenance["evaluation"].values()] == [expected]


def test_a_run_that_names_none_says_nothing_of_it_though_it_was_allowed(trained):
    provenance = trained.results("base-*")["provenance"]
    assert "own_code" not in json.dumps(provenance)


@pytest.mark.parametrize("program", ["evaluate.py", "fmvae.verify"])
def test_a_stored_run_needs_the_grant_again(trained, copied, program):
    run = copied.study.run("mine-*")
    before = snapshot(run)
    given = [f"run={run}", "evaluation=fast", "figures=none"] if program == "evaluate.py" else [str(run)]
    done = copied.call(program, *given)
    assert done.status == 1
    assert "Traceback" not in done.stderr
    said = done.stdout + done.stderr
    assert f"model._target_: 'ownmodels.Small' is not allowed; {HINT}" in said
    assert snapshot(run) == before
    succeeded(copied.call(program, *given, ALLOW))


def test_verify_has_a_flag_for_it(trained):
    run = trained.study.run("mine-*")
    assert "equal bit for bit" in succeeded(trained.call("fmvae.verify", "--allow", PACKAGE, str(run)))
    refused(trained.call("fmvae.verify", "--allow", "os", str(run)), "allow: 'os' is part of Python")


@pytest.mark.slow
def test_processes_that_measure_get_it(copied):
    arguments = [f"run={copied.study.outputs}", "workers=2", "evaluation=fast", "figures=none", "force=true"]
    before = copied.results()["test"]
    succeeded(copied.call("evaluate.py", *arguments, ALLOW))
    assert copied.results()["test"] == before
    done = copied.call("evaluate.py", *arguments)
    assert done.status == 1
    assert "1 of 2 could not be measured" in done.stderr


@pytest.mark.usefixtures("importable")
def test_a_notebook_gives_it_to_the_call(trained, monkeypatch):
    monkeypatch.chdir(trained.here)
    run = trained.study.run("mine-*")
    with pytest.raises(ConfigError, match=rf"'ownmodels\.Small' is not allowed; give allow={PACKAGE}"):
        load_run(run, device="cpu")
    loaded = load_run(run, device="cpu", allow=[PACKAGE])
    assert type(loaded.parts.model).__module__ == "ownmodels.small"
    named = ["model._target_=ownmodels.Small", "~model.hidden_dim", "+model.width=8"]
    with pytest.raises(ConfigError, match="is not allowed"):
        compose(named)
    assert compose(named, allow=[PACKAGE])["model"]["width"] == 8
    with pytest.raises(ConfigError, match=r"model\.widht: there is no such key; did you mean model\.width"):
        compose([*named, "+model.widht=8"], allow=[PACKAGE])
    assert granted() == ()


@pytest.mark.usefixtures("importable")
def test_a_grant_ends_with_its_block_and_is_of_its_thread(trained, monkeypatch):
    monkeypatch.chdir(trained.here)
    seen: list[tuple[str, ...]] = []
    with allowing([PACKAGE]):
        thread = threading.Thread(target=lambda: seen.append(granted()))
        thread.start()
        thread.join()
        assert find_class("ownmodels.Small")
    assert seen == [()]
    with pytest.raises(ConfigError, match="not allowed"):
        find_class("ownmodels.Small")


# --- where it is handed to -------------------------------------------------------------------------------------

LAUNCHED = ["-m", "latent_dim=2,3", *CHOSEN, "sweep_name=s", ALLOW]


def bits(desk: Desk) -> dict[str, Any]:
    runs = desk.study.outputs.glob("s/mine-*/results.json")
    return {path.parent.name: read_record(path)["test"] for path in runs}


@pytest.fixture(scope="module")
def in_sequence(untrained, tmp_path_factory) -> dict[str, Any]:
    desk = desk_at(tmp_path_factory.mktemp("sequence"), untrained)
    succeeded(desk.train(*LAUNCHED))
    found = bits(desk)
    assert len(found) == 2
    return found


@pytest.mark.parametrize(
    ("launcher", "arguments"),
    [
        pytest.param("joblib", ["hydra.launcher.n_jobs=2"], marks=needs("joblib")),
        pytest.param("submitit_local", [], marks=needs("submitit")),
        pytest.param("ray", ["hydra.launcher.ray.init.num_cpus=2"], marks=needs("ray")),
    ],
)
@pytest.mark.slow
def test_the_workers_of_launchers_get_it(launcher, arguments, desk, in_sequence):
    """In the working directory alone: nothing is on PYTHONPATH."""
    program = [str(ROOT / "train.py"), *desk.settings, *LAUNCHED, f"hydra/launcher={launcher}", *arguments]
    done = call(*program, cwd=desk.here, environment={"PYTHONPATH": ""})
    assert done.status == 0, done
    assert bits(desk) == in_sequence


def test_a_stack_gets_it(desk, in_sequence):
    said = succeeded(desk.train(*LAUNCHED, "hydra/launcher=stacked"))
    assert bits(desk).keys() == in_sequence.keys()
    assert "2 complete" in said


@pytest.mark.parametrize("launcher", ["basic", "stacked", pytest.param("joblib", marks=needs("joblib"))])
def test_a_sweep_without_it_is_refused_before_it_begins(launcher, desk):
    refused(desk.train(*LAUNCHED[:-1], f"hydra/launcher={launcher}"), "model._target_: 'ownmodels.Small'", HINT)
    assert not desk.study.outputs.exists()


@pytest.mark.slow
def test_a_sweep_is_composed_anew_when_the_code_has_changed(desk):
    """Its keys are those of the constructor, which is no config file."""
    succeeded(desk.train(*LAUNCHED))
    assert "2 of 2 runs are complete" in succeeded(desk.train(*LAUNCHED))
    write(desk.here, {f"{PACKAGE}/small.py": SMALL.replace("width", "size")})
    refused(
        desk.train(*LAUNCHED), "model.width: there is no such key", "model holds latent_dim, size, image_shape"
    )


def test_the_environment_holds_nothing_of_it(desk, tmp_path):
    """So no command that is given later in the same shell, and no program that a run starts, can take it up."""
    log = tmp_path / "environment.json"
    succeeded(desk.train(*CHOSEN, ALLOW, prelude=f"import os; os.environ['OWN_LOG'] = {str(log)!r}"))
    seen = json.loads(log.read_text())
    assert seen["OWN_LOG"] == str(log)
    assert not [name for name, value in seen.items() if PACKAGE in name + value]


# --- going on with other code ----------------------------------------------------------------------------------

STOPS = """
from fmvae.training import VAETrainer
end_epoch = VAETrainer.end_epoch
def once(self, row):
    end_epoch(self, row)
    raise KeyboardInterrupt
VAETrainer.end_epoch = once
"""


def test_a_run_that_goes_on_with_other_code_says_so(desk):
    asked = [*CHOSEN, ALLOW, "trainer.epochs=3"]
    first = sources_digest(desk)
    assert desk.train(*asked, prelude=STOPS).status == 130
    done = desk.train(*asked, prelude=STOPS)
    assert (done.status, "has changed since training" in done.stderr + done.stdout) == (130, False)
    write(desk.here, {f"{PACKAGE}/small.py": f"{SMALL}\n# mended\n"})
    done = desk.train(*asked)
    assert done.status == 0, done
    said = done.stdout + done.stderr
    assert "the code of ownmodels has changed since training began; restart=true trains it anew" in said
    known = desk.results()["provenance"]["training"]["own_code"][PACKAGE]
    assert known == {"sha256": sources_digest(desk), "earlier": [first]}
    assert first != sources_digest(desk)


def sources_digest(desk: Desk) -> str:
    """In a process of its own, as this one may have imported another package of that name."""
    code = f"from fmvae.config.own_code import sources_sha256; print(sources_sha256({PACKAGE!r}))"
    return succeeded(call("-c", code, cwd=desk.here)).strip()


def test_what_is_known_of_code_that_changed_and_changed_back():
    now = {"a": {"sha256": "1"}}
    assert carried_on({}, now) == (now, [])
    assert carried_on(now, now) == (now, [])
    known, changed = carried_on(now, {"a": {"sha256": "2"}})
    assert (known, changed) == ({"a": {"sha256": "2", "earlier": ["1"]}}, ["a"])
    back, changed = carried_on(known, now)
    assert (back, changed) == ({"a": {"sha256": "1", "earlier": ["1", "2"]}}, ["a"])
    assert carried_on(back, now) == (back, ["a"])


@pytest.mark.usefixtures("importable")
def test_the_digest_is_of_names_and_contents_of_sources_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    package(tmp_path)
    seen = [sources_sha256(PACKAGE)]
    write(tmp_path, {f"{PACKAGE}/notes.txt": "x", f"{PACKAGE}/__pycache__/small.pyc": "x"})
    assert sources_sha256(PACKAGE) == seen[0]
    for change in ({"deep/more.py": "x = 1\n"}, {"deep/more.py": "x = 2\n"}, {"deep/other.py": ""}):
        write(tmp_path / PACKAGE, change)
        seen.append(sources_sha256(PACKAGE))
    (tmp_path / PACKAGE / "deep" / "other.py").rename(tmp_path / PACKAGE / "deep" / "another.py")
    seen.append(sources_sha256(PACKAGE))
    assert len(set(seen)) == len(seen)
    write(tmp_path, {"ownmodels_in_a_file.py": "x = 1\n"})
    single = sources_sha256("ownmodels_in_a_file")
    write(tmp_path, {"beside.py": "x = 1\n"})
    assert sources_sha256("ownmodels_in_a_file") == single


def test_an_installed_package_has_its_version(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path, {"ownmodels_x/__init__.py": "", "own_x-3.1.dist-info/METADATA": "Name: own-x\nVersion: 3.1\n"})
    write(tmp_path, {"own_x-3.1.dist-info/top_level.txt": "ownmodels_x\n"})
    with allowing(["ownmodels_x"]):
        assert own_code.of_config({"a": [{"_target_": "ownmodels_x.Y"}]})["ownmodels_x"]["version"] == "3.1"
        assert own_code.of_config({"a": {"_target_": "ownmodels_xx.Y"}}) == {}
    assert own_code.of_config({"a": {"_target_": "ownmodels_x.Y"}}) == {}


# --- refusals --------------------------------------------------------------------------------------------------

REFUSED = {
    "allow=[nowhere]": ["there is no package or module 'nowhere'", "PYTHONPATH"],
    "allow=[ownmodels.nowhere]": ["there is no package or module 'ownmodels.nowhere'"],
    "allow=[ownmodels.small.Small]": ["there is no package or module 'ownmodels.small.Small'"],
    "allow=[os]": ["'os' is part of Python"],
    "allow=[importlib.util]": ["is part of Python"],
    "allow=[builtins]": ["is part of Python"],
    "allow=[__main__]": ["is part of Python"],
    "allow=[torch]": ["'torch' is not your own code"],
    "allow=[fmvae.cli]": ["is not your own code"],
    "allow=[hydra]": ["is not your own code"],
    "allow=[own-models]": ["is not the name of a package", "allow=mymodels"],
    "allow=[../ownmodels]": ["is not the name of a package"],
    "allow=[class]": ["is not the name of a package"],
    "allow=": ["'' is not the name of a package"],
    "allow=null": ["there is no package or module 'null'"],
    "allow=[ownmodels,os]": ["'os' is part of Python"],
    "allow=ownmodels allow=ownmodels": ["given as allow=ownmodels allow=ownmodels", "write it once"],
    "+allow=[ownmodels]": ["given as +allow=[ownmodels]", "allow=[mymodels,b.c]"],
    "~allow": ["given as ~allow"],
    "allow=[ownmodels, os": ["a space splits this argument"],
}


@pytest.mark.parametrize("given", REFUSED)
@pytest.mark.one_in(3)
def test_a_grant_that_cannot_be_given(given, desk):
    for program in ("train.py", "evaluate.py") if given in ("allow=[nowhere]", "allow=[os]") else ("train.py",):
        settings = desk.settings if program == "train.py" else ["run=x"]
        refused(desk.call(program, *settings, *given.split(" ")), *REFUSED[given])
    assert not desk.study.outputs.exists()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("[a]", ["a"]),
        ("[a,b.c]", ["a", "b.c"]),
        ("[a, 'b.c']", ["a", "b.c"]),
        ("a,b.c", ["a", "b.c"]),
        ("[]", []),
        (" [ a ] ", ["a"]),
    ],
)
def test_the_forms_of_a_grant(text, names):
    assert taken_out(["seed=1", f"allow={text}", "allowed=2"]) == (names, ["seed=1", "allowed=2"])


ELSEWHERE = "is not a class that is defined there"
INSIDE = {
    "a class of others that it imports": ("ownmodels", "ownmodels.OrderedDict", ELSEWHERE),
    "a function": ("ownmodels", "ownmodels.make", ELSEWHERE),
    "a module in it": ("ownmodels", "ownmodels.small", ELSEWHERE),
    "another package through it": ("ownmodels", "ownmodels.small.subprocess.Popen", ELSEWHERE),
    "what is no VAE": ("ownmodels", "ownmodels.small.Other", "does not inherit from VAE"),
    "its class by the name of another module": ("ownmodels.small", "ownmodels.Small", "is not allowed"),
    "a package whose name goes on": ("ownmodels", "ownmodels2.Small", "is not allowed"),
    "what there is not": ("ownmodels", "ownmodels.Smal", "there is no 'ownmodels.Smal' ("),
}


@pytest.mark.parametrize(("allowed", "target", "words"), INSIDE.values(), ids=INSIDE)
@pytest.mark.one_in(2)
def test_only_classes_that_it_defines_are_granted(allowed, target, words, desk):
    write(desk.here, {f"{PACKAGE}/small.py": f"{SMALL}\nclass Other:\n    pass\n", "ownmodels2.py": SMALL})
    refused(desk.train(*CHOSEN, f"model._target_={target}", f"allow=[{allowed}]"), "model._target_: ", words)


def test_a_module_may_be_granted_instead_of_its_package(desk):
    succeeded(desk.train(*CHOSEN, "model._target_=ownmodels.small.Small", "allow=[ownmodels.small]"))
    assert list(desk.results()["provenance"]["training"]["own_code"]) == [PACKAGE]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f(:\n", "SyntaxError: "),
        ("import nowhere\n", "No module named 'nowhere' in "),
        ("\n\nraise RuntimeError('not today')\n", "RuntimeError: not today in "),
        ("\nimport sys\nsys.exit(3)\n", "SystemExit: 3 in "),
    ],
)
@pytest.mark.one_in(3)
def test_code_that_cannot_be_imported_is_one_line_with_its_place(code, words, desk):
    write(desk.here, {f"{PACKAGE}/small.py": code})
    refused(desk.train(*CHOSEN, ALLOW), "there is no 'ownmodels.Small'", words, "small.py, line")


@pytest.mark.parametrize(
    ("code", "words"), [("def f(:\n", "SyntaxError: "), ("import nowhere\n", "No module named 'nowhere' in ")]
)
def test_so_is_a_module_that_only_the_config_names(code, words, desk):
    """Hydra first looks for an attribute of the package, and fails: that is not what is wrong."""
    write(desk.here, {f"{PACKAGE}/__init__.py": "", f"{PACKAGE}/small.py": code})
    target = "model._target_=ownmodels.small.Small"
    refused(desk.train(*CHOSEN, target, ALLOW), "there is no 'ownmodels.small.Small'", words, "small.py, line")


SHAPES = {
    "decode of Odd gives": (
        "def decode(self, z, labels=None):\n        return super().decode(z, labels).flatten(1)"
    ),
    "encode of Odd gives": ("def encode(self, x, labels=None):\n        return super().encode(x, labels)[0]"),
    "[2, 1]]": (
        "def encode(self, x, labels=None):\n        mu, s = super().encode(x)\n        return mu, s[:, :1]"
    ),
}


@pytest.mark.parametrize(("words", "method"), SHAPES.items(), ids=["decode", "encode", "logvar"])
def test_a_model_of_other_shapes_is_refused_before_it_trains(words, method, desk):
    write(desk.here, {f"{PACKAGE}/small.py": f"{SMALL}\nclass Odd(Small):\n    {method}\n"})
    refused(desk.train(*CHOSEN, "model._target_=ownmodels.small.Odd", ALLOW), "model: ", words, "; return ")
    assert not list(desk.study.outputs.glob("mine-*"))


@pytest.mark.parametrize("code", [0, 3])
def test_code_that_ends_the_program_in_a_run_is_a_failure(code, desk):
    ends = f"def encode(self, x, labels=None):\n        if self.training:\n            raise SystemExit({code})\n"
    more = "        return super().encode(x, labels)"
    written = f"{SMALL}\nclass Ends(Small):\n    {ends}{more}\n"
    write(desk.here, {f"{PACKAGE}/small.py": written})
    done = desk.train(*CHOSEN, "model._target_=ownmodels.small.Ends", ALLOW)
    assert done.status == 1
    assert f"run: code that it called ended the program (sys.exit({code})); " in done.stderr
    assert desk.study.run("mine-*").joinpath("status.json").read_text().count('"failed"') == 1


def test_its_constructors_keys_are_known(desk):
    asked = [*CHOSEN, ALLOW]
    refused(desk.train(*asked, "model.widht=3"), "model.widht", "did you mean model.width?")
    refused(desk.train(*asked, "+model.zzz=3"), "model.zzz", "model holds latent_dim, width, image_shape")
    refused(desk.train("model=mine", "--config-dir=conf", ALLOW, "model.width=x"), "model: ")


# --- files grant nothing ---------------------------------------------------------------------------------------

OF_FILES: dict[str, dict[str, Any]] = {
    "a key": {"allow": [PACKAGE]},
    "a key, as a text": {"allow": PACKAGE},
    "a value of the sweeper": {"hydra": {"mode": "MULTIRUN", "sweeper": {"params": {"allow": PACKAGE}}}},
    "a new value of the sweeper": {"hydra": {"mode": "MULTIRUN", "sweeper": {"params": {"+allow": PACKAGE}}}},
    "an override": {"hydra": {"overrides": {"task": [ALLOW]}}},
}


@pytest.mark.parametrize("group", ["experiment", "sweep"])
@pytest.mark.parametrize("granting", OF_FILES.values(), ids=OF_FILES)
@pytest.mark.one_in(3)
def test_a_file_that_would_grant_it_is_refused_with_the_way_out(granting, group, desk):
    """Beside a grant on the command line, too: the file would be wrong for the next who uses it."""
    content = {"defaults": [{"override /model": "mine"}], **granting}
    write(desk.here, {f"conf/{group}/evil.yaml": f"# @package _global_\n{yaml.safe_dump(content)}"})
    asked = ["--config-dir=conf", f"{group}=evil", *(["sweep_name=s"] if group == "sweep" else [])]
    alone = refused(desk.train(*asked))
    beside = refused(desk.train(*asked, ALLOW), "allow: no config can allow code", "give allow=<package>")
    if "hydra" not in granting:
        assert alone == beside
        assert "evil.yaml does" in alone
    assert not list(desk.study.outputs.rglob("checkpoints"))


def test_a_group_that_holds_the_key_grants_nothing(desk):
    write(desk.here, {"conf/model/mine.yaml": f"{MINE}allow: [{PACKAGE}]\n"})
    refused(desk.train(*CHOSEN), "model._target_: 'ownmodels.Small' is not allowed")
    refused(desk.train(*CHOSEN, ALLOW), "model.allow: there is no such key")


def test_a_variable_grants_nothing(desk):
    names = ["ALLOW", "FMVAE_ALLOW", "HYDRA_ALLOW", "allow"]
    prelude = f"import os; os.environ |= dict.fromkeys({names!r}, {PACKAGE!r})"
    refused(desk.train(*CHOSEN, prelude=prelude), "is not allowed", HINT)


def test_a_stored_config_grants_nothing(copied):
    run = copied.study.run("mine-*")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(f"{text}allow: [{PACKAGE}]\n")
    given = [f"run={run}", "evaluation=fast", "figures=none"]
    for more in ([], [ALLOW]):
        refused(copied.call("evaluate.py", *given, *more), "allow: no config can allow code", "config.yaml does")
    (run / "config.yaml").write_text(text)  # the control: as it was it is measured
    succeeded(copied.call("evaluate.py", *given, ALLOW))


@pytest.mark.usefixtures("importable")
def test_train_in_a_notebook_needs_it_where_it_builds(desk, monkeypatch):
    monkeypatch.chdir(desk.here)
    named = ["model._target_=ownmodels.Small", "~model.hidden_dim", "+model.width=8", *desk.settings]
    config = compose(named, allow=[PACKAGE])
    with pytest.raises(ConfigError, match="is not allowed"):
        train(config)
    with allowing([PACKAGE]):
        assert train(config)["test"]["objective"] > 0


def test_nothing_is_imported_to_check_a_grant(desk):
    write(desk.here, {f"{PACKAGE}/__init__.py": "import os; os.mkdir('touched')\n"})
    succeeded(desk.train(ALLOW, "dry_run=true"))
    succeeded(desk.train("allow=[ownmodels.small]", "dry_run=true"))
    assert "touched" not in {path.name for path in desk.here.iterdir()}
    desk.train(*CHOSEN, ALLOW)  # the control
    assert "touched" in {path.name for path in desk.here.iterdir()}

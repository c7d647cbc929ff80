"""Nothing in a file or a config that someone sends you is executed, and none of it takes memory without bounds."""

import contextlib
import copy
import gzip
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from fmvae.config import compose
from fmvae.config.identity import RunIdentity
from fmvae.config.stored import read_config, to_yaml
from fmvae.data.sources import FILES, load_dataset
from fmvae.errors import ConfigError, FmvaeError, RunError
from fmvae.experiments import train
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.load import load_run
from fmvae.models import FashionResNet18
from fmvae.models.resnet import load_classifier, save_classifier
from fmvae.report.collect import collect
from fmvae.runs import provenance as origin
from fmvae.runs.checkpoint import load_checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import read_record
from fmvae.sweeps.directory import SweepDirectory
from tests.cli.process import refused, snapshot, succeeded
from tests.faults.test_corruption import QUICK, Tiny, write_data
from tests.faults.warmed import warmed

TOUCH = "touched"  # the name of what would be made in the working directory


class Trap:
    """Unpickling one makes a file."""

    def __reduce__(self):
        return Path.touch, (Path(TOUCH),)


def zipped(path: Path) -> None:
    torch.save({"model_state_dict": Trap(), "mean": 0.0, "std": 1.0}, path)


def legacy(path: Path) -> None:
    torch.save({"model_state_dict": Trap()}, path, _use_new_zipfile_serialization=False)


def bare(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap()))


PICKLES: list[Callable[[Path], None]] = [zipped, legacy, bare]


@pytest.fixture(scope="module", autouse=True)
def _steady() -> Iterator[None]:
    """No commit in any results, as in those of the warm processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "git_state", lambda: {"commit": None, "dirty": None})
        yield


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> list[str]:
    """What makes train.py quick, of a dataset of small images; but for where its outputs go."""
    data = tmp_path_factory.mktemp("untrusted") / "data"
    digests = ",".join(f"{name}:'{digest}'" for name, digest in write_data(data).items())
    return [
        f"data.root={data}",
        f"data.sha256={{{digests}}}",
        "data.download=false",
        "data.image_shape=[1,10,10]",
        "data.val_size=20",
        "data.batch_size=60",
        "trainer.epochs=1",
        "device=cpu",
        *QUICK,
    ]


MODEL = ["model=conditional", "model.hidden_dim=2"]


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory, _steady) -> Path:
    """A complete conditional run."""
    outputs = tmp_path_factory.mktemp("finished")
    train(compose([*settings, *MODEL, f"output_root={outputs}"]))
    (run,) = outputs.glob("conditional-*")
    return run


@pytest.fixture
def run(finished, tmp_path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(finished, tmp_path / "outputs" / finished.name)))


@pytest.fixture
def here(tmp_path) -> Iterator[Path]:
    """A working directory in which nothing is made."""
    folder = tmp_path / "here"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


# --- pickles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", PICKLES)
def test_negative_control_the_traps_work(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "trap.pt")
    if write is bare:
        pickle.loads((tmp_path / "trap.pt").read_bytes())
    else:
        torch.load(tmp_path / "trap.pt", weights_only=False)
    assert (tmp_path / TOUCH).exists()


@pytest.mark.parametrize("write", PICKLES)
def test_a_pickle_as_the_best_checkpoint_is_refused(write, run, here, monkeypatch):
    monkeypatch.chdir(here)
    write(run.best)
    before = snapshot(run.path)
    with pytest.raises(RunError, match="not a readable checkpoint"):
        evaluate_runs(compose([f"run={run.path}", *QUICK], "evaluate"))
    if write is zipped:
        refused(warmed().call("evaluate.py", f"run={run.path}", *QUICK, cwd=here), f"{run.best}: not a readable")
    assert snapshot(run.path) == before


def test_pickles_as_all_checkpoints_are_passed_over(settings, run, here, finished):
    """The run begins anew, and comes to the same."""
    for write, path in zip(PICKLES, (run.last, run.best, run.previous), strict=True):
        write(path)
    run.results.unlink()
    program = ["train.py", *settings, *MODEL, f"output_root={run.path.parent}"]
    output = succeeded(warmed().call(*program, cwd=here))
    assert output.count("falling back") == 3
    assert read_record(run.results)["test"] == read_record(finished / "results.json")["test"]


@pytest.mark.parametrize(
    ("program", "part", "name"),
    [
        ("train.py", "extractor", "trap.pt"),
        ("train.py", "accuracy", "trap.safetensors"),
        ("evaluate.py", "extractor", "trap.safetensors"),
        ("evaluate.py", "accuracy", "trap.pth"),
    ],
)
def test_a_pickle_as_weights_is_refused(program, part, name, settings, run, here, tmp_path):
    """Before training and when measuring, though nothing is to be measured with them."""
    trap = tmp_path / name
    zipped(trap)
    outputs = run.path.parent
    given = {
        "train.py": [*settings, *MODEL, "seed=1", f"output_root={outputs}"],
        "evaluate.py": [f"run={run.path}", *QUICK],
    }[program]
    before = snapshot(outputs)
    finished = warmed().call(program, *given, f"evaluation.{part}.weights={trap}", cwd=here)
    refused(finished, f"evaluation.{part}.weights: {trap}: ", "give sharp")
    assert snapshot(outputs) == before


@pytest.mark.parametrize("write", [zipped, bare])
def test_a_pickle_as_the_start_of_a_classifier_is_refused(write, settings, here, tmp_path):
    trap = tmp_path / "trap.pt"
    write(trap)
    data = [setting for setting in settings if setting.startswith(("data.", "device"))]
    start = ["--config-name", "classifier", *data, f"trainer.start={trap}", f"output_root={tmp_path}/outputs"]
    refused(warmed().call("train.py", *start, cwd=here), f"{trap}: ", "give sharp or blurred")


@pytest.fixture
def accuracy(tmp_path, monkeypatch) -> list[str]:
    """What has features of real images computed and kept, by a small classifier."""
    monkeypatch.setattr("torchvision.models.resnet18", Tiny)
    save_classifier(tmp_path / "w.safetensors", FashionResNet18(), {})
    given = [f"accuracy.weights={tmp_path}/w.safetensors", "accuracy.num_per_class=1", f"cache={tmp_path}/cache"]
    return [f"evaluation.{setting}" for setting in given]


def test_a_pickle_in_the_cache_of_features_is_made_again(accuracy, run, here, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(here)
    asked = compose([f"run={run.path}", *QUICK, *accuracy], "evaluate")
    evaluate_runs(copy.deepcopy(asked) | {"force": True})
    (entry,) = (tmp_path / "cache").iterdir()
    kept, results = entry.read_bytes(), run.results.read_bytes()
    for write in (zipped, bare):
        write(entry)
        caplog.clear()
        evaluate_runs({**copy.deepcopy(asked), "force": True})
        assert f"{entry}: not a readable checkpoint" in caplog.text
        assert "computed again" in caplog.text
        assert (entry.read_bytes(), run.results.read_bytes()) == (kept, results)


def test_a_pickle_as_a_record_is_damage(run, here, finished, monkeypatch):
    monkeypatch.chdir(here)
    for path in (run.results, run.fid, run.figures / "index.json", run.metrics, run.timing):
        bare(path)
    evaluate_runs(compose([f"run={run.path}", *QUICK], "evaluate"))
    assert read_record(run.results)["test"] == read_record(finished / "results.json")["test"]
    for path in (run.fid, run.figures / "index.json"):
        read_record(path)


SWEEP = ["-m", "seed=0,1", "sweep_name=sweep", "dry_run=true"]
YAML_TRAP = f"!!python/object/apply:os.mkdir [{TOUCH}]"


def test_a_trap_as_sweep_json_is_damage(settings, run, here):
    sweep = SweepDirectory(run.path.parent / "sweep")
    shutil.copytree(run.path, sweep.path / run.path.name)
    for content in (pickle.dumps(Trap()), f"runs: {YAML_TRAP}\n".encode()):
        sweep.manifest.write_bytes(content)
        assert sweep.planned() == {}
    output = succeeded(
        warmed().call("train.py", *settings, *MODEL, *SWEEP, f"output_root={run.path.parent}", cwd=here)
    )
    assert "2 runs" in output
    succeeded(warmed().call("fmvae.report", "status", str(sweep.path), cwd=here))


# --- what loading is made of -----------------------------------------------------------------------------------


@pytest.fixture
def no_pickles(monkeypatch) -> list[str]:
    """Makes every way to unpickle fail, and lists what was tried."""
    tried: list[str] = []

    def refusing(name: str) -> Callable[..., None]:
        def refuse(*_: Any, **__: Any) -> None:
            tried.append(name)
            raise AssertionError(name)

        return refuse

    import _pickle

    for module in (pickle, _pickle):
        for name in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(module, name, refusing(name))
    monkeypatch.setattr(pickle, "_Unpickler", refusing("_Unpickler"))
    monkeypatch.setattr(torch, "load", refusing("torch.load"))
    return tried


def test_no_way_to_load_anything_unpickles(accuracy, no_pickles, settings, run):
    """A checkpoint, a run, its dataset, weights and features from the cache, a resumed training, and a report."""
    asked = compose([f"run={run.path}", *QUICK, *accuracy], "evaluate")
    load_checkpoint(run.best)
    load_run(run.path, device="cpu")
    for _ in range(2):  # the second time from the cache
        evaluate_runs({**copy.deepcopy(asked), "force": True})
    before = run.results.read_bytes()
    run.status.unlink()
    train(compose([*settings, *MODEL, f"output_root={run.path.parent}"]))
    assert run.results.read_bytes() == before
    assert [found.complete for found in collect([run.path.parent])] == [True]
    assert SweepDirectory(run.path.parent).planned() == {}
    assert no_pickles == []


def test_negative_control_the_one_way_that_does_is_seen(no_pickles, tmp_path):
    """Weights of others, by ``torch.load(weights_only=True)``."""
    torch.save({"model_state_dict": {}}, tmp_path / "w.pt")
    with pytest.raises(RunError):
        load_classifier(tmp_path / "w.pt")
    assert no_pickles == ["torch.load"]


def test_the_one_way_that_unpickles_takes_weights_only(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "load", lambda *_, **keywords: asked.append(keywords))
    zipped(tmp_path / "w.pt")
    with pytest.raises(RunError):
        load_classifier(tmp_path / "w.pt")
    assert [keywords["weights_only"] for keywords in asked] == [True]


# --- targets --------------------------------------------------------------------------------------------------

TARGETS: dict[str, dict[str, Any]] = {
    "os.system": {"command": f"touch {TOUCH}"},
    "builtins.eval": {"_args_": [f"open('{TOUCH}', 'w')"]},
    "subprocess.Popen": {"args": ["touch", TOUCH]},
    "torch.load": {"f": "trap.pt", "weights_only": False},
}
CALLED: dict[str, Callable[..., Any]] = {"os.system": os.system, "subprocess.Popen": subprocess.Popen}
CALLED |= {"builtins.eval": lambda _args_: eval(*_args_), "torch.load": torch.load}
PLACES = [("model", target) for target in TARGETS]
PLACES += [
    ("optimizer", "torch.load"),
    ("likelihood", "os.system"),
    ("beta", "builtins.eval"),
    ("data", "torch.load"),
]


@pytest.fixture
def trap(tmp_path) -> Path:
    """What the targets would load, if they were called."""
    bare(tmp_path / "trap.pt")
    return tmp_path / "trap.pt"


def arguments(target: str, trap: Path) -> dict[str, Any]:
    return {key: str(trap) if value == "trap.pt" else value for key, value in TARGETS[target].items()}


@pytest.mark.parametrize("target", TARGETS)
def test_negative_control_the_targets_act_when_they_are_called(target, trap, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(RuntimeError):  # of torch, when the pickle has acted
        made = CALLED[target](**arguments(target, trap))
        if isinstance(made, subprocess.Popen):
            made.wait()
    assert (tmp_path / TOUCH).exists()


def overrides_of(node: str, values: dict[str, Any]) -> list[str]:
    return [f"+{node}.{key}={json.dumps(value)}" for key, value in values.items()]


@pytest.mark.parametrize(("node", "target"), PLACES)
@pytest.mark.one_in(3)
def test_a_target_on_the_command_line_is_refused(node, target, settings, here, trap, tmp_path, monkeypatch):
    monkeypatch.chdir(here)
    given = [f"{node}._target_={target}", *overrides_of(node, arguments(target, trap))]
    given.append(f"output_root={tmp_path}/outputs")
    with pytest.raises(ConfigError, match=rf"^{node}\."):
        train(compose([*settings, *given]))
    if (node, target) == ("model", "torch.load"):
        refused(warmed().call("train.py", *settings, *given, cwd=here), "model.")


def theirs(folder: Path, group: str, content: str) -> list[str]:
    """The arguments that choose an option of someone else's."""
    file = folder / "theirs" / group / "evil.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    return ["--config-dir", str(folder / "theirs"), f"{group}=evil", f"output_root={folder}/outputs"]


@pytest.mark.parametrize(("node", "target"), [("model", "torch.load"), ("optimizer", "builtins.eval")])
def test_a_target_in_a_config_file_of_someone_else_is_refused(node, target, settings, here, trap, tmp_path):
    content = {"_target_": target, "_name_": "evil", **arguments(target, trap)}
    given = theirs(tmp_path, node, yaml.safe_dump(content))
    refused(warmed().call("train.py", *settings, *given, cwd=here), f"{node}.")


def test_a_group_of_someone_else_without_what_names_a_run_is_refused(settings, here, tmp_path):
    given = theirs(tmp_path, "beta", "_target_: fmvae.objectives.Constant\n")
    refused(warmed().call("train.py", *settings, *given, cwd=here), "beta")


LOADED = {"f": "{trap}", "weights_only": False}
UNPICKLE = {"_target_": "torch.load", **LOADED}
OF_HYDRA: dict[str, dict[str, Any]] = {
    "a callback known as a danger": {"callbacks": {"evil": {"_target_": "os.system", "command": "{touch}"}}},
    "a callback": {"callbacks": {"evil": UNPICKLE}},
    "a logging handler known as a danger": {
        "job_logging": {"handlers": {"evil": {"()": "os.system", "command": "{touch}"}}}
    },
    "a logging handler": {"job_logging": {"handlers": {"evil": {**LOADED, "()": "torch.load"}}}},
    "a handler of Hydra's own log": {"hydra_logging": {"handlers": {"evil": {**LOADED, "()": "torch.load"}}}},
    "a handler that writes a file": {
        "job_logging": {
            "handlers": {"evil": {"class": "logging.FileHandler", "filename": TOUCH}},
            "root": {"handlers": ["evil"]},
        }
    },
    "a sweeper known as a danger": {"sweeper": {"_target_": "os.system", "command": "{touch}"}},
    "an argument of the sweeper": {"sweeper": {"params": UNPICKLE}},
    "a grid of the sweeper": {"sweeper": {"grids": [UNPICKLE]}},
    "a value of a grid": {"sweeper": {"grids": [{"seed": UNPICKLE}]}},
    "a size of the sweeper": {"sweeper": {"max_batch_size": UNPICKLE}},
    "an argument made of a text": {"sweeper": {"params": "${oc.decode:'{UNPICKLE}'}"}},
    "an argument of the launcher": {"launcher": {"n_jobs": UNPICKLE}},
    "where programs are looked for": {"job": {"env_set": {"PATH": "{folder}"}}},
}


@pytest.mark.parametrize("evil", OF_HYDRA.values(), ids=OF_HYDRA)
@pytest.mark.one_in(4)
def test_an_experiment_of_someone_else_that_reconfigures_hydra_runs_nothing(evil, settings, tmp_path, trap):
    mode = "RUN" if {"sweeper", "launcher"}.isdisjoint(evil) else "MULTIRUN"  # in which Hydra would read it
    (work := tmp_path / "work").mkdir()
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\n/usr/bin/touch {work / TOUCH}\n")
    git.chmod(0o755)
    text = yaml.safe_dump({"hydra": {**evil, "mode": mode}}).replace("{touch}", f"touch {TOUCH}")
    text = text.replace("{UNPICKLE}", json.dumps(UNPICKLE).replace('"', "")).replace("{folder}", str(tmp_path))
    launcher = "defaults: [{override /hydra/launcher: joblib}]\n" if "launcher" in evil else ""
    given = theirs(tmp_path, "experiment", f"# @package _global_\n{launcher}{text}".replace("{trap}", str(trap)))
    finished = warmed().call("train.py", *settings, *MODEL, *given, "trainer.epochs=1", cwd=work)
    assert not (work / TOUCH).exists()
    refused(finished)


@pytest.mark.parametrize(
    "place", ["a callback", "a logging handler", "an argument of the sweeper", "a grid of the sweeper"]
)
def test_negative_control_without_the_gate_hydra_would(place, settings, tmp_path, trap):
    (work := tmp_path / "work").mkdir()
    text = yaml.safe_dump({"hydra": {**OF_HYDRA[place], "mode": "MULTIRUN"}}).replace("{trap}", str(trap))
    given = theirs(tmp_path, "experiment", f"# @package _global_\n{text}")
    opened = "from fmvae.cli import gate; gate.hydra_internals.restore(); gate.install = lambda: None"
    warmed().call("train.py", *settings, *MODEL, *given, "trainer.epochs=1", cwd=work, prelude=opened)
    assert (work / TOUCH).exists()


def stored(run: RunDirectory, edit: Callable[[dict[str, Any]], None]) -> RunDirectory:
    """The run under the name of an edited config: its own checkpoint and all, as someone could send it."""
    config = yaml.safe_load(run.config.read_text())
    edit(config)
    run.config.write_text(to_yaml(config))
    return RunDirectory(run.path.rename(run.path.with_name(RunIdentity.of(read_config(run.config)).name)))


@pytest.mark.parametrize(("node", "target"), [place for place in PLACES if place[0] != "optimizer"])
def test_a_target_in_a_stored_config_is_refused(node, target, run, here, trap, monkeypatch):
    """In a directory that bears the name of just this config."""
    monkeypatch.chdir(here)
    evil = stored(run, lambda config: config[node].update({"_target_": target, **arguments(target, trap)}))
    before = snapshot(evil.path)
    with pytest.raises(ConfigError, match=rf"^{node}\."):
        load_run(evil.path, device="cpu")
    with pytest.raises(ConfigError, match=rf"^{node}\."):
        evaluate_runs(compose([f"run={evil.path}", *QUICK], "evaluate"))
    if (node, target) == ("model", "torch.load"):
        refused(warmed().call("evaluate.py", f"run={evil.path}", *QUICK, cwd=here), "model.")
    assert snapshot(evil.path) == before


def test_a_target_in_a_stored_config_of_the_old_name_is_refused(run, here):
    edited = run.config.read_text().replace("fmvae.models.ConditionalVAE", "os.system")
    assert "os.system" in edited
    run.config.write_text(edited)
    refused(warmed().call("evaluate.py", f"run={run.path}", *QUICK, cwd=here), "config.yaml: not the config")


def test_a_pickle_that_a_class_of_torchvision_would_read_is_not_reached(run, here, tmp_path, monkeypatch):
    """``LSUNClass`` unpickles ``_cache_*`` of the working directory, where there is lmdb."""
    environment = SimpleNamespace(begin=None)
    transaction = SimpleNamespace(stat=lambda: {"entries": 0})
    context = type("Context", (), {"__enter__": lambda _: transaction, "__exit__": lambda *_: None})
    environment.begin = lambda **_: context()
    lmdb: Any = ModuleType("lmdb")
    lmdb.open = lambda *_, **__: environment
    monkeypatch.setitem(sys.modules, "lmdb", lmdb)
    evil = {"_target_": "torchvision.datasets.lsun.LSUNClass", "root": "x"}
    named = stored(run, lambda config: config["model"].update({"extra": evil}))
    work = tmp_path / "work"
    work.mkdir()
    bare(work / "_cache_x")
    monkeypatch.chdir(work)
    with pytest.raises(FmvaeError):
        load_run(named.path, device="cpu")
    assert not (work / TOUCH).exists()


# --- YAML -----------------------------------------------------------------------------------------------------

TAGS = {
    "a call": f"seed: {YAML_TRAP}",
    "a new object": f"seed: !!python/object/new:os.mkdir [{TOUCH}]",
    "a call of a shell": f"seed: !!python/object/apply:os.system ['touch {TOUCH}']",
}


@pytest.mark.parametrize("tagged", TAGS.values(), ids=TAGS)
def test_tags_in_a_stored_config_are_refused_by_all_that_read_it(tagged, run, here, monkeypatch):
    monkeypatch.chdir(here)
    run.config.write_text(run.config.read_text().replace("seed: 0", tagged, 1))
    for reads in (load_run, lambda path: evaluate_runs(compose([f"run={path}", *QUICK], "evaluate"))):
        with pytest.raises(ConfigError, match="not readable as YAML"):
            reads(run.path)
    assert collect([run.path.parent])[0].state == "damaged"


BOMB = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
BOMB += "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 10))


@pytest.mark.parametrize("text", [BOMB, "y: &y [*y]\n"], ids=["a bomb", "an endless one"])
def test_aliases_in_a_stored_config_are_refused_at_once(text, run, here):
    """A bomb's ten lines stand for 10 ** 10 texts."""
    run.config.write_text(run.config.read_text() + text)
    refused(warmed().call("evaluate.py", f"run={run.path}", *QUICK, cwd=here), "config.yaml: ", "YAML aliases")


def test_a_tag_in_a_stored_config_is_refused_in_one_line(run, here):
    run.config.write_text(run.config.read_text().replace("seed: 0", TAGS["a call"], 1))
    refused(warmed().call("evaluate.py", f"run={run.path}", *QUICK, cwd=here), "config.yaml: not readable as YAML")


def test_a_tag_in_a_config_file_of_someone_else_is_refused(settings, here, tmp_path):
    given = theirs(tmp_path, "experiment", f"# @package _global_\n{TAGS['a call']}\n")
    refused(warmed().call("train.py", *settings, *given, cwd=here))


@pytest.mark.parametrize("tagged", TAGS.values(), ids=TAGS)
def test_negative_control_the_tags_work(tagged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yaml.unsafe_load(tagged)
    assert (tmp_path / TOUCH).exists()


# --- memory ---------------------------------------------------------------------------------------------------

ROOM = 256 * 2**20  # bytes that a process may take beside those it begins with
LIMIT = f"""
import resource
from pathlib import Path
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + {ROOM},) * 2)
"""


def oversized(length: int) -> Callable[[bytes], bytes]:
    return lambda content: struct.pack("<Q", length) + content[8:]


def vast_tensor(content: bytes) -> bytes:
    header = json.dumps({"model.x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


HEADERS = {
    "a terabyte": oversized(2**40),
    "just allowed": oversized(99_999_999),
    "a vast tensor": vast_tensor,
}


@pytest.mark.parametrize("edit", HEADERS.values(), ids=HEADERS)
def test_a_header_that_claims_more_than_there_is_takes_no_memory(edit, run, here):
    run.best.write_bytes(edit(run.best.read_bytes()))
    finished = warmed().call("evaluate.py", f"run={run.path}", *QUICK, cwd=here, prelude=LIMIT)
    refused(finished, f"{run.best}: not a readable checkpoint")


def test_a_gzip_bomb_as_a_dataset_takes_no_more_than_the_dataset_would(here, tmp_path):
    """A gigabyte of zeros, where 47 MB are expected."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{FILES[0]}.gz").write_bytes(gzip.compress(bytes(2**26)) * 16)
    given = [f"data.root={tmp_path}/data", "data.download=false", f"output_root={tmp_path}/outputs"]
    refused(warmed().call("train.py", *given, cwd=here, prelude=LIMIT), f"{FILES[0]}.gz: holds more than")


def test_negative_control_the_room_is_bounded(here, run):
    """A process that does take it all ends, in one line too."""
    taken = f"{LIMIT}\nimport builtins\nbuiltins.taken = bytes({ROOM} - 2**24)"
    finished = warmed().call("evaluate.py", f"run={run.path}", cwd=here, prelude=taken)
    assert finished.status != 0


def test_negative_control_an_unbounded_read_of_the_bomb_takes_it_all(tmp_path):
    """What ``gzip.decompress`` would hold, by the measure that ``load_dataset`` keeps to."""
    import tracemalloc

    (tmp_path / f"{FILES[1]}.gz").write_bytes(bomb := gzip.compress(bytes(2**26)))

    def peak(act: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            act()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def load() -> None:
        with pytest.raises(FmvaeError, match="holds more than"):
            load_dataset(tmp_path, download=False)

    assert peak(load) < 2**24
    assert peak(lambda: gzip.decompress(bomb)) >= 2**26

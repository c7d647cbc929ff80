"""Commands that must work, as whole processes: their exit status, what they say and what they leave."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fmvae.config.identity import RunIdentity
from fmvae.config.stored import ASKED_ANEW
from fmvae.data.__main__ import main
from fmvae.data.sources import DEFAULT_ROOT, FILES
from fmvae.runs.checkpoint import load_checkpoint
from fmvae.runs.files import read_record
from tests.cli.conftest import COMMANDS, FIGURES
from tests.cli.process import ROOT, Study, call, snapshot, succeeded
from tests.faults.warmed import warmed

RUN_FILES = {
    "config.yaml",
    "overrides.yaml",
    "status.json",
    "results.json",
    "timing.json",
    "metrics.jsonl",
    "train.log",
    "checkpoints",
    "figures",
}


def check_run(run: Path, epochs: int = 1) -> dict:
    """That a run's directory holds everything a complete run has; returns its config."""
    names = {path.name for path in run.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert [name.endswith(".final") for name in sorted(events, key=len)] == [False, True]
    assert names - events - {"fid.json"} == RUN_FILES
    assert {path.stem for path in (run / "figures").iterdir()} >= {*FIGURES}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (run / "figures").glob("*.png"))

    config = yaml.safe_load((run / "config.yaml").read_text())
    identity = RunIdentity.of(config).sha256
    assert run.name == RunIdentity.of(config).name
    assert re.fullmatch(r"[A-Za-z0-9._-]+", run.name)
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["epoch"], status["epochs"]) == ("complete", epochs, epochs)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == epochs

    results = read_record(run / "results.json")
    assert results["config_sha256"] == identity
    assert results["test"]["num_images"] == (config["data"]["num_test"] or 800)
    assert math.isfinite(results["test"]["neg_elbo"])
    assert ("fid" in results) == (run / "fid.json").exists() == bool(config["evaluation"]["fid"]["num_images"])
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.safetensors", "last.safetensors"}
    for which in ("best", "last"):
        checkpoint = load_checkpoint(run / "checkpoints" / f"{which}.safetensors")
        assert checkpoint.meta["config_sha256"] == identity
    assert f"epoch {epochs}/{epochs} | train objective " in (run / "train.log").read_text()
    return config


def overrides_of(run: Path) -> list[str]:
    return yaml.safe_load((run / "overrides.yaml").read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_single_run(study, finished, name):
    stdout = succeeded(finished[name])
    run = study.run(f"{name}*")
    check_run(run)
    assert f"training {run} on cpu" in stdout
    assert f"{run}/results.json" in stdout
    assert f"{read_record(run / 'results.json')['test']['neg_elbo']:.2f}" in stdout
    native = [re.sub("^(beta|latent_dim)=", r"\1.value=", override) for override in COMMANDS[name]]
    assert sorted(overrides_of(run)) == sorted([*study.settings, *native])


def test_a_second_call_shows_the_results_and_changes_no_file(study, finished, tmp_path):
    """From another directory, where it leaves nothing; and the default is the baseline, which needs no plus."""
    before = snapshot(study.outputs)
    stdout = succeeded(study.train("experiment=baseline", cwd=tmp_path))
    assert snapshot(study.outputs) == before
    assert not list(tmp_path.iterdir())
    run = study.run("base-*")
    assert stdout.startswith(f"complete: {run} (restart=true trains it anew)")
    table = finished["base-b1-z2-s0-"].stdout.partition(f"{run.name}: best checkpoint")[2]
    assert table.split("TensorBoard")[0] in stdout


def test_restart_moves_the_old_run_aside_and_trains_the_same_numbers(study, tmp_path):
    ours = study.copied_to(tmp_path / "outputs")
    run = ours.run("base-*")
    before = snapshot(run)
    assert f"moved the previous run to {run}.old-1" in succeeded(ours.train("restart=true"))
    aside = snapshot(run.with_name(f"{run.name}.old-1"))
    assert {name.replace(".hidden.", ".tfevents."): digest for name, digest in aside.items()} == before
    check_run(run)
    for same in ("results.json", "metrics.jsonl", "checkpoints/last.safetensors", "checkpoints/best.safetensors"):
        assert (run / same).read_bytes() == (run.with_name(f"{run.name}.old-1") / same).read_bytes()


@pytest.mark.slow
def test_a_schedule_and_its_final_value_with_fid(drawing, tmp_path):
    ours = replace(drawing, outputs=tmp_path / "outputs")
    fid = ["evaluation.fid.num_images=785", "evaluation.fid.features=[pixels]"]  # one more than there are pixels
    stdout = succeeded(ours.train("beta=warmup", "beta.value=4", *fid, cwd=tmp_path))
    config = check_run(ours.run("base-b4-z2-s0-*"))
    assert config["beta"] == {"_target_": "fmvae.objectives.Warmup", "value": 4.0, "fraction": 0.25}
    assert "FID from 785 images is biased upwards" in stdout
    fid = read_record(ours.run("base-*") / "fid.json")
    assert math.isfinite(fid["pixels"]["generation"])
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_every_picture_and_the_projector(drawing, tmp_path):
    """As a run has them unless told otherwise; the other tests ask for few, to be quick."""
    ours = replace(drawing, outputs=tmp_path)
    everything = ["figures.only=null", "figures.gif=true", "figures.projector=50", "evaluation=full"]
    small = ["evaluation.iwae.num_samples=2", "evaluation.iwae.num_images=10"]
    succeeded(ours.train(*everything, *small))
    run = ours.run("base-*")
    assert {path.name for path in (run / "figures").iterdir()} == {
        *(f"{name}.png" for name in ("reconstructions", "samples", "training_curves", "interpolations")),
        *(f"{name}.png" for name in ("latent_manifold", "latent_scatter", "kl_per_dimension")),
        *(f"{name}.png" for name in ("traversal_prior", "traversal_posterior")),
        *("traversal_prior.gif", "neighbours_gmm.png", "samples_gmm.png", "samples_gmm.gif"),
        "index.json",
    }
    assert (run / "projector_config.pbtxt").is_file()
    assert set(read_record(run / "results.json")["provenance"]["evaluation"]) == {
        "test",
        "iwae",
        "latent",
        "decomposition",
        "samplers/gmm/bound",
    }


@pytest.mark.slow
def test_the_beta_vae_with_many_overrides(drawing, tmp_path):
    ours = replace(drawing, outputs=tmp_path)
    overrides = [
        "model=beta",
        "latent_dim=20",
        "beta=5.0",
        "trainer.epochs=1",
        "data.batch_size=128",
        "optimizer.lr=5e-4",
        "figures.num_reconstructions=15",
        "figures.num_samples=50",
    ]
    succeeded(ours.train(*overrides))
    config = check_run(ours.run("beta-b5-z20-s0-*"))
    assert (config["optimizer"]["lr"], config["figures"]["num_samples"]) == (5e-4, 50)


SWEEP = ["beta=0.5,1", "latent_dim=2,3"]


@pytest.fixture(scope="module")
def swept(drawing, tmp_path_factory) -> tuple[Study, str]:
    """The four runs of a sweep, and what was said."""
    ours = replace(drawing, outputs=tmp_path_factory.mktemp("swept"))
    return ours, succeeded(ours.train("-m", *SWEEP))


def test_a_sweep_is_one_folder_of_complete_runs(swept):
    ours, stdout = swept
    (folder,) = ours.outputs.iterdir()
    assert re.fullmatch(r"beta-latent_dim-[0-9a-f]{8}", folder.name)
    runs = sorted(path for path in folder.iterdir() if (path / "config.yaml").exists())
    assert [run.name.rpartition("-")[0] for run in runs] == [
        f"base-b{beta}-z{latent_dim}-s0" for beta in ("0.5", "1") for latent_dim in (2, 3)
    ]
    for run in runs:
        config = check_run(run)
        native = {f"beta.value={config['beta']['value']:g}", f"latent_dim.value={config['latent_dim']['value']}"}
        assert native < set(overrides_of(run))
    assert len(re.findall("^training ", stdout, re.MULTILINE)) == 4


def test_the_same_sweep_again_finds_its_folder_and_trains_nothing(swept):
    """However its arguments are ordered, and whatever of them does not change a number."""
    ours, _ = swept
    (folder,) = ours.outputs.iterdir()
    before = snapshot(folder)
    stdout = succeeded(ours.train(*SWEEP[::-1], "-m", "trainer.progress=false"))
    assert snapshot(folder) == before
    assert list(ours.outputs.iterdir()) == [folder]
    assert "4 of 4 runs are complete" in stdout
    assert "training " not in stdout


@pytest.mark.parametrize(
    "sweep",
    [
        ["optimizer=adamw,sgd", "scheduler=plateau"],
        ["model=conditional,conditional_conv", "likelihood=continuous_bernoulli,gaussian", "latent_dim=3"],
    ],
    ids=lambda sweep: sweep[0].split("=")[0],
)
@pytest.mark.one_in(2)
def test_sweeps_over_options(drawing, tmp_path, sweep):
    ours = replace(drawing, outputs=tmp_path)
    succeeded(ours.train("--multirun", *sweep, "sweep_name=here", "data.num_train=200", "data.num_test=100"))
    configs = [check_run(path.parent) for path in tmp_path.glob("here/*/config.yaml")]
    num = math.prod(override.count(",") + 1 for override in sweep)
    assert len({RunIdentity.of(config).sha256 for config in configs}) == num


def test_evaluating_a_sweep_writes_the_same_bytes_and_leaves_the_training_alone(swept, tmp_path):
    ours, _ = swept
    (folder,) = ours.outputs.iterdir()
    before = snapshot(folder)
    stdout = succeeded(ours.evaluate(f"run={folder}", cwd=tmp_path))
    assert snapshot(folder) == before
    assert stdout.count("best checkpoint, epoch 1") == 4
    assert not list(tmp_path.iterdir())


def test_evaluating_several_runs_writes_what_is_missing_as_training_wrote_it(study, tmp_path):
    """With paths relative to another directory."""
    ours = study.copied_to(tmp_path / "outputs")
    base, conv = ours.run("base-*"), ours.run("conv-*")
    (base / "results.json").unlink()
    (conv / "figures" / "samples.png").unlink()
    stdout = succeeded(ours.evaluate(f"run=outputs/{base.name},outputs/{conv.name}", cwd=tmp_path))
    after, before = snapshot(ours.outputs), snapshot(study.outputs)
    assert {name: after[name] for name in before} == before
    assert all("events.out.tfevents" in name for name in after.keys() - before.keys())  # what was new, shown
    assert f"{base.name}: best checkpoint" in stdout
    assert f"{conv.name}: best checkpoint" in stdout


@pytest.mark.slow
def test_evaluating_the_last_checkpoint_leaves_the_results_alone(study, tmp_path):
    """And a measure that training left out can be asked for afterwards."""
    ours = study.copied_to(tmp_path / "outputs")
    run = ours.run("base-*")
    before = snapshot(run)
    fid = ["evaluation.fid.num_images=785", "evaluation.fid.features=[pixels]"]
    assert "last checkpoint, epoch 1" in succeeded(ours.evaluate(f"run={run}", "checkpoint=last", *fid))
    after = snapshot(run)
    assert before.items() <= after.items()
    new = {name for name in after.keys() - before.keys() if not name.startswith("figures/last")}
    assert new == {"results.last.json", "fid.last.json"}
    last, best = (read_record(run / f"results{which}.json") for which in (".last", ""))
    assert last["checkpoint"]["which"] == "last"
    assert last["test"] == best["test"]  # the same weights, after one epoch
    assert last["fid"]["pixels"]["num_images"] == 785


BLOCK_TORCH = """
import sys

class Block:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "torchvision", "matplotlib", "tensorboard", "scipy"):
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Block())
"""


@pytest.fixture
def without_torch(tmp_path) -> dict[str, str]:
    """An environment in which importing torch raises an error."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK_TORCH)
    environment = {"PYTHONPATH": str(tmp_path)}
    assert "torch was imported" in call("-c", "import torch", environment=environment).stderr
    return environment


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (
            "python train.py model=",
            "model=base model=beta model=conditional model=conditional_conv model=conditional_residual model=conv "
            "model=gated model=residual",
        ),
        ("python train.py beta=wa", "beta=warmup"),
        ("python train.py experiment=conv", "experiment=conv_z10 experiment=conv_z2"),
        ("python train.py data.val_", "data.val_size="),
        ("python evaluate.py checkp", "checkpoint="),
    ],
)
@pytest.mark.one_in(3)
def test_tab_completion_lists_the_options_without_torch(without_torch, line, options):
    program = line.split()[1]
    point = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    assert (
        succeeded(call(program, "-sc", "query=bash", environment=without_torch | point)).split() == options.split()
    )


def test_tab_completes_names_of_runs_without_torch(without_torch, tmp_path):
    run = tmp_path / "outputs" / "base-b1-z2-s0-01234567"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    line = f"python evaluate.py output_root={tmp_path}/outputs run=ba"
    point = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    found = succeeded(call("evaluate.py", "-sc", "query=bash", environment=without_torch | point))
    assert found.split() == [f"run={run.name}"]


def test_help_of_evaluate_lists_its_own_groups_alone():
    """Those of its defaults, with the options that there are."""
    text = succeeded(warmed().call("evaluate.py", "--help"))
    listed = text.partition("== Groups (group=option) ==\n")[2].partition("\n\n")[0].splitlines()
    options = {group: sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")) for group in ASKED_ANEW}
    assert listed == [f"{group}: {', '.join(options[group])}" for group in sorted(options)]


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-sc", "install=bash"], ["complete", "COMP_LINE"]),
        (["--help"], ["Groups", "Examples:", "evaluation: fast, full", "num_reconstructions: 10"]),
        (["--cfg", "job"], ["device: auto", "checkpoint" if "evaluate" else "model:"]),
    ],
    ids=["install", "help", "cfg"],
)
@pytest.mark.one_in(3)
def test_asking_the_programs_about_themselves_needs_no_torch(without_torch, tmp_path, program, arguments, words):
    required = ["run=x"] if program == "evaluate.py" and "--cfg" in arguments else []
    before = snapshot(tmp_path)
    stdout = succeeded(call(str(ROOT / program), *arguments, *required, cwd=tmp_path, environment=without_torch))
    assert all(word in stdout for word in words)
    assert {name for name in snapshot(tmp_path) if "__pycache__" not in name} == before.keys()


DATA_COMMANDS = {
    "fetch": [str(DEFAULT_ROOT), "verified", *FILES, "c59f468a"],
    "stats": ["split", "per class", "54000", "6000", "10000", "5400", "0.2858", "0.3529"],
    "check": ["sanity_check.png", "tensorboard --logdir"],
    "eda": ["54000", "sanity_check.png", "class_distribution.png", "tensorboard --logdir"],
}


@pytest.mark.real_data
@pytest.mark.skipif(not all((DEFAULT_ROOT / name).exists() for name in FILES), reason="needs `make data`")
@pytest.mark.parametrize("command", DATA_COMMANDS)
@pytest.mark.one_in(4)
def test_the_dataset_on_its_own(tmp_path, monkeypatch, capsys, command):
    """The first as a process, the others without its start."""
    monkeypatch.chdir(tmp_path)
    arguments = [command, "--root", str(DEFAULT_ROOT), "--no-download", "--output", "eda"]
    if command == "fetch":
        stdout = succeeded(call("-m", "fmvae.data", *arguments, cwd=tmp_path))
    else:
        assert main(arguments) == 0
        stdout = capsys.readouterr().out
    assert not [word for word in DATA_COMMANDS[command] if word not in stdout], stdout
    pictures = [word for word in DATA_COMMANDS[command] if word.endswith(".png")]
    assert all((tmp_path / "eda" / name).exists() for name in pictures)
    assert pictures or not list(tmp_path.iterdir())


@pytest.mark.real_data
@pytest.mark.slow
def test_the_readmes_look_in_seconds_ends_with_results(tmp_path):
    if not (ROOT / "data" / "fashion-mnist" / "t10k-labels-idx1-ubyte").exists():
        pytest.skip("needs the real data: make data")
    overrides = ["data=fashion_mnist_small", "trainer.epochs=1", f"output_root={tmp_path}"]
    output = succeeded(warmed().call("train.py", *overrides))
    assert "latent dimensions active" in output
    (run,) = tmp_path.glob("base-*")
    before = (run / "results.json").read_bytes()
    succeeded(warmed().call("evaluate.py", "run=.", cwd=run))  # and again, by whatever name it is reached
    assert not (run / ".locks").exists()
    assert (run / "results.json").read_bytes() == before


@pytest.mark.slow
def test_measuring_again_makes_the_report_anew(study, tmp_path):
    ours = study.copied_to(tmp_path / "study")
    said = succeeded(ours.evaluate(f"run={ours.outputs}"))
    assert said.splitlines()[-1].startswith("report: ")
    before = (ours.outputs / "report" / "index.html").read_bytes()
    run = next(path.parent for path in ours.outputs.glob("*/results.json"))
    succeeded(ours.evaluate(f"run={run}", "evaluation.iwae.num_samples=3", "evaluation.iwae.num_images=20"))
    after = (ours.outputs / "report" / "index.html").read_bytes()
    assert b"IWAE 3" in after
    assert b"IWAE 3" not in before

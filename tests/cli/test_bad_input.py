"""Bad input, as whole processes: refused in one line that names it and the way out, and nothing is touched."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.process import refused, snapshot, succeeded
from tests.faults.warmed import warmed
from tests.idx import write_idx_dataset

# arguments of train.py, and what its one line must hold: the key, the value, the way out
OVERRIDES = {
    # groups
    "model=foo": [
        "model: ",
        "'foo'",
        "choose from base, beta, conditional, conditional_conv, conditional_residual, conv, gated, residual",
    ],
    "model=cnv": ["model: ", "'cnv'", "did you mean conv?"],
    "model=": ["model: ", "''", "choose from base"],
    "model=null": ["model: ", "'null'", "choose from base"],
    "trainer=3": ["trainer: ", "'3'", "choose from default"],
    "modle=conv": ["modle: ", "did you mean model?"],
    "experiment=foo": ["experiment: ", "'foo'", "baseline", "conditional_z32"],
    "likelihood=gausian": ["likelihood: ", "'gausian'", "did you mean gaussian?"],
    "hydra/launcher=foo": ["hydra/launcher: ", "'foo'", "basic"],
    # keys
    "trainer.epoch=3": ["trainer.epoch: ", "did you mean trainer.epochs?", "validate_every"],
    "epochs=3": ["epochs: ", "did you mean trainer.epochs?"],
    "batchsize=3": ["batchsize: ", "did you mean data.batch_size?"],
    "beta.value.x=3": ["beta.value.x: "],
    "beta={a:1}": ["beta.a: ", "beta holds value"],
    "model=conv model.hidden_dim=100": ["model.hidden_dim: ", "model holds latent_dim, image_shape"],
    "+beta.value=3": ["beta.value: ", "leave out the +"],
    "~seed": ["~seed: ", "needed"],
    "~model": ["~model: ", "another value"],
    "~trainer.epochs": ["~trainer.epochs: ", "another value"],
    "~nope": ["nope: "],
    # numbers
    "beta=banana": ["beta: ", "'banana'", "choose from capacity, constant, cyclical, warmup, or give a number"],
    "beta=-1": ["beta.value: ", "-1", ">= 0"],
    "beta=nan": ["beta.value: ", "nan", "finite"],
    "beta=inf": ["beta.value: ", "inf", "finite"],
    "beta=warmup beta.fraction=2": ["beta.fraction: ", "2", ">= 0 and <= 1"],
    "latent_dim=0": ["latent_dim.value: ", "0", ">= 1"],
    "latent_dim=2.5": ["latent_dim.value: ", "2.5", "whole number"],
    "latent_dim=banana": ["latent_dim: ", "'banana'", "choose from", "z10", "or give a number"],
    "data.batch_size=0": ["data.batch_size: ", "0", ">= 1"],
    "trainer.epochs=0": ["trainer.epochs: ", "0", ">= 1"],
    "trainer.epochs=many": ["trainer.epochs: ", "'many'", "whole number"],
    "trainer.max_grad_norm=0": ["trainer.max_grad_norm: ", "> 0 or null"],
    "optimizer.lr=-1": ["optimizer.lr: ", "-1", "> 0"],
    "optimizer.lr=true": ["optimizer.lr: ", "true is not a finite number"],
    "scheduler=step scheduler.step_size=banana": ["scheduler.step_size: ", "'banana'", "whole number >= 1"],
    "+optimizer.eps=nan": ["optimizer.eps: ", "nan", "finite"],
    "seed=-1": ["seed: ", "-1", ">= 0"],
    "seed=1e999": ["seed: ", "inf", "whole number"],
    "seed=???": ["seed: ", "no value", "seed="],
    "model=base model.hidden_dim=-5": ["model.hidden_dim: ", "-5", ">= 1"],
    "restart=maybe": ["restart: ", "'maybe'", "true or false"],
    "evaluation.fid=3": ["evaluation.fid: ", "3", "group of keys"],
    "seed=1 evaluation.fid.num_images=500": ["evaluation.fid.num_images: ", "500", "more than 512"],
    "seed=1 evaluation.fid.num_images=801": ["evaluation.fid.num_images: ", "801", "test split holds 800"],
    "seed=1 evaluation.fid.features=[inception]": ["evaluation.fid.features: ", "'inception'", "resnet18, pixels"],
    "seed=1 evaluation.extractor.weights=nope.pt": ["nope.pt: ", "cannot be read", "sharp or blurred"],
    "seed=1 evaluation.extractor.weights=nope.onnx": ["nope.onnx: ", "shipped"],
    "seed=1 evaluation.accuracy.weights=blurr": ["blurr: ", "cannot be read", "sharp or blurred"],
    "evaluation.extractor.precision=fp8": ["evaluation.extractor.precision: ", "'fp8'", "fp32, bf16"],
    "evaluation.iwae.num_samples=-1": ["evaluation.iwae.num_samples: ", "-1", ">= 0"],
    "seed=1 evaluation.accuracy.num_per_class=5": ["evaluation.accuracy.num_per_class: ", "BaseVAE", "no labels"],
    "seed=1 figures.only=[mosaic]": ["figures.only: ", "'mosaic'", "choose from"],
    "seed=1 figures.only=[style_transfer]": ["figures.only: ", "'style_transfer'", "choose from"],
    "seed=1 figures.traversal.dimensions=[2]": ["figures.traversal.dimensions: ", "2", "0 to 1"],
    "figures.traversal.steps=0": ["figures.traversal.steps: ", "0"],
    # sweeps without -m
    "seed=0,1": ["seed=0,1", "-m"],
    "beta=0.5,1": ["beta.value=0.5,1", "-m"],
    "model=base,conv": ["model=base,conv", "-m"],
    "seed=range(3)": ["seed=range(3)", "-m"],
    # what is no override
    "beta=[": ["beta=[", "key=value"],
    "=3": ["=3", "key=value"],
    "model.": ["model.", "key=value"],
    "conv": ["conv", "key=value"],
    "seed=${": ["seed=${", "key=value"],
    "seed=${nope}": ["seed", "'nope' not found"],
    "optimizer.lr=${oc.env:NOPE}": ["optimizer.lr: ", "'NOPE' not found"],
    "output_root=null": ["output_root: ", "null is not a path"],
    "--config-dir=/nope": ["'/nope' not found"],
    # what only the objects themselves can tell
    "model._target_=os.system": ["model._target_: ", "'os.system'", "fmvae."],
    "optimizer._target_=fmvae.models.VAE": ["optimizer._target_: ", "'fmvae.models.VAE'", "Optimizer"],
    "model=beta model.norm_order=bn": ["model.norm_order: ", "'bn'", "relu_bn"],
    "device=cuda:9": ["device: ", "'cuda:9'", "device=cpu"],
    "device=banana": ["device: ", "'banana'", "device=cpu"],
    "data.val_size=1000000": ["data.val_size: ", "1000000", "899"],
    "data.num_classes=3": ["data.num_classes: ", "label 9", "10"],
}


@pytest.fixture
def unchanged(study, tmp_path):
    """Fails a test that changes the finished runs, or leaves something in the working directory ``tmp_path``."""
    before = snapshot(study.outputs), snapshot(tmp_path)
    yield
    assert (snapshot(study.outputs), snapshot(tmp_path)) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("arguments", "words"), OVERRIDES.items(), ids=OVERRIDES)
@pytest.mark.one_in(7)
def test_overrides_of_training(study, tmp_path, arguments, words):
    refused(warmed().call("train.py", *study.settings, *arguments.split(), cwd=tmp_path), *words)


CLASSIFIER_OVERRIDES = {
    "trainer.sides=[28,16]": ["trainer.sides: ", "[28, 16]", "28 last"],
    "trainer.prune=1": ["trainer.prune: ", "1", "< 1"],
    "trainer.epoch=3": ["trainer.epoch: ", "did you mean trainer.epochs?"],
    "beta=2": ["beta.value: ", "no such key"],
    "optimizer._target_=torch.nn.Linear": ["optimizer._target_: ", "Optimizer"],
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("arguments", "words"), CLASSIFIER_OVERRIDES.items(), ids=CLASSIFIER_OVERRIDES)
@pytest.mark.one_in(3)
def test_overrides_of_the_classifiers_training(study, tmp_path, arguments, words):
    data = [setting for setting in study.settings if setting.startswith(("data.", "output_root"))]
    program = ["train.py", *data, "--config-name", "classifier"]
    refused(warmed().call(*program, *arguments.split(), cwd=tmp_path), *words)


def test_a_config_that_there_is_not(tmp_path):
    refused(warmed().call("train.py", "--config-name", "clasifier", cwd=tmp_path), "config: ", "'clasifier'")


# arguments of evaluate.py; {outputs} is the folder of runs, {empty} one without
EVALUATE_OVERRIDES = {
    "": ["run: ", "no value", "add run="],
    "run=x checkpoint=banana": ["checkpoint: ", "'banana'", "best, last"],
    "run=x chekpoint=last": ["chekpoint: ", "did you mean checkpoint?"],
    "run=x beta=0.5": ["beta.value: "],
    "run=": ["run: ", "no directory given", "outputs/"],
    "run=x evaluation=slow": ["evaluation: ", "'slow'", "choose from fast, full"],
    "run=x figures.num_samples=0": ["figures.num_samples: ", "0", ">= 1"],
    "run={base} evaluation.accuracy.num_per_class=5": ["evaluation.accuracy.num_per_class: ", "no labels"],
    "run={outputs} force=perhaps": ["force: ", "'perhaps'", "true or false"],
    "run={outputs}/base": ["run: ", "base'", "no such directory"],
    "run={outputs},{empty}": ["run: ", "no config.yaml"],
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("arguments", "words"), EVALUATE_OVERRIDES.items(), ids=EVALUATE_OVERRIDES)
@pytest.mark.one_in(4)
def test_overrides_of_evaluation(study, tmp_path, tmp_path_factory, arguments, words):
    paths = {"outputs": study.outputs, "base": study.run("base-*"), "empty": tmp_path_factory.mktemp("empty")}
    refused(warmed().call("evaluate.py", *arguments.format(**paths).split(), cwd=tmp_path), *words)


# --- the dataset --------------------------------------------------------------------------------------------


def no_files(data: Path) -> None:
    for path in data.iterdir():
        path.unlink()


def truncated(data: Path) -> None:
    path = data / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def foreign(data: Path) -> None:
    write_idx_dataset(data, 900, 800, seed=1)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (no_files, ["data.root: ", "{data} has none of the files", "data.root="]),
        (truncated, ["{data}/train-images-idx3-ubyte: ", "705615 bytes", "data.root="]),
        (foreign, ["{data}/train-images-idx3-ubyte: ", "is not the one asked for", "data.root="]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_datasets(study, tmp_path_factory, damage, words):
    """Of a run that is to be trained, into outputs with runs of others."""
    data = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(study.data, data)
    damage(data)
    before = snapshot(data)
    refused(replace(study, data=data).train("seed=1"), *(word.format(data=data) for word in words))
    assert snapshot(data) == before


def test_the_dataset_alone(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"not an image")
    before = snapshot(tmp_path)
    arguments = ["--root", str(tmp_path), "--no-download"]
    refused(warmed().call("fmvae.data", "fetch", *arguments), str(tmp_path), "is not Fashion-MNIST's", "--root=")
    assert snapshot(tmp_path) == before


# --- the outputs --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchanged")
def test_outputs_beneath_a_file(study, tmp_path_factory):
    file = tmp_path_factory.mktemp("outputs") / "file"
    file.write_text("here first")
    refused(study.train(f"output_root={file}/outputs"), f"{file}: ", "Not a directory", "permissions")
    assert file.read_text() == "here first"


def interrupted(run: Path) -> None:
    """Make a complete run one that is to be continued."""
    (run / "results.json").unlink()
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "running"}))


def test_a_checkpoint_of_another_model(study, tmp_path):
    """Neither continued from nor evaluated: the numbers would be another run's."""
    ours = study.copied_to(tmp_path / "outputs")
    base, conv = ours.run("base-*"), ours.run("conv-*")
    for which in ("last", "best"):
        shutil.copy(conv / f"checkpoints/{which}.safetensors", base / "checkpoints")
    interrupted(base)
    before = snapshot(ours.outputs)
    refused(ours.train(), "last.safetensors: ", f"another config ({conv.name})", "restart=true")
    refused(ours.evaluate(f"run={base}"), "best.safetensors: ", f"another config ({conv.name})")
    assert snapshot(ours.outputs) == before


def test_a_damaged_checkpoint(study, tmp_path):
    """Evaluation refuses it; training says so, falls back to one that verifies, and ends with the same results."""
    ours = study.copied_to(tmp_path / "outputs")
    run = ours.run("base-*")
    last = run / "checkpoints/last.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    before = snapshot(ours.outputs)
    finished = ours.evaluate(f"run={run}", "checkpoint=last")
    refused(finished, f"{last}: ", "not a readable checkpoint", "restart=true")
    assert snapshot(ours.outputs) == before
    interrupted(run)
    stdout = succeeded(ours.train())
    assert f"{last}: not a readable checkpoint" in stdout
    assert "falling back" in stdout
    assert f"resuming {run} after epoch 1 of 1" in stdout
    assert (run / "results.json").read_bytes() == (study.run("base-*") / "results.json").read_bytes()


def edited_beta(config: str) -> str:
    return config.replace("value: 1.0", "value: 2.0")


def tagged(config: str) -> str:
    return config.replace("seed: 0", "seed: !!python/object/apply:os.system ['touch executed']")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edited_beta, ["config.yaml: ", "not the config this directory is named by", "undo the edit"]),
        (tagged, ["config.yaml: ", "not readable as YAML"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_config_edited_in_place(study, tmp_path, edit, words):
    run = tmp_path / study.run("base-*").name
    run.mkdir()
    (run / "config.yaml").write_text(edit((study.run("base-*") / "config.yaml").read_text()))
    before = snapshot(tmp_path)
    refused(study.evaluate(f"run={run.name}", cwd=tmp_path), *words)
    assert snapshot(tmp_path) == before


# --- sweeps -------------------------------------------------------------------------------------------------


def test_one_bad_value_of_a_sweep_is_known_before_any_job(study, tmp_path):
    finished = replace(study, outputs=tmp_path).train("-m", "beta=0.5,-1,2", "sweep_name=three")
    refused(finished, "beta.value: -1 is not a finite number >= 0")
    assert not list(tmp_path.glob("*/*/config.yaml"))


def test_one_bad_option_of_a_sweep_is_known_before_any_job(study, tmp_path):
    refused(
        replace(study, outputs=tmp_path).train("-m", "model=base,cnv"), "model: ", "'cnv'", "did you mean conv?"
    )
    assert not list(tmp_path.glob("*/*/config.yaml"))

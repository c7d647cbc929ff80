"""Bad input, row by row: status 1, one line that names it and the way out, and nothing that existed has changed.

Beside ``tests/cli/test_bad_input.py``: files and folders that are not as they should be, rights that are missing,
and values that only what reads them can refuse. Each row is a process of its own (``tests/faults/warmed.py``).
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from fmvae.runs.checkpoint import load_checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.weights import SHIPPED
from tests.cli.process import QUICK, ROOT, Finished, Study, call, refused
from tests.faults.warmed import NOBODY, warmed
from tests.idx import write_idx_dataset

MEMORY = 16 << 30  # bytes of address space, so that a machine that promises any amount is not taken at its word
LONG = 300 * "x"


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Everything in a folder with its rights and its content's digest; locks aside, which a refusal may take."""

    def content(path: Path) -> str:
        if path.is_symlink():
            return str(path.readlink())
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    paths = [path for path in sorted(folder.rglob("*")) if ".locks" not in path.parts]
    return {str(path.relative_to(folder)): (path.lstat().st_mode, content(path)) for path in paths}


def give_away(folder: Path) -> None:
    """To the user as whom a test without a superuser's rights runs, if this one has them."""
    if not os.getuid():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def remove(folder: Path) -> None:
    """A folder in which some may not be entered."""
    for path, folders, _ in os.walk(folder):
        for name in folders:
            Path(path, name).chmod(0o755)  # before it is entered
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="fmvae-faults-"))
    folder.chmod(0o755)
    yield folder
    remove(folder)


class Small(Study):
    """With a model of few weights, as everything is read again and again."""

    @property
    def settings(self) -> list[str]:
        return [*super().settings, "model.hidden_dim=8"]


@pytest.fixture(scope="module")
def study(world) -> Study:
    """A dataset, and one finished run. Not to be changed."""
    sha256 = write_idx_dataset(world / "data", 900, 800)
    study = Small(world / "data", sha256, world / "outputs", ("samples",))
    finished = train(study)
    assert finished.status == 0, finished
    give_away(world)
    return study


@pytest.fixture(scope="module")
def run(study) -> Path:
    return study.run("base-b1-z2-s0-*")


@pytest.fixture
def ours(study, world) -> Iterator[Study]:
    """A copy, where a row may do as it likes."""
    folder = Path(tempfile.mkdtemp(dir=world))
    shutil.copytree(study.data, folder / "data")
    copied = replace(study.copied_to(folder / "outputs"), data=folder / "data")
    folder.chmod(0o755)
    give_away(folder)
    yield copied
    remove(folder)


def train(study: Study, *arguments: str, **settings: Any) -> Finished:
    return warmed().call("train.py", *study.settings, *arguments, **settings)


def evaluate(*arguments: str, **settings: Any) -> Finished:
    return warmed().call("evaluate.py", *QUICK, "figures.only=[samples]", *arguments, **settings)


def report(*arguments: str, **settings: Any) -> Finished:
    return warmed().call("fmvae.report", *arguments, **settings)


def rows(table: Mapping[str, list[str]]) -> list[Any]:
    return [pytest.param(name, words, id=name.replace(LONG, "long")) for name, words in table.items()]


# --- values of train.py ---------------------------------------------------------------------------------------

TRAIN = {
    # where to
    "sweep_name=../x": ["sweep_name: ", "'../x'"],
    "sweep_name={outside}/x": ["sweep_name: ", "{outside}/x"],
    "sweep_name=.locks": ["sweep_name: ", "'.locks'"],
    "sweep_name=.": ["sweep_name: ", "'.'"],
    "-m sweep_name=": ["sweep_name: ", "''"],
    "sweep_name='a\nb'": ["sweep_name: "],
    f"sweep_name={LONG}": ["sweep_name: ", LONG],
    f"-m sweep_name={LONG}": ["sweep_name: ", LONG],
    "--config-dir={outside} +extra=nul": ["sweep_name: "],
    "--config-dir={outside} +extra=nul_root": ["output_root: ", "'a\\x00b' is not a path"],
    f"output_root={{outside}}/{LONG}": [LONG, "File name too long"],
    f"model._name_={LONG}": ["model._name_: ", LONG],
    # the data
    "data.root=/nope": ["data.root: ", "there is no '/nope'", "data.download_to=/nope"],
    "data.root=3": ["data.root: ", "there is no '{here}/3'", "data.download_to={here}/3"],
    "data.root=[3]": ["data.root: ", "[3] is not a path"],
    "data.root={outside}": ["data.root: ", "{outside} has none of the files", "set data.root="],
    "data.root={data}/train-images-idx3-ubyte": ["data.root: ", "set data.root="],
    "data.seed=banana": ["data.seed: ", "'banana'"],
    "data.seed=-1": ["data.seed: ", "-1"],
    "data.num_train=100000": ["data.num_train: ", "100000", "900"],
    "data.num_test=0": ["data.num_test: ", "0", ">= 1"],
    "data.val_size=1e18": ["data.val_size: ", "1000000000000000000", "899"],
    "data.batch_size=1e19": ["data.batch_size: ", "1e+19 is too large", "a whole number"],
    "data.image_shape=[1,27,28]": ["data.image_shape: ", "28x28"],
    "data.sha256=banana": ["data: "],
    "+data.banana=1": ["data.banana: ", "no such key", "data holds root, download"],
    # the model
    "latent_dim=1000000000 model.hidden_dim=400": ["1600000000000 bytes"],
    "latent_dim=1e9 model.hidden_dim=400": ["1600000000000 bytes"],
    "latent_dim=10000000000000000000": ["latent_dim.value: ", "too large"],
    "latent_dim=1000000000000000000": ["memory: ", "Storage size"],
    "+latent_dim.banana=3": ["latent_dim.banana: ", "no such key"],
    "model.hidden_dim=0": ["model.hidden_dim: ", "0", ">= 1"],
    "model.hidden_dim=1000000000000": ["allocate"],
    "model.image_shape=[1,28]": ["model: ", "image_shape must be"],
    "model.latent_dim=banana": ["model"],
    "model._name_=[3]": ["model._name_: ", "[3] is not a name"],
    "model=conditional model.num_classes=3": ["num_classes", "3"],
    "model=conditional model.prior=banana": ["model.prior: ", "'banana'", "learned"],
    "+model.banana=3": ["model.banana: ", "no such key", "model holds latent_dim, hidden_dim"],
    "likelihood=gaussian likelihood.sigma=0": ["likelihood.sigma: ", "> 0"],
    "likelihood=gaussian_learned likelihood.start=1e300": ["likelihood.start: ", "<= 1e+06"],
    # the loss and the prior
    "prior=mixture prior.latent_dim=3": ["prior.latent_dim: ", "3", "latent_dim 2", "it follows latent_dim"],
    "prior=flow prior.latent_dim=3": ["prior.latent_dim: ", "3", "latent_dim 2", "it follows latent_dim"],
    "prior=vamp prior.image_shape=[1,2]": ["prior.image_shape: ", "(1, 2)", "it follows data.image_shape"],
    "prior=vamp prior.image_shape=[]": ["prior.image_shape: ", "()", "it follows data.image_shape"],
    "prior=flow prior.transforms=1e18": ["prior.transforms: ", "<= 1000"],
    "prior=flow prior.bins=1e9": ["prior.bins: ", "<= 10000"],
    "loss=factor_vae loss.latent_dim=3": ["loss.latent_dim: ", "3", "latent_dim 2"],
    "loss=factor_vae loss.depth=1e18": ["loss.depth: ", "<= 1000"],
    "loss=info_vae loss.bandwidth=1e300": ["loss.bandwidth: ", "<= 1e+06"],
    "loss=beta_tcvae data.num_test=1": ["data: ", "BetaTCVAE", "the test split has 1", "more images"],
    "loss=dip_vae data.num_train=105 data.val_size=100 data.num_test=11 data.batch_size=3": ["as 6"],
    "loss=iwae loss.num_samples=9e18": ["loss.num_samples: ", "<= 1000000;"],
    "evaluation.decomposition.num_samples=1": ["evaluation.decomposition.num_samples: ", "standard error"],
    "evaluation.decomposition.num_samples=9e18": ["evaluation.decomposition.num_samples: ", "<= 1000000000;"],
    "beta=cyclical beta.num_cycles=0": ["beta.num_cycles: ", ">= 1"],
    # training
    "trainer.epochs=0": ["trainer.epochs: ", "0", ">= 1"],
    "+trainer.epoch=3": ["trainer.epoch: ", "no such key", "did you mean trainer.epochs?"],
    "--config-dir={outside} +extra=broken": ["{outside}/extra/broken.yaml, line 3: "],
    "--config-dir={outside} +extra=misspelt": ["evaluation.fid.num_image: ", "fid.num_images?"],
    "trainer.validate_every=0": ["trainer.validate_every: ", ">= 1"],
    "trainer.patience=0": ["trainer.patience: ", ">= 1 or null"],
    "trainer.max_grad_norm=banana": ["trainer.max_grad_norm: ", "'banana'"],
    "optimizer.fused=banana": ["optimizer.fused: ", "'banana'"],
    "+optimizer.betas=[2,3]": ["optimizer: ", "Invalid beta parameter at index 0: 2"],
    "optimizer.betas=[2,3]": ["optimizer.betas: ", "no such key"],
    "optimizer=sgd optimizer.momentum=banana": ["optimizer.momentum: ", "'banana'"],
    "scheduler=step +scheduler.foo=1": ["scheduler.foo: ", "no such key", "scheduler holds step_size"],
    "scheduler=plateau scheduler.factor=2": ["scheduler: ", "Factor should be < 1.0"],
    "scheduler=exponential scheduler.gamma=0": ["scheduler.gamma: ", "> 0"],
    "+scheduler={{_target_:torch.optim.lr_scheduler.OneCycleLR,max_lr:1}}": ["scheduler: ", "total_steps"],
    # the machine
    "device=meta": ["device: ", "'meta'", "device=cpu"],
    "device=cuda": ["device: ", "'cuda'", "no CUDA GPUs", "device=cpu"],
    "threads=-1": ["threads: ", "-1", ">= 1"],
    "threads=1e30": ["threads: ", "<= 4096"],
    # what is measured and drawn
    "figures.only=[mosaic,samples]": ["figures.only: ", "'mosaic'", "choose from reconstructions"],
    "figures.only=banana": ["figures.only: ", "'banana'", "a list"],
    "figures.only=[samples_by_class]": ["figures.only: ", "'samples_by_class'", "choose from"],
    "evaluation.accuracy.num_per_class=5": ["evaluation.accuracy.num_per_class: ", "no labels"],
    "objective=accuracy": ["objective: ", "'accuracy'", "conditional"],
    "evaluation.iwae.num_samples=1e19": ["evaluation.iwae.num_samples: ", "too large"],
    "evaluation.cache=[3]": ["evaluation.cache: ", "[3] is not a path"],
    "evaluation.fid.num_images=785 evaluation.fid.features=[pixels] evaluation.fid.num_neighbours=1e18": [
        "evaluation.fid.num_neighbours: ",
        "785",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def outside(world) -> Path:
    """A folder beside the outputs, which also holds configs that say what no command line can."""
    folder = world / "outside"
    (folder / "extra").mkdir(parents=True)
    for name, key in (("nul", "sweep_name"), ("nul_root", "output_root")):
        (folder / "extra" / f"{name}.yaml").write_text(f'# @package _global_\n{key}: "a\\0b"\n')
    (folder / "extra" / "broken.yaml").write_text("# @package _global_\ntrainer: {epochs: 3\nseed: [\n")
    (folder / "extra" / "misspelt.yaml").write_text("# @package _global_\nevaluation: {fid: {num_image: 5}}\n")
    return folder


@pytest.mark.parametrize(("arguments", "words"), rows(TRAIN))
@pytest.mark.one_in(7)
def test_values_of_training(study, world, outside, tmp_path, arguments, words):
    """Each of a run of its own, by its seed: one that is complete would be shown, whatever else is asked."""
    paths = {"outside": outside, "data": study.data, "here": tmp_path}
    given = [part.format(**paths) for part in ([arguments] if "\n" in arguments else arguments.split())]
    settings = study.settings
    if arguments.endswith("nul_root"):
        settings = [setting for setting in settings if not setting.startswith("output_root")]
    before = tree(world)
    finished = warmed().call(
        "train.py", *settings, f"seed={crc32(arguments.encode())}", *given, cwd=tmp_path, memory=MEMORY
    )
    refused(finished, *(word.format(**paths) for word in words))
    assert tree(world) == before
    assert not list(tmp_path.iterdir())


# --- values of evaluate.py ------------------------------------------------------------------------------------

EVALUATE = {
    "run={run} checkpoints=banana": ["checkpoints: ", "did you mean checkpoint?"],
    "run={run} checkpoint=banana": ["checkpoint: ", "'banana'", "best, last"],
    "run={run} device=cuda": ["device: ", "'cuda'", "device=cpu"],
    "run={run} device=meta": ["device: ", "'meta'"],
    "run={run} threads=-1": ["threads: ", "-1"],
    "run={run} workers=0": ["workers: ", "0"],
    "run={run} figures.only=[mosaic]": ["figures.only: ", "'mosaic'", "choose from"],
    "run={run} figures.only=[style_transfer]": ["figures.only: ", "'style_transfer'", "choose from"],
    "run={run} evaluation.iwae.num_samples=banana": ["evaluation.iwae.num_samples: ", "'banana'"],
    "run={run} data_root=/nope": ["data_root: ", "there is no '/nope'"],
    "run={run} data_root=3": ["data_root: ", "/3'"],
    "run={run} data_root=[3]": ["data_root: ", "[3] is not a path"],
    "run=true": ["run: ", "/true'", "no such directory"],
    "run=[[a]]": ["run: ", "no such directory"],
    f"run={LONG}": [LONG, "File name too long"],
}


@pytest.mark.parametrize(("arguments", "words"), rows(EVALUATE))
@pytest.mark.one_in(4)
def test_values_of_evaluation(study, world, run, tmp_path, arguments, words):
    before = tree(world)
    refused(evaluate(*arguments.format(run=run).split(), cwd=tmp_path), *words)
    assert tree(world) == before
    assert not list(tmp_path.iterdir())


# --- folders of others ----------------------------------------------------------------------------------------


def plain(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def with_a_config(folder: Path) -> None:
    """As many a program has one."""
    (folder / "app").mkdir()
    (folder / "app" / "config.yaml").write_text("server: {port: 80}\n")
    (folder / "app" / "status.json").write_text("[1]")


def like_ours(folder: Path) -> None:
    (folder / "app").mkdir()
    (folder / "app" / "config.yaml").write_text("model: {}\nbeta: {}\nlatent_dim: {}\ndata: {}\nseed: 1\n")


STRANGE = [plain, with_a_config, like_ours]
PROGRAMS: dict[str, Callable[[Path], Finished]] = {
    "evaluate": lambda folder: evaluate(f"run={folder}"),
    "report": lambda folder: report(str(folder)),
    "status": lambda folder: report("status", str(folder)),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("make", STRANGE)
def test_a_folder_of_another_program(program, make, tmp_path):
    make(tmp_path)
    before = tree(tmp_path)
    refused(PROGRAMS[program](tmp_path), str(tmp_path))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("what", ["nothing", "a file"])
def test_no_folder(program, what, tmp_path):
    folder = tmp_path / "folder"
    if what == "a file":
        folder.write_text("here first")
    before = tree(tmp_path)
    refused(PROGRAMS[program](folder), str(folder))
    assert tree(tmp_path) == before


# --- a run that another process holds -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda study, run: evaluate(f"run={run}"),
        lambda study, run: train(study),
        lambda study, run: train(study, "restart=true"),
    ],
    ids=["evaluate", "train", "restart"],
)
def test_a_run_that_is_being_trained(study, world, run, ask):
    before = tree(world)
    with RunDirectory(run).held():
        refused(ask(study, run), f"{run}: ", f"held by process {os.getpid()} on ", "wait for it to finish")
    assert tree(world) == before


# --- files that are not what they should be -------------------------------------------------------------------


def interrupted(run: Path) -> None:
    """Make a complete run one that is to be continued."""
    (run / "results.json").unlink()
    (run / "status.json").write_text(json.dumps({"state": "running"}))


def directory(name: str) -> Callable[[Path], None]:
    """A file of a run that is to be continued, replaced by a directory."""

    def damage(run: Path) -> None:
        interrupted(run)
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return damage


def a_file_for_the_run(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("here first", encoding="utf-8")


def a_file_for_the_figures(run: Path) -> None:
    interrupted(run)
    shutil.rmtree(run / "figures")
    (run / "figures").write_text("here first")


def a_directory_for_the_lock(run: Path) -> None:
    lock = run.parent / ".locks" / f"{run.name}.lock"
    lock.unlink()
    lock.mkdir()


def a_file_for_the_locks(run: Path) -> None:
    shutil.rmtree(run.parent / ".locks")
    (run.parent / ".locks").write_text("here first")


def a_file_on_the_way(run: Path) -> None:
    shutil.rmtree(run.parent)
    run.parent.write_text("here first")


def readable_by_none(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        interrupted(run)
        (run / name).chmod(0)

    return damage


def writable_by_none(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        interrupted(run)
        (run / name).chmod(0o555 if (run / name).is_dir() else 0o444)

    return damage


def checkpoints_to_read_only(run: Path) -> None:
    """Where one is missing."""
    interrupted(run)
    (run / "checkpoints/best.safetensors").unlink()
    (run / "checkpoints").chmod(0o555)


def outputs_to_read_only(run: Path) -> None:
    shutil.rmtree(run)
    run.parent.chmod(0o555)


def locks_to_read_only(run: Path) -> None:
    (run.parent / ".locks" / f"{run.name}.lock").unlink()
    (run.parent / ".locks").chmod(0o555)


def data_of(folder: Path) -> Path:
    return folder.parent.parent / "data"


def unreadable_data(run: Path) -> None:
    interrupted(run)
    (data_of(run) / "train-images-idx3-ubyte").chmod(0)


def closed_data(run: Path) -> None:
    interrupted(run)
    data_of(run).chmod(0)


TO_TRAIN = {
    "the run is a file": (a_file_for_the_run, ["{run}: ", "Not a directory"]),
    "the lock is a directory": (a_directory_for_the_lock, ["{run.name}.lock: ", "Is a directory"]),
    "the locks are a file": (a_file_for_the_locks, [".locks: ", "Not a directory"]),
    "a file lies on the way": (a_file_on_the_way, ["{run.parent}", "check the path"]),
    "last is a directory": (directory("checkpoints/last.safetensors"), ["last.safetensors: ", "Is a directory"]),
    "best is a directory": (directory("checkpoints/best.safetensors"), ["best.safetensors: ", "Is a directory"]),
    "config is a directory": (directory("config.yaml"), ["config.yaml: ", "Is a directory"]),
    "metrics is a directory": (directory("metrics.jsonl"), ["metrics.jsonl: ", "Is a directory"]),
    "the status is a directory": (directory("status.json"), ["status.json: ", "Is a directory"]),
    "the log is a directory": (directory("train.log"), ["train.log: ", "Is a directory"]),
    "the figures are a file": (a_file_for_the_figures, ["{run}/figures: ", "Not a directory"]),
    # rights
    "outputs to read only": (outputs_to_read_only, ["{run}: ", "Permission denied", "check the path"]),
    "locks to read only": (locks_to_read_only, ["{run.name}.lock: ", "Permission denied"]),
    "a run to read only": (writable_by_none("."), ["{run}", "Permission denied", "permissions"]),
    "checkpoints to read only": (checkpoints_to_read_only, ["{run}/checkpoints", "Permission denied"]),
    "a log to read only": (writable_by_none("train.log"), ["train.log: ", "Permission denied"]),
    "a closed run": (readable_by_none("."), ["{run}", "Permission denied"]),
    "last that cannot be read": (
        readable_by_none("checkpoints/last.safetensors"),
        ["last.safetensors: ", "Permission denied"],
    ),
    "best that cannot be read": (
        readable_by_none("checkpoints/best.safetensors"),
        ["best.safetensors: ", "Permission denied"],
    ),
    "data that cannot be read": (
        unreadable_data,
        ["train-images-idx3-ubyte: ", "Permission denied", "data.root="],
    ),
    "a closed folder of data": (closed_data, ["{data}: ", "Permission denied", "data.root="]),
}
TO_EVALUATE = {
    "the run is a file": (a_file_for_the_run, ["run: ", "{run}", "a file, not a directory"]),
    "the lock is a directory": (a_directory_for_the_lock, ["{run.name}.lock: ", "Is a directory"]),
    "best is a directory": (directory("checkpoints/best.safetensors"), ["best.safetensors: ", "Is a directory"]),
    "config is a directory": (directory("config.yaml"), ["run: ", "{run}", "config.yaml"]),
    "the figures are a file": (a_file_for_the_figures, ["{run}/figures: ", "Not a directory"]),
    "a run to read only": (writable_by_none("."), ["{run}", "Permission denied", "permissions"]),
    "a closed run": (readable_by_none("."), ["{run}", "Permission denied"]),
    "config that cannot be read": (readable_by_none("config.yaml"), ["config.yaml: ", "PermissionError"]),
    "best that cannot be read": (
        readable_by_none("checkpoints/best.safetensors"),
        ["best.safetensors: ", "Permission denied"],
    ),
    "data that cannot be read": (
        unreadable_data,
        ["train-images-idx3-ubyte: ", "Permission denied", "data_root="],
    ),
}
BEGUN = {"config.yaml", "overrides.yaml", "status.json", "train.log", "timing.json", "metrics.jsonl"}


def damaged(table: Mapping[str, tuple[Any, list[str]]]) -> list[Any]:
    return [pytest.param(damage, words, id=name) for name, (damage, words) in table.items()]


@pytest.fixture(scope="module")
def as_nobody(study) -> dict[str, Any]:
    """Settings of a process without a superuser's rights, which reads whatever it likes."""
    if not os.getuid():
        reachable = train(study, unprivileged=True)
        if reachable.status:
            pytest.skip(f"the programs cannot be read by another user here: {reachable.stderr}")
    return {"unprivileged": True}


def said(run: Path) -> str:
    """What a run's log says."""
    return (run / "train.log").read_text() if (run / "train.log").is_file() else ""


def check_damage(ours: Study, run: Path, words: list[str], ask: Callable[[], Finished]) -> None:
    """That a damaged run is refused, and as damaged as before, but for what one that had begun says of itself."""
    folder = ours.outputs.parent
    before, log = tree(folder), said(run)
    names = {"run": run, "data": ours.data}
    refused(ask(), *(word.format(**names) for word in words))
    after = tree(folder)
    new = after.keys() - before.keys()
    if said(run) != log:
        assert said(run).startswith(log)
        told = {f"outputs/{run.name}/{name}" for name in BEGUN}
        before, after = ({path: it for path, it in there.items() if path not in told} for there in (before, after))
        new = {path for path in new - told if "tfevents" not in path}
    # what is measured before the pictures fail is kept
    assert new <= {f"outputs/{run.name}/results.json"}
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize(("damage", "words"), damaged(TO_TRAIN))
@pytest.mark.one_in(5)
def test_what_cannot_be_trained_into(ours, run, as_nobody, damage, words):
    run = ours.outputs / run.name
    damage(run)
    check_damage(ours, run, words, lambda: train(ours, **as_nobody))


@pytest.mark.parametrize(("damage", "words"), damaged(TO_EVALUATE))
@pytest.mark.one_in(4)
def test_what_cannot_be_evaluated(ours, run, as_nobody, damage, words):
    run = ours.outputs / run.name
    damage(run)
    check_damage(
        ours, run, words, lambda: evaluate(f"run={run}", f"data_root={ours.data}", "force=true", **as_nobody)
    )


def test_the_rights_are_what_these_rows_are_about(ours, run, as_nobody):
    """The same process does well where it has them."""
    interrupted(ours.outputs / run.name)
    give_away(ours.outputs)
    finished = train(ours, **as_nobody)
    assert (finished.status, finished.stderr) == (0, "")
    assert "resuming" in finished.stdout


def test_a_status_that_cannot_be_told(ours, run):
    a_directory_for_the_lock(ours.outputs / run.name)
    interrupted(ours.outputs / run.name)
    before = tree(ours.outputs)
    refused(report("status", str(ours.outputs)), f"{run.name}.lock: ", "Is a directory")
    assert tree(ours.outputs) == before


# --- what shows only once a run has begun ---------------------------------------------------------------------

HUGE = {
    "evaluation.iwae.num_samples=1000000000000 evaluation.iwae.num_images=1": ["memory: ", "allocate"],
    "evaluation.iwae.num_samples=9e18": ["memory: ", "Storage size"],
    "beta=1e39": ["epoch 1, step 1: ", "objective is inf"],
    "likelihood=gaussian likelihood.sigma=1e-30": ["epoch 1, step 1: ", "recon is inf"],
}


@pytest.mark.parametrize(("arguments", "words"), rows(HUGE))
def test_a_run_that_had_begun_keeps_its_traceback_in_the_log(study, world, tmp_path, arguments, words):
    before = tree(world)
    finished = train(study, f"output_root={tmp_path}", *arguments.split(), memory=MEMORY)
    line = refused(finished, *words)
    assert tree(world) == before
    (begun,) = tmp_path.glob("base-*")
    assert "Traceback" in (begun / "train.log").read_text()
    status = json.loads((begun / "status.json").read_text())
    assert (status["state"], f"fmvae: error: {status['error']}") == ("failed", line) or words[0] == "memory: "
    for path in begun.glob("checkpoints/*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_checkpoint(path).tensors.values())


# --- what is only warned of -----------------------------------------------------------------------------------


QUICK_FEATURES = """
import torch
from fmvae.evaluation.features import Features, ResNetFeatures
weights = torch.randn(784, 512, generator=torch.Generator().manual_seed(0))
def quick(self, batches, what="", num=0):
    features = torch.cat([batch.flatten(1) for batch in batches]) @ weights
    return Features(features.numpy(), features[:, :10].numpy())
ResNetFeatures.__call__ = quick
"""


def test_a_cache_that_cannot_be_written_is_done_without(ours, run):
    """The numbers are there, and the warning names the place. The network is replaced, as it is slow."""
    folder = ours.outputs.parent
    (folder / "cache").write_text("here first")
    weights = f"evaluation.extractor.weights={SHIPPED['sharp']}"  # by the file: these are other images
    fid = ["evaluation.fid.num_images=513", "evaluation.fid.features=[resnet18]", weights]
    cache = f"evaluation.cache={folder}/cache"
    finished = evaluate(f"run={ours.outputs / run.name}", cache, *fid, prelude=QUICK_FEATURES)
    assert (finished.status, finished.stderr) == (0, "")
    assert f"{folder}/cache" in finished.stdout
    assert "features of real images are not kept" in finished.stdout
    assert (folder / "cache").read_text() == "here first"
    assert json.loads((ours.outputs / run.name / "fid.json").read_text())["resnet18"]["generation"] > 0


# --- that a fork is as good as a process from its beginning ---------------------------------------------------


@pytest.mark.parametrize("arguments", ["+optimizer.betas=[2,3]"])
def test_a_whole_process_says_the_same(study, arguments):
    warm = train(study, "seed=7", arguments)
    assert call(str(ROOT / "train.py"), *study.settings, "seed=7", arguments) == warm
    refused(warm)


def test_negative_control_a_changed_byte_and_a_changed_right_are_seen(ours):
    before = tree(ours.outputs)
    path = next(ours.outputs.rglob("metrics.jsonl"))
    path.chmod(0o600)
    assert tree(ours.outputs) != before
    path.chmod(0o644)
    assert tree(ours.outputs) == before
    path.write_bytes(path.read_bytes()[:-1])
    assert tree(ours.outputs) != before

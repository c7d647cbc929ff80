"""What people type: paths, names, spaces, keys of another option. Each works, or the answer says what to type."""

import os
import re
import shutil
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from fmvae.cli.arguments import LONGEST_NAME, in_quotes, name_sweep, prepared, put_off, quoted, together
from fmvae.config import compose
from fmvae.config.schema import RULES
from fmvae.data.sources import load_dataset
from fmvae.errors import ConfigError, DataError
from fmvae.evaluation.columns import NEG_ELBO
from tests.cli.process import ROOT, refused, snapshot, succeeded
from tests.faults.warmed import warmed
from tests.idx import write_idx_dataset


def read(override: str):
    """The value that Hydra reads of an override."""
    return OverridesParser.create().parse_override(override).value()


def in_home(home: Path) -> str:
    """What a process runs first to have another home directory."""
    return f"import os; os.environ['HOME'] = {str(home)!r}"


# --- paths --------------------------------------------------------------------------------------------------

ODD_NAMES = [
    "/tmp/josé", "~/out", "/tmp/日本語", "/tmp/a (1)", "/tmp/a#b", "/tmp/a&b", "/tmp/a;b", "/tmp/it's", '/tmp/"x"',
    "/tmp/it's \"x\"", "/tmp/a=b", "/tmp/!x", "C:\\Users\\me", "\\\\server\\share\\", "/tmp/x\\", "2024", "1e5",
    "0x10", "true", "/tmp/a b", "/tmp/[x]", "null_island", "/tmp/${x", "/tmp/x{1}", "/tmp/a%b", "/tmp/é'\\\"",
    "-out", "1_000",
]  # fmt: skip


@pytest.mark.parametrize("path", ODD_NAMES)
@pytest.mark.parametrize("key", ["output_root", "data.root", "sweep_name", "data_root", "run", "trainer.start"])
def test_a_path_or_name_is_read_as_it_is_typed(key, path):
    (argument,) = prepared([f"{key}={path}"], "train")
    assert read(argument) == path


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1))
def test_whatever_text_is_quoted_is_read_as_it_was(text):
    assert read(f"output_root={in_quotes(text)}") == text


READ = [
    "output_root=null", "output_root=/a,/b", "run=[a,b]", "output_root='~/x'", "seed=3",
    "output_root=${oc.env:HOME}/x", "model=é", "output_root=", "seed=${x}", "optimizer.lr=1e-3",
]  # fmt: skip


@pytest.mark.parametrize("argument", READ)
def test_what_hydra_reads_is_left_alone(argument):
    assert quoted(argument) == argument


@pytest.mark.parametrize(
    ("typed", "paths"),
    [
        ("~/a,/b/é,/c d", ["~/a", "/b/é", "/c d"]),
        ("'/tmp/a b',/tmp/c", ["/tmp/a b", "/tmp/c"]),
        ('"/tmp/a,b",/tmp/c', ["/tmp/a,b", "/tmp/c"]),
        ("[a,b]", ["a", "b"]),
        ("a,b", ["a", "b"]),
    ],
)
def test_several_runs_of_odd_names(typed, paths):
    (argument,) = prepared([f"run={typed}"], "evaluate")
    assert read(argument) == paths


@pytest.mark.parametrize(
    "typed", ["/tmp/a\\ b", "/tmp/a\\,b", "/tmp/a\\(1\\)", "str(2024)", "'/tmp/é'", "/tmp/a b"]
)
@pytest.mark.parametrize("key", ["output_root", "sweep_name"])
def test_hydras_own_ways_of_writing_a_text_stay_what_they_are(key, typed):
    (argument,) = prepared([f"{key}={typed}"], "train")
    assert argument == f"{key}={typed}"


PATHS = [key for key, rule in RULES.items() if rule.path]


def test_every_key_that_names_a_place_is_a_path():
    assert set(PATHS) == {
        "output_root", "data.root", "data.cache", "data.download_to", "data_root", "trainer.start",
        "evaluation.cache", "evaluation.extractor.weights", "evaluation.accuracy.weights",
    }  # fmt: skip


@pytest.mark.parametrize("key", PATHS)
def test_every_path_knows_the_home_directory(key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/her")
    assert RULES[key].accept("~/x") == "/home/her/x"
    assert RULES[key].accept("~nobody-of-this-name/x") == "~nobody-of-this-name/x"
    assert RULES[key].accept("/a/~/x") == "/a/~/x"


def test_output_goes_to_the_home_directory(study, tmp_path):
    for arguments in (["output_root=~/out"], ["output_root=~/sweeps", "-m", "seed=0,1", "sweep_name=s"]):
        finished = warmed().call("train.py", *study.settings, *arguments, cwd=tmp_path, prelude=in_home(tmp_path))
        succeeded(finished)
    assert len(list(tmp_path.glob("out/base-*/results.json"))) == 1
    assert len(list(tmp_path.glob("sweeps/s/base-*/results.json"))) == 2
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
def test_a_files_output_root_goes_there_too(study, tmp_path):
    file = tmp_path / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\noutput_root: ~/filed\n")
    settings = [s for s in study.settings if not s.startswith("output_root")]
    arguments = ["experiment=mine", "--config-dir=~/conf"]
    succeeded(warmed().call("train.py", *settings, *arguments, cwd=tmp_path, prelude=in_home(tmp_path)))
    assert len(list(tmp_path.glob("filed/base-*/results.json"))) == 1
    assert not (tmp_path / "~").exists()


def test_evaluate_and_the_modules_find_it(study, tmp_path):
    (tmp_path / "josé").mkdir()
    succeeded(study.train(f"output_root={tmp_path / 'josé'}"))
    home = in_home(tmp_path)
    succeeded(warmed().call("evaluate.py", "evaluation=fast", "figures=none", "run=~/josé", prelude=home))
    succeeded(warmed().call("fmvae.report", "--to=~/report", str(tmp_path / "josé"), prelude=home))
    assert (tmp_path / "report" / "index.html").exists()


def test_weights_are_found_in_the_home_directory(tmp_path, monkeypatch):
    """Also by the digest that names a classifier's run, which the config computes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.safetensors").write_bytes((ROOT / "fmvae/weights/fashion_resnet18.safetensors").read_bytes())
    here = compose(["trainer.start='~/w.safetensors'"], "classifier")["trainer"]["start_sha256"]
    assert here == compose(["trainer.start=sharp"], "classifier")["trainer"]["start_sha256"]


@pytest.mark.parametrize("name", ["2024", "007", "1e5", "true", "3.5"])
@pytest.mark.one_in(5)
def test_a_sweep_may_be_called_a_number(study, name):
    succeeded(warmed().call("train.py", *study.settings, "-m", "seed=0,1", f"sweep_name={name}", "dry_run=true"))
    succeeded(warmed().call("train.py", *study.settings, f"sweep_name={name}"))
    assert list((study.outputs / name).glob("base-*/results.json"))


def test_a_number_in_a_file_is_a_name_too():
    assert RULES["sweep_name"].accept(2024) == "2024"
    for value in (True, 2.5):
        with pytest.raises(ConfigError, match="quote it"):
            compose([f"sweep_name={value}"])


@pytest.mark.parametrize("device", ["0", "1"])
def test_a_gpu_by_its_number_alone(study, device):
    refused(warmed().call("train.py", *study.settings, f"device={device}"), "device: ", f"device=cuda:{device}")


# --- spaces -------------------------------------------------------------------------------------------------

PARTED = {
    "beta=0.5, 1": "beta=0.5,1",
    "-m beta=0.5, 1, 4": "beta=0.5,1,4",
    "-m beta=0.5 ,1 ,4 seed=3": "beta=0.5,1,4",
    "beta = 0.5": "beta=0.5",
    "beta= 0.5": "beta=0.5",
    "beta =0.5": "beta=0.5",
    "figures.only=[samples, reconstructions]": "figures.only=[samples,reconstructions]",
    "-m seed=range(0, 3)": "seed=range(0,3)",
    "+optimizer.betas=[0.9, 0.99] seed=1": "+optimizer.betas=[0.9,0.99]",
}


@pytest.mark.parametrize(("typed", "meant"), PARTED.items(), ids=PARTED)
@pytest.mark.one_in(5)
def test_a_space_within_an_argument(study, typed, meant):
    line = refused(
        warmed().call("train.py", *study.settings, *typed.split(" ")), "space", f"write {meant} without"
    )
    assert f"quote it: '{typed.removeprefix('-m ').removesuffix(' seed=3').removesuffix(' seed=1')}'" in line


@pytest.mark.parametrize(
    "typed", ["seed=1 beta=2", "~optimizer.fused seed=1", "data.root= seed=1", "conv", "seed=1 conv"]
)
def test_what_is_no_part_of_another_argument(typed):
    assert list(together(typed.split(" "), "train")) == typed.split(" ")


def test_a_path_alone(study):
    succeeded(study.train())
    (run,) = study.outputs.glob("base-*")
    for path in (str(run), os.path.relpath(run)):
        refused(warmed().call("evaluate.py", path), f"run={path}")
    refused(warmed().call("evaluate.py", "outputs/no-such-run"), "run=outputs/no-such-run")


@pytest.mark.parametrize("argument", ["experiment=josé", "trainer.precision=é", "model=a#b"])
def test_other_values_are_told_how_to_be_quoted(study, argument):
    key, _, value = argument.partition("=")
    refused(warmed().call("train.py", *study.settings, argument), f"\"{key}='{value}'\"")


# --- the dataset's folder -----------------------------------------------------------------------------------


def test_a_mistyped_data_root_is_refused(study, tmp_path):
    typo = tmp_path / "fashoin"
    settings = [s for s in study.settings if not s.startswith(("data.root", "data.download"))]
    refused(warmed().call("train.py", *settings, f"data.root={typo}"), "data.root: ", f"data.download_to={typo}")
    assert not typo.exists()
    refused(warmed().call("fmvae.data", "stats", f"--root={typo}"), "--root: ", f"--to={typo}")
    assert not typo.exists()


def test_a_folder_to_download_to_is_made(tmp_path, monkeypatch):
    from fmvae.data import sources

    stock = tmp_path / "stock"
    hashes = write_idx_dataset(stock, 30, 20)
    monkeypatch.setattr(sources, "SYSTEM_ROOT", tmp_path / "none")
    monkeypatch.setattr(sources, "DEFAULT_ROOT", tmp_path / "default")
    monkeypatch.setattr(sources, "_fetch_from_mirrors", lambda staging, expected: stock)
    found = load_dataset(download_to=tmp_path / "new" / "folder", sha256=hashes)
    assert found.root == tmp_path / "new" / "folder"
    assert not (tmp_path / "default").exists()
    with pytest.raises(DataError, match="download_to"):
        load_dataset(tmp_path / "other", sha256=hashes)
    assert load_dataset(stock, download_to=tmp_path / "never", sha256=hashes).root == stock
    assert not (tmp_path / "never").exists()
    (tmp_path / "empty").mkdir()
    assert (
        load_dataset(tmp_path / "empty", download_to=tmp_path / "third", sha256=hashes).root == tmp_path / "third"
    )
    assert not list((tmp_path / "empty").iterdir())


def test_a_runs_dataset_that_moved(study, tmp_path):
    """Its place is stored with the run; who measures it says where it is now."""
    moved = tmp_path / "moved"
    here = Path(shutil.copytree(study.data, tmp_path / "here"))
    succeeded(warmed().call("train.py", *study.settings, f"data.root={here}"))
    (run,) = study.outputs.glob("base-*")
    here.rename(moved)
    again = ["evaluation=fast", "figures=none", "force=true", f"run={run}"]
    line = refused(warmed().call("evaluate.py", *again), "data_root=<folder")
    assert "data.root=" not in line
    assert NEG_ELBO in succeeded(warmed().call("evaluate.py", *again, f"data_root={moved}"))
    assert warmed().call("fmvae.verify", str(run)).status == 1
    assert "equal bit for bit" in succeeded(warmed().call("fmvae.verify", str(run), f"--data-root={moved}"))
    refused(
        warmed().call("evaluate.py", *again, "data_root=/no/where"), "data_root: ", "/no/where", "leave it out"
    )


def test_another_folder_than_asked_for_is_said(tmp_path, monkeypatch, caplog):
    from fmvae.data import sources

    hashes = write_idx_dataset(tmp_path / "system", 30, 20)
    monkeypatch.setattr(sources, "SYSTEM_ROOT", tmp_path / "system")
    (tmp_path / "mine").mkdir()
    load_dataset(tmp_path / "mine", sha256=hashes)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert str(tmp_path / "mine") in warning.getMessage()
    assert str(tmp_path / "system") in warning.getMessage()


# --- names that the program makes ---------------------------------------------------------------------------

MANY = [f"{group}.{name}" for group, names in {
    "trainer": ["epochs", "validate_every", "patience", "max_grad_norm"],
    "data": ["batch_size", "val_size", "num_train", "num_test", "stratified"],
    "optimizer": ["lr", "weight_decay", "fused"],
    "model": ["hidden_dim"],
}.items() for name in names]  # fmt: skip


def test_a_sweep_over_many_keys_has_a_name_that_its_rule_takes(study):
    values = {"data.stratified": "true,false", "optimizer.fused": "true,false"}
    settings = [s for s in study.settings if s.partition("=")[0] not in MANY]
    swept = [f"{key}={values.get(key, '5,6')}" for key in MANY[:6]]
    assert len("-".join(MANY)) > LONGEST_NAME
    name = name_sweep(["-m", *[f"{key}={values.get(key, '5,6')}" for key in MANY]])[-1].removeprefix("sweep_name=")
    assert len(name) <= LONGEST_NAME
    assert RULES["sweep_name"].accept(name) == name
    assert re.fullmatch(r"data\.batch_size-.*-[0-9a-f]{8}", name)
    long = [f"+optimizer.{'x' * 190}=1,2", "seed=0,1"]
    assert RULES["sweep_name"].accept(name_sweep(["-m", *long])[-1].removeprefix("sweep_name="))
    assert "runs" in succeeded(warmed().call("train.py", *settings, "-m", *swept[:2], "dry_run=true"))


def test_names_that_are_short_enough_keep_all_their_words():
    swept = [f"{key}=1,2" for key in MANY[:8]]
    words = sorted(MANY[:8])
    assert name_sweep(["-m", *swept])[-1].startswith(f"sweep_name={'-'.join(words)}-")


def test_sweeps_whose_names_are_cut_are_still_told_apart():
    swept = [f"{key}=1,2" for key in MANY]
    assert name_sweep(["-m", *swept]) != name_sweep(["-m", *swept[:-1], f"{MANY[-1]}=1,3"])


# --- keys of another option ---------------------------------------------------------------------------------

SWEPT = {
    "model=conditional,conditional_conv model.prior=learned": 2,
    "model=conditional,conditional_conv model.prior=standard,learned": 4,
    "beta=warmup,cyclical beta.fraction=0.5": 2,
    "experiment=conditional_z2,conditional_z32 model.prior=learned": 2,
    "scheduler=step,exponential scheduler.gamma=0.5": 2,
    "optimizer=sgd,sgd optimizer.momentum=0.5": 1,
    "model=conditional,conditional_conv model.prior=learned seed=0,1": 4,
}


@pytest.mark.parametrize(("arguments", "runs"), SWEPT.items(), ids=SWEPT)
@pytest.mark.one_in(4)
def test_a_key_that_all_swept_options_have(study, arguments, runs):
    settings = [s for s in study.settings if not s.startswith("model.hidden_dim")]
    said = succeeded(warmed().call("train.py", *settings, "-m", *arguments.split(), "dry_run=true"))
    assert f"{runs} run{'s' * (runs > 1)}\n" in said


ONLY = {
    "-m model=base,conditional model.prior=learned": ["model.prior: ", "model=base has no such key",
        "choose model=conditional or conditional_conv or conditional_residual"],
    "-m beta=constant,warmup beta.fraction=0.5": ["beta.fraction: ", "beta=constant has no", "cyclical or warmup"],
    "model.prior=learned": [
        "model.prior: ", "choose model=conditional or conditional_conv or conditional_residual"],
    "model=conv model.norm_order=bn_relu": ["model.norm_order: ", "model=conv has no", "choose model=beta"],
    "scheduler=cosine scheduler.gamma=0.1": ["scheduler.gamma: ", "choose scheduler=exponential or step"],
    "likelihood.sigma=0.1": ["likelihood.sigma: ", "choose likelihood=gaussian"],
    "-m experiment=baseline,conditional_z2 model.prior=learned": ["model.prior: ", "choose model=conditional"],
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), ONLY.items(), ids=ONLY)
@pytest.mark.one_in(4)
def test_a_key_that_only_some_options_have_says_which(study, arguments, words):
    settings = [s for s in study.settings if not s.startswith("model.hidden_dim")]
    before = snapshot(study.outputs)
    refused(warmed().call("train.py", *settings, *arguments.split(), "dry_run=true"), *words)
    assert snapshot(study.outputs) == before


def test_putting_off_changes_no_sweep_that_composes():
    """Else the names of sweeps' runs, or what a search remembers, would change."""
    keys = {"model.latent_dim", "model.hidden_dim"}
    for typed in (
        "-m model=base,conv model.latent_dim=3",
        "-m seed=0,1 model.hidden_dim=3",
        "model=conditional model.prior=learned",
    ):
        assert put_off(typed.split(), lambda chosen: keys) == typed.split()
    assert put_off(["-m", "model=base,conv", "model.x=[1,2]"], lambda chosen: set())[-1] == "model.x=choice([1,2])"


@pytest.mark.parametrize("failure", [ValueError, KeyError])
def test_putting_off_leaves_what_it_cannot_compose_to_hydra(failure):
    def failing(chosen):
        raise failure

    arguments = ["-m", "model=base,conv", "model.prior=x"]
    assert put_off(arguments, failing) == arguments


@pytest.mark.parametrize("value", ["null", ""])
def test_no_value_is_not_put_off(value):
    arguments = ["-m", "scheduler=step,exponential", f"scheduler.gamma={value}"]
    assert put_off(arguments, lambda chosen: set()) == arguments


@pytest.mark.slow
def test_a_key_of_all_options_that_a_named_sweep_is_given(study):
    """Its file, and no -m, makes it a sweep."""
    settings = [s for s in study.settings if not s.startswith("model.hidden_dim")]
    arguments = ["sweep=quick", "model=conditional,conditional_conv", "model.prior=learned", "dry_run=true"]
    assert "12 runs" in succeeded(warmed().call("train.py", *settings, *arguments))


@pytest.mark.slow
def test_ones_own_options_beside_swept_ones(study, tmp_path):
    """The keys that there are follow from the folder of configs, too."""
    for group, text in {
        "experiment": "# @package _global_\nseed: 7\n",
        "optimizer": "_target_: torch.optim.Adamax\nlr: 1e-3\nweight_decay: 0.0\n",
        "model": "_target_: fmvae.models.BaseVAE\n_name_: mine\nlatent_dim: 2\nhidden_dim: 3\n",
    }.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(text)
    settings = [s for s in study.settings if not s.startswith("model.hidden_dim")]
    train = [*settings, f"--config-dir={tmp_path}", "-m", "dry_run=true", "sweep_name=s"]
    said = succeeded(warmed().call("train.py", *train, "experiment=mine", "model=base,conv", "trainer.epochs=1"))
    assert "2 runs" in said
    assert "-s7-" in said
    said = succeeded(warmed().call("train.py", *train, "optimizer=mine", "model=base,beta", "optimizer.lr=1e-4"))
    assert "2 runs" in said
    refused(
        warmed().call("train.py", *settings, f"--config-dir={tmp_path}", "experiment=mine", "model.depht=3"),
        "depht",
    )


@pytest.mark.slow
def test_the_runs_of_such_a_sweep_are_those_of_its_single_commands(study):
    settings = [s for s in study.settings if not s.startswith("model.hidden_dim")]
    said = succeeded(
        warmed().call(
            "train.py",
            *settings,
            "-m",
            "model=conditional,conditional_conv",
            "model.prior=learned",
            "dry_run=true",
        )
    )
    for model in ("conditional", "conditional_conv"):
        alone = succeeded(
            warmed().call("train.py", *settings, f"model={model}", "model.prior=learned", "dry_run=true")
        )
        (name,) = re.findall(rf"{model}-b1-z2-s0-[0-9a-f]{{8}}", alone)
        assert name in said


# --- hints that lead somewhere ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("removed", "example"),
    [
        ("~model.hidden_dim", "model.hidden_dim=<a whole number >= 1>"),
        (
            "~model",
            "model=base (or beta, conditional, conditional_conv, conditional_residual, conv, gated, residual)",
        ),
        ("~trainer.epochs", "trainer.epochs=<a whole number >= 1>"),
        ("~seed", "seed=<a whole number >= 0>"),
        (
            "~objective",
            "objective=<neg_elbo, iwae, fid, accuracy or a number's tag, as fid/pixels/kid or a list of such>",
        ),
    ],
)
@pytest.mark.one_in(3)
def test_a_key_that_is_needed_says_what_to_write(study, removed, example):
    settings = [s for s in study.settings if not s.startswith("model.hidden_dim")]
    refused(warmed().call("train.py", *settings, removed), removed, example)


def test_a_models_file_without_a_name_says_what_to_write(study, tmp_path):
    file = tmp_path / "model" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("_target_: fmvae.models.BaseVAE\nlatent_dim: 2\nhidden_dim: 8\n")
    arguments = [f"--config-dir={tmp_path}", "model=mine"]
    refused(warmed().call("train.py", *study.settings, *arguments), "model._name_: ", "`_name_: mine`")
    file.write_text(file.read_text() + "_name_: mine\n")
    assert "mine-b1-z2-s0-" in succeeded(warmed().call("train.py", *study.settings, *arguments, "dry_run=true"))


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("seed=${hydra:job.num}", ["seed: ", "${hydra:job.num}"]),
        ("seed=${oc.env:NOPE}", ["seed: ", "'NOPE' not found"]),
        ("seed=${nope}", ["seed: ", "'nope' not found"]),
        ("latent_dim.value=${oc.env:NOPE}", ["latent_dim.value: ", "'NOPE' not found"]),
        ("trainer.epochs=${oc.env:NOPE}", ["trainer.epochs: ", "'NOPE' not found"]),
    ],
)
@pytest.mark.parametrize("swept", [False, True], ids=["one", "swept"])
@pytest.mark.one_in(5)
def test_an_interpolation_is_blamed_where_it_is_written(study, argument, words, swept):
    more = ["-m", "optimizer.lr=1e-3,1e-4"] if swept else []
    refused(warmed().call("train.py", *study.settings, argument, *more), *words)

"""conf/: every option of every group composes and builds; every experiment is its row of the reference table."""

import inspect
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fmvae.common.trees import flat
from fmvae.config import compose
from fmvae.config.building import build, find_class
from fmvae.config.composing import sweep_jobs
from fmvae.config.identity import RunIdentity, semantic
from fmvae.config.schema import RULES, walk
from fmvae.models import VAE
from fmvae.objectives import BetaSchedule, Likelihood
from fmvae.report.literature import is_of_the_literature
from fmvae.report.reference import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [(path.parent.name, path.stem) for path in sorted(ROOT.glob("conf/*/*.yaml"))]
GROUPS = sorted({group for group, _ in OPTIONS})


@pytest.fixture(scope="module")
def composed(tmp_path_factory) -> dict[tuple[str, str], dict[str, Any]]:
    """The config of each option, with the defaults of all other groups. Not to be changed."""
    folder = tmp_path_factory.mktemp("own")
    images = np.arange(40 * 28 * 28).reshape(40, 28, 28).astype(np.uint8)
    np.savez(folder / "own.npz", images=images, labels=np.arange(40) % 4)
    (folder / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "pictures" / f"{i}.png")
    own = {("data", "arrays"): folder / "own.npz", ("data", "image_folder"): folder / "pictures"}
    roots = {option: [f"data.root={path}"] for option, path in own.items()}
    return {option: compose(["=".join(option), *roots.get(option, [])]) for option in OPTIONS}


def options(group: str) -> list[str]:
    return [option for where, option in OPTIONS if where == group]


def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(2))]


# --- every option -----------------------------------------------------------------------------------------------


def test_the_groups_are_those_of_the_design():
    of_the_design = {"model", "beta", "latent_dim", "data", "trainer", "optimizer", "evaluation", "experiment"}
    assert of_the_design <= set(GROUPS)
    assert set(options("model")) >= {
        "base",
        "conv",
        "beta",
        "conditional",
        "conditional_conv",
        "residual",
        "conditional_residual",
    }
    assert set(options("beta")) == {"constant", "warmup", "cyclical", "capacity"}
    assert set(options("latent_dim")) >= {"z2", "z10", "z32", "z64"}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(composed, group, option):
    config = composed[group, option]
    assert not [path for path, value in walk(config) if isinstance(value, str) and "${" in value]
    assert RunIdentity.of(config).sha256
    if group == "model":
        assert config[group]["_name_"] == option, "a run's name says which option it is of"


@pytest.mark.parametrize(("group", "default"), [("loss", "elbo"), ("prior", "standard")])
def test_a_runs_name_tells_the_loss_and_the_prior(composed, group, default):
    words = {option: composed[group, option][group].get("_name_", "") for option in options(group)}
    assert words.pop(default) == ""
    assert all(words.values())
    assert len(set(words.values())) == len(words)
    for option, word in words.items():
        assert RunIdentity.of(composed[group, option]).name.startswith(f"base-{word}-b1-z2-s0-")


@pytest.mark.parametrize("group", ["evaluation", "figures"])
def test_the_options_of_evaluate_compose(group):
    for option in options(group):
        assert compose([f"{group}={option}", "run=x"], "evaluate")[group] == compose([f"{group}={option}"])[group]


@pytest.mark.parametrize("latent_dim", [1, 2, 10])
@pytest.mark.parametrize("option", options("model"))
@pytest.mark.one_in(3)
def test_every_model_builds_and_maps_images_to_images(option, latent_dim):
    model = build(compose([f"model={option}", f"latent_dim={latent_dim}"])["model"], "model", VAE)
    x, labels = torch.rand(3, 1, 28, 28), torch.tensor([0, 4, 9])
    output = model(x, labels)
    assert output.logits.shape == x.shape
    assert output.mu.shape == output.logvar.shape == output.z.shape == (3, latent_dim)


@pytest.mark.parametrize("option", options("beta"))
def test_every_schedule_builds_and_ends_at_its_value(option):
    schedule = build(compose([f"beta={option}", "beta=3"])["beta"], "beta", BetaSchedule)
    assert schedule.weight(1.0) == 3.0
    assert all(0 <= schedule.weight(step / 100) <= 3 for step in range(101))


@pytest.mark.parametrize("option", options("likelihood"))
def test_every_likelihood_builds(option):
    likelihood = build(compose([f"likelihood={option}"])["likelihood"], "likelihood", Likelihood)
    x = torch.rand(3, 1, 28, 28)
    assert likelihood.nll(torch.zeros_like(x), x).isfinite().all()


@pytest.mark.parametrize("scheduler", options("scheduler"))
@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.one_in(2)
def test_every_optimizer_builds_with_every_scheduler(optimizer, scheduler):
    config = compose([f"optimizer={optimizer}", f"scheduler={scheduler}"])
    built = build(config["optimizer"], "optimizer", Optimizer, params=parameters())
    assert built.param_groups[0]["lr"] == config["optimizer"]["lr"]
    if not config["scheduler"]:
        assert scheduler == "none"
        return
    stepped = build(config["scheduler"], "scheduler", LRScheduler, optimizer=built)
    assert isinstance(stepped, ReduceLROnPlateau) == (scheduler == "plateau")


def test_the_cosine_ends_with_training():
    assert compose(["scheduler=cosine", "trainer.epochs=7"])["scheduler"]["T_max"] == 7


@pytest.mark.parametrize("option", options("latent_dim"))
def test_latent_dimensions_are_what_their_names_say(option):
    config = compose([f"latent_dim={option}"])
    assert f"z{config['latent_dim']['value']}" == option
    assert config["model"]["latent_dim"] == config["latent_dim"]["value"]


@pytest.mark.parametrize("option", options("data"))
def test_every_dataset_takes_the_keys_of_its_file(option, composed):
    node = composed["data", option]["data"]
    taken = inspect.signature(find_class(node["_target_"])).parameters
    assert {*node} - {"_target_"} == {*taken} - {"device"}


@pytest.mark.parametrize("option", [name for name in options("data") if name.startswith("fashion_mnist")])
def test_every_form_of_fashion_mnist_builds(option, small_data):
    """With files of another size; the classes and the shape are its own. For other data see tests/experiments."""
    config = compose([f"data={option}", "data.val_size=100", "data.num_train=500", "data.num_test=300", "seed=5"])
    ours = small_data()
    files = {"root": str(ours.root), "sha256": ours.sha256, "download": False}
    data = build(config["data"] | files, "data", type(ours))
    assert (len(data.train), len(data.val), len(data.test)) == (400, 100, 300)
    assert config["data"]["seed"] == 5


def test_the_small_dataset_is_a_tenth():
    small, full = (compose([f"data={option}"])["data"] for option in ("fashion_mnist_small", "fashion_mnist"))
    changed = {key: value for key, value in small.items() if value != full[key]}
    assert changed == {"num_train": 6000, "num_test": 1000, "val_size": 600}
    assert small.keys() == full.keys()


def test_every_rule_is_of_a_key_there_is(composed):
    """A rule of a key that was renamed would check nothing."""
    everything = [*composed.values(), compose(["run=x"], "evaluate"), compose([], "classifier")]
    assert set(RULES) <= {path for config in everything for path, _ in walk(config)}


def test_every_number_of_ours_has_a_rule(composed):
    derived = {"model.latent_dim", "model.num_classes", "data.seed", "scheduler.T_max"}
    for (group, _), config in composed.items():
        if group not in ("experiment", "evaluation"):  # of many groups; of a group in it
            for name, value in config[group].items():
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                assert not is_number or f"{group}.{name}" in RULES.keys() | derived, f"{group}.{name}"


def test_no_number_is_a_text(composed):
    """As 1e-3 is in YAML, for want of a dot."""
    for config in composed.values():
        texts = [value for _, value in walk(config) if isinstance(value, str)]
        assert not [text for text in texts if re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?", text)]


def test_composing_twice_is_composing_once():
    """Hydra's state is global; the notebook composes many times, and inside a program, too."""
    assert compose() == compose() == compose(["beta=1"])
    assert compose(["beta=2"])["beta"]["value"] == 2.0
    assert compose() != compose(["beta=2"])


def test_composing_needs_no_program():
    """As in a notebook, where nothing has made the project's own interpolations known."""
    OmegaConf.clear_resolver("fmvae.project")
    assert Path(compose()["output_root"]) == ROOT / "outputs"


# --- experiments ------------------------------------------------------------------------------------------------

STUDY = {"epochs": 30, "batch_size": 128, "beta": ("Constant", 1.0)}
# the reference table: model, latent dimensions, and where it departs from the study of the first rows
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "baseline": {"model": "BaseVAE", "latent_dim": 2},
    "low_beta": {"model": "BaseVAE", "latent_dim": 2, "beta": ("Constant", 0.5)},
    "wide_latent": {"model": "BaseVAE", "latent_dim": 10},
    "conv_z2": {"model": "ConvVAE", "latent_dim": 2, "beta": ("Constant", 0.5)},
    "conv_z10": {"model": "ConvVAE", "latent_dim": 10},
    "conditional_z2": {"model": "ConditionalVAE mlp", "latent_dim": 2},
    "conditional_z32": {"model": "ConditionalVAE conv", "latent_dim": 32, "epochs": 40, "beta": ("Warmup", 1.0)},
    "beta_vae": {"model": "BetaVAE", "latent_dim": 10, "beta": ("Constant", 4.0), "epochs": 20, "batch_size": 64},
}


def row(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as the reference table has it."""

    def named(group: str) -> str:
        return config[group]["_target_"].rpartition(".")[2]

    return {
        "model": f"{named('model')} {config['model'].get('backbone', '')}".strip(),
        "latent_dim": config["model"]["latent_dim"],
        "beta": (named("beta"), config["beta"]["value"]),
        "epochs": config["trainer"]["epochs"],
        "batch_size": config["data"]["batch_size"],
    }


# those of published likelihoods; on black and white images, so no rows of the table
PROTOCOLS = {"nll_mlp": "StandardPrior", "nll_mlp_vamp": "VampPrior"}

# with the epochs
SHORT = {
    "nll_mlp_short": ("nll_mlp", 150),
    "nll_mlp_vamp_short": ("nll_mlp_vamp", 150),
    "nll_mlp_vamp_300": ("nll_mlp_vamp", 300),
}


# what our own search found, with the prior and the mixture that images are drawn from
SEARCHED = {
    "best_generator": ("ResidualVAE", 64, 0.1, 30, "StandardPrior", (300, 0.9)),
    "best_conditional": ("ConditionalVAE residual", 64, 0.1, 20, "StandardPrior", ([10, 30], 0.7)),
    "best_likelihood": ("ResidualVAE", 32, 1.0, 40, "MixturePrior", ([1, 10, 100], 1.0)),
    "best_likelihood_flow": ("ResidualVAE", 32, 1.0, 40, "FlowPrior", ([1, 10, 100], 1.0)),
}


def test_every_experiment_has_a_row():
    assert set(options("experiment")) == {*EXPERIMENTS, *PROTOCOLS, *SHORT, *SEARCHED}


@pytest.mark.parametrize("name", SHORT)
def test_a_short_schedule_differs_in_the_schedule_alone(name):
    published, epochs = SHORT[name]
    short, whole = (flat(semantic(compose([f"experiment={each}"]))) for each in (name, published))
    differ = {key for key in {**short, **whole} if short.get(key) != whole.get(key)}
    assert {key for key in differ if not key.startswith("scheduler")} == {
        "beta.fraction",
        "optimizer.lr",
        "trainer.epochs",
    }
    assert (short["trainer.epochs"], short["optimizer.lr"]) == (epochs, 1e-3)
    assert short["beta.fraction"] * epochs == pytest.approx(30)


@pytest.mark.parametrize("name", SEARCHED)
def test_the_best_of_the_search_are_what_the_page_of_results_shows(name):
    config = compose([f"experiment={name}"])
    model, latent_dim, beta, epochs, prior, mixture = SEARCHED[name]
    own = {
        "model": model,
        "latent_dim": latent_dim,
        "beta": ("Constant", beta),
        "epochs": epochs,
        "batch_size": 128,
    }
    assert row(config) == own
    assert config["prior"]["_target_"].rpartition(".")[2] == prior
    assert (config["scheduler"]["_target_"].rpartition(".")[2], config["optimizer"]["lr"]) == (
        "CosineAnnealingLR",
        2e-3,
    )
    assert (config["evaluation"]["gmm"]["num_components"], config["evaluation"]["gmm"]["temperature"]) == mixture


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_likelihoods_protocol_is_the_published_one(name):
    """Norouzi et al. 2020, sec. 5, and its appendix."""
    config = compose([f"experiment={name}"])
    protocol = {"model": "GatedVAE", "latent_dim": 40, "beta": ("Warmup", 1.0), "epochs": 2000, "batch_size": 100}
    assert row(config) == protocol
    assert config["beta"]["fraction"] * config["trainer"]["epochs"] == 100
    assert (config["optimizer"]["_target_"], config["optimizer"]["lr"]) == ("torch.optim.Adam", 5e-4)
    assert (config["data"]["binarize"], config["data"]["val_size"], config["data"]["num_train"]) == (
        "dynamic",
        10_000,
        None,
    )
    assert (config["trainer"]["patience"], config["trainer"]["validate_every"]) == (50, 1)
    assert config["prior"]["_target_"].rpartition(".")[2] == PROTOCOLS[name]
    assert config["prior"].get("num_components", 500) == 500
    assert config["evaluation"]["iwae"] == {"num_samples": 5000, "num_images": 10_000}
    assert config["evaluation"]["fid"]["num_images"] == 0
    model = build(config["model"], "model", VAE)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    hidden = ("encoder.1", "encoder.3", "decoder.0", "decoder.2")
    inputs = (784, 300, 40, 300)
    assert [shapes[f"{name}.weight"] for name in hidden] == [
        (600, num) for num in inputs
    ]  # 300, and as many gates


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_its_row(name):
    config = compose([f"experiment={name}"])
    assert row(config) == STUDY | EXPERIMENTS[name]
    assert (config["optimizer"]["_target_"], config["optimizer"]["lr"]) == ("torch.optim.Adam", 1e-3)
    assert (config["data"]["val_size"], config["data"]["num_train"], config["seed"]) == (6000, None, 0)
    assert config["likelihood"]["_target_"] == "fmvae.objectives.Bernoulli"
    assert bool(config["scheduler"]) == (name == "conditional_z32")
    assert config["evaluation"]["fid"]["num_images"] is None  # all 10,000 test images
    build(config["model"], "model", VAE)


def test_experiments_are_different_runs_and_the_default_is_the_baseline():
    identities = {name: RunIdentity.of(compose([f"experiment={name}"])).sha256 for name in EXPERIMENTS}
    assert len(set(identities.values())) == len(EXPERIMENTS)
    assert RunIdentity.of(compose()).sha256 == identities["baseline"]


@pytest.mark.parametrize("overrides", [["experiment=conv_z2", "beta=3"], ["beta=3", "experiment=conv_z2"]])
def test_the_command_line_wins_over_the_experiment(overrides):
    config = compose([*overrides, "trainer.epochs=2", "latent_dim=7"])
    ours = {"model": "ConvVAE", "latent_dim": 7, "beta": ("Constant", 3.0), "epochs": 2}
    assert row(config) == STUDY | ours
    assert row(compose(["experiment=conv_z2", "model=base"]))["model"] == "BaseVAE"


def test_an_experiment_changes_nothing_that_is_not_in_its_row(composed):
    same = ("figures", "evaluation", "likelihood", "seed", "output_root", "sweep_name", "device")
    default = compose()
    for name in EXPERIMENTS:
        assert all(composed["experiment", name][key] == default[key] for key in same)


# --- the files ---------------------------------------------------------------------------------------------------


def test_no_config_of_a_job_asks_hydra():
    """The notebook composes it without Hydra's own part."""
    for path in ROOT.glob("conf/**/*.yaml"):
        own = path.read_text().partition("\nhydra:")[0]
        assert "${hydra:" not in own, path
        assert "${now:" not in own, path


# --- sweeps ---------------------------------------------------------------------------------------------------

SWEEPS = sorted(path.stem for path in (ROOT / "sweeps" / "sweep").glob("*.yaml"))


def runs_of(sweep: str) -> list[dict]:
    """The config of every job of a sweep, as its file lists them."""
    text = (ROOT / "sweeps" / "sweep" / f"{sweep}.yaml").read_text()
    own, jobs = yaml.safe_load(text)["hydra"]["sweeper"], []
    for grid in own.get("grids", [{}]):
        values = [
            [f"{key}={v}" for v in str(values).split(",")]
            for key, values in (own.get("params", {}) | grid).items()
        ]
        jobs += [[f"sweep={sweep}", *overrides] for overrides in itertools.product(*values)]
    return [compose(job) for job in jobs]


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.one_in(8)
def test_the_jobs_of_a_sweep_are_those_of_its_file(sweep):
    assert [compose(job) for job in sweep_jobs(sweep)] == runs_of(sweep)


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.one_in(8)
def test_a_sweeps_runs_differ_and_share_its_folder(sweep):
    runs = runs_of(sweep)
    assert {config["sweep_name"] for config in runs} == {sweep}
    assert len({RunIdentity.of(config).sha256 for config in runs}) == len(runs) > 1


@pytest.mark.slow
def test_the_studies_hold_the_runs_of_the_results_page():
    """By the same names as single commands give."""

    def names(configs):
        return {RunIdentity.of(config).name for config in configs}

    published = yaml.safe_load(PUBLISHED.read_text())
    assert names(runs_of("vae_study")) == names(
        compose([f"experiment={row}", f"seed={seed}"])
        for row, theirs in published.items()
        for seed in range(3)
        if not is_of_the_literature(theirs)  # hours each
    )
    assert names(runs_of("traversal_study")) == names(
        compose([f"model={model}", "latent_dim=10", f"beta={beta}", "trainer.epochs=20"])
        for model, beta in itertools.product(("base", "conv"), (0.5, 1, 4))
    )

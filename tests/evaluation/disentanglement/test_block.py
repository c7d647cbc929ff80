"""The block ``disentanglement``: its numbers, chance levels, settings, and when it is left out."""

from typing import Any

import numpy as np
import pytest
import torch

from fmvae import rng
from fmvae.assembly import assemble
from fmvae.config import compose
from fmvae.data import ImageData
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator, columns
from fmvae.evaluation import disentanglement as scores
from fmvae.evaluation.measures import disentanglement as measure
from fmvae.evaluation.registry import BUILT_IN, merged, nothing
from fmvae.experiments.search_target import directions
from fmvae.models import VAE, BaseVAE, ConditionalVAE
from fmvae.objectives import ELBO, Bernoulli, Constant
from tests.evaluation.disentanglement.squares import SIDE, Measuring, Squares

SMALL = ["num_groups=40", "group_size=16"]
OFF = ["iwae.num_samples=0", "decomposition.num_samples=0", "latent=false", "fid.num_images=0", "samplers=[]"]
NUMBERS = {
    *("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness", "modularity"),
    *("explicitness", "infom", "infoc", "factor_vae", "beta_vae"),
}


def evaluation(*overrides: str) -> dict[str, Any]:
    own = [f"evaluation.disentanglement.{override}" for override in (*SMALL, *overrides)]
    return compose([*own, *(f"evaluation.{off}" for off in OFF), "evaluation.cache=null"])["evaluation"]


def evaluator(*overrides: str, model: VAE | None = None, data: ImageData | None = None, **given: Any) -> Evaluator:
    made = Measuring() if model is None else model
    objective = ELBO(Bernoulli(), Constant(1.0))
    return Evaluator(made, objective, data or Squares(), seed=0, settings=evaluation(*overrides), **given)


def begun() -> VAE:
    with rng.seeded_init(0):
        return BaseVAE(4, hidden_dim=8, image_shape=(1, SIDE, SIDE))


@pytest.fixture(scope="module")
def block() -> dict[str, Any]:
    return evaluator().compute("disentanglement")


def test_an_encoder_that_measures_the_factors_scores_high_and_shuffled_factors_chance(block):
    chance = block["chance"]
    assert block["factors"] == ["x", "y", "brightness"]
    for name in ("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness", "factor_vae"):
        assert block[name] > 0.85, (name, block)
        assert chance[name] < 0.75 * block[name], name
    assert block["beta_vae"] > chance["beta_vae"] + 0.3
    assert chance["factor_vae"] == chance["beta_vae"] == 1 / 3
    assert np.array(block["mutual_information"]).argmax(0).tolist() == [0, 1, 2]
    assert np.array(block["importance"]).shape == (4, 3)


def test_the_scores_of_the_model_before_training_stand_beside_its_own(block):
    """They are what the measure says of that model, clearly below an encoder that measures the factors."""
    found = evaluator(untrained=begun).compute("disentanglement")
    untrained = found.pop("untrained")
    assert found == block
    alone = evaluator(model=begun()).compute("disentanglement")
    assert untrained == {name: alone[name] for name in NUMBERS}
    assert untrained["mig"] < 0.5 * block["mig"]
    tags = {column.tag for column in evaluator(untrained=begun).measures["disentanglement"].columns}
    assert tags == NUMBERS | {f"{level}/{name}" for level in ("chance", "untrained") for name in NUMBERS}
    made = evaluator(untrained=begun)  # a block of before that lacks the level is measured again
    assert dict(made.measure({"disentanglement": block}))["disentanglement"]["untrained"] == untrained
    whole = {**block, "untrained": {**untrained, "mig": 9.0}}  # control: a whole one is kept
    assert dict(made.measure({"disentanglement": whole}))["disentanglement"] == whole


def test_an_equal_model_before_training_is_scored_once_in_a_process(monkeypatch):
    """As in a sweep, whose runs with one seed begin with the same weights."""
    fits = []
    monkeypatch.setattr(measure, "UNTRAINED", {})
    monkeypatch.setattr(measure, "dci", lambda *own, **named: fits.append(1) or scores.dci(*own, **named))

    def of_another_seed() -> VAE:
        with rng.seeded_init(1):
            return BaseVAE(4, hidden_dim=8, image_shape=(1, SIDE, SIDE))

    first, again, other = (
        evaluator(untrained=made).compute("disentanglement")["untrained"]
        for made in (begun, begun, of_another_seed)
    )
    assert again == first
    assert len(fits) == 3 * 2 + 2  # its own and the shuffled factors', and two of three levels
    assert other != first  # control


def test_a_run_knows_its_model_before_training():
    """The weights are those that the run starts from: not those that it has now."""
    overrides = ["data=sprites", "data.num_train=200", "data.val_size=50", "data.num_test=60", "latent_dim=3"]
    parts = assemble(compose(["model=beta", *overrides, "evaluation=fast"]), torch.device("cpu"))
    start = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    for parameter in parts.model.parameters():
        parameter.data.add_(1)  # training
    assert parts.evaluator.context.untrained
    made = parts.evaluator.context.untrained().state_dict()
    assert all(torch.equal(made[name], start[name]) for name in made)
    assert not all(torch.equal(made[name], trained) for name, trained in parts.model.state_dict().items())


def test_its_numbers_are_those_of_the_functions(block):
    data, model = Squares(), Measuring()
    order = torch.randperm(108, generator=torch.Generator().manual_seed(0))
    assert data.train.factors is not None
    codes, factors = model.encode(data.train.images[order] / 255)[0].detach(), data.train.factors[order]
    for name in ("mig", "modularity", "infom", "infoc"):
        assert block[name] == pytest.approx(getattr(scores, name)(codes, factors), abs=1e-6), name
        shuffled = factors[:, [1, 2, 0]].flip(0)
        assert block["chance"][name] == pytest.approx(getattr(scores, name)(codes, shuffled), abs=0.2), name


def test_every_number_has_a_column_and_every_column_a_number(block):
    tags = {tag for tag, _ in columns.numbers(block)}
    assert tags == NUMBERS | {f"chance/{name}" for name in NUMBERS}
    assert tags == {column.tag for column in evaluator().measures["disentanglement"].columns}
    directed = {column.tag for column in columns.BLOCKS["disentanglement"] if column.direction == "higher"}
    assert directed == NUMBERS
    assert directions(compose(["objective=disentanglement/mig"])) == ("maximize",)


def test_it_repeats_with_any_number_of_threads_and_from_its_settings(block):
    off = nothing(evaluation())
    settings = off | merged(off, BUILT_IN["disentanglement"].again("disentanglement", block["settings"]))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        again = Evaluator(Measuring(), ELBO(Bernoulli(), Constant(1.0)), Squares(), seed=7, settings=settings)
        assert again.compute("disentanglement") == block
    finally:
        torch.set_num_threads(threads)
    assert block["settings"] == {"num_train": 108, "num_test": 108, "num_groups": 40, "group_size": 16, "seed": 0}
    other = evaluator("seed=1").compute("disentanglement")
    assert other["chance"] != block["chance"]  # negative control
    (kept,) = [known for name, known in evaluator().measure({"disentanglement": block}) if name != "test"]
    assert kept == block


def notes(*overrides: str, **others: Any) -> list[str]:
    made = evaluator(*overrides, **others)
    assert ("disentanglement" in made.plan()) is not any(
        str(note).startswith("disentanglement is left out") for note in made.context.notes
    )
    return [str(note) for note in made.context.notes]


def test_what_it_cannot_measure_is_left_out_in_one_line(small_data):
    assert notes() == []
    flat = {"image_shape": (1, SIDE, SIDE), "hidden_dim": 8}
    (note,) = notes(model=BaseVAE(1, **flat))
    assert note == "disentanglement is left out: it compares latent dimensions, and the model has one"
    plain = small_data()
    (note,) = notes("num_train=50", data=plain, model=BaseVAE(2, hidden_dim=8))
    assert note == "disentanglement is left out: the data have no factors"
    made = evaluator(data=plain, model=BaseVAE(2, hidden_dim=8))  # by default nobody asked for it
    assert (list(made.plan()), made.context.notes) == (["test"], [])
    assert list(evaluator("num_train=0").plan()) == ["test"]
    assert compose(["evaluation=fast"])["evaluation"]["disentanglement"]["num_train"] == 0
    single = Squares()
    single.factor_sizes = (6, 1, 1)
    (note,) = notes(data=single)
    assert "fewer than two" in note


def test_without_rendering_two_scores_are_left_out(monkeypatch):
    monkeypatch.setattr(Squares, "render", ImageData.render)
    made = evaluator()
    (note,) = made.context.notes
    assert note == "the scores of FactorVAE and beta-VAE are left out: the data cannot render given factors"
    found = made.compute("disentanglement")
    assert {column.tag for column in made.columns()} >= {"disentanglement/mig"}
    assert {"factor_vae", "beta_vae"}.isdisjoint({*found, *found["chance"]})
    tags = {tag for tag, _ in columns.numbers(found)}
    assert tags == {column.tag for column in made.measures["disentanglement"].columns}
    monkeypatch.undo()
    assert evaluator("num_groups=0").context.notes == []
    labelled = ConditionalVAE(2, hidden_dim=8, image_shape=(1, SIDE, SIDE))
    said = evaluator(model=labelled).context.notes
    assert any(str(note).endswith("rendered images have no labels, which this model needs") for note in said)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "num_train=109",
            r"^evaluation.disentanglement.num_train: 109 images of a split that holds 108; give fewer",
        ),
        ("num_test=2000", r"^evaluation.disentanglement.num_test: 2000 "),
        ("group_size=1", r"^evaluation.disentanglement.group_size: 1 "),
        ("num_test=1", r"^evaluation.disentanglement.num_test: 1 "),
        ("seed=-1", r"^evaluation.disentanglement.seed: -1 "),
    ],
)
def test_sizes_that_do_not_fit_are_refused(override, words):
    with pytest.raises(ConfigError, match=words):
        evaluator(override)

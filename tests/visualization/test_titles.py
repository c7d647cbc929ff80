"""No text of a figure is cut off, however long the model's name is; titles break where a reader would."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from fmvae.config import compose
from fmvae.models import BaseVAE, ConditionalVAE, VampPrior
from fmvae.visualization import (
    Source,
    class_accuracy,
    confusion_matrix,
    describe_model,
    measure_figures,
    pseudo_inputs,
    result_figures,
)
from fmvae.visualization.tiles import new_figure, set_title
from tests.visualization.helpers import seeded, visualizer

LONG = (
    "conditional_conv, factor, vamp, z = 32, β = 1 (warmup), continuous Bernoulli, statically binarised, epoch 30"
)
HISTORY = [{"epoch": 1, "beta": 1.0, "train/objective": 3.0, "train/recon": 2.0, "train/kl": 1.0}]


# what samples are drawn from, at its longest
SAMPLERS = {
    "gmm": "a mixture of 100 Gaussians fitted to q(z) of each class",
    "aggregate": "q(z) of each class, the training images' posteriors",
}


def cut_off(figure: Figure) -> float:
    """How many inches of what the figure shows lie beyond one of its edges; 0 if nothing does."""
    figure.draw_without_rendering()
    shown = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    beyond = max(-shown.x0, -shown.y0, shown.x1 - width, shown.y1 - height)
    return max(0.0, beyond - 0.02)  # of a line's width


def test_a_title_that_is_cut_off_is_seen():
    for place in ("figure", "panel"):
        figure = new_figure(6, 4)
        axes = figure.subplots()
        figure.suptitle(LONG) if place == "figure" else axes.set_title(LONG)
        assert cut_off(figure) > 0.5
    set_title(figure := new_figure(6, 4), LONG)
    assert cut_off(figure) == 0


@pytest.mark.parametrize(
    ("kind", "latent_dim"), [("conditional", 2), ("base", 1), ("base", 12), ("vamp", 2), ("vamp", 12), ("base", 2)]
)
@pytest.mark.one_in(6)
def test_no_figure_of_a_run_is_cut_off(kind, latent_dim, small_data):
    data = small_data()
    model = seeded(ConditionalVAE if kind == "conditional" else BaseVAE, latent_dim, hidden_dim=8)
    if kind == "vamp":
        model.latent_prior = VampPrior((1, 28, 28), 5)
    shows = visualizer(model)
    shows.name = LONG
    changes = {"manifold_side": 2, "only": None}
    settings = compose(["figures=all"])["figures"] | changes
    drawn = 0

    def draw(num: int, labels: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(num, latent_dim, generator=generator)

    sources = {name: lambda told=told: Source(told, draw) for name, told in SAMPLERS.items()}
    for name, figure in result_figures(shows, data, HISTORY, settings, None, sources):
        if name.startswith("latent_manifold_class_") and name[-1] != "9":
            continue  # ten of a kind
        assert cut_off(figure) == 0, name
        drawn += 1
    assert drawn >= 8 + len(SAMPLERS)


def test_no_figure_of_measures_is_cut_off():
    shows = visualizer(seeded(ConditionalVAE, 2, hidden_dim=8))
    shows.name = LONG
    side = {"confusion": np.diag(range(1, 11)).tolist(), "num_images": 4500}
    block = {"generated": side, "real": side, "settings": {"extractor_sha256": "f" * 64}}
    settings = compose(["figures=default"])["figures"]
    figures = dict(measure_figures(shows, {"accuracy": block}, settings))
    few = {"mutual_information": np.eye(2), "importance": np.eye(2), "factors": ["garment", "brightness"]}
    of_factors = torch.tensor([[0, 1], [1, 0]])
    figures |= dict(measure_figures(shows, {"disentanglement": few}, settings, of_factors))
    assert "factor_information" in figures
    figures["few classes"] = confusion_matrix(np.eye(3), "abc", f"Predictions: {LONG}")
    figures["few bars"] = class_accuracy([1, 1, 1], [1, 1, 1], "abc", f"Accuracy: {LONG}")
    vamp = seeded(BaseVAE, 2, hidden_dim=8)
    vamp.latent_prior = VampPrior((1, 28, 28), 1)
    narrow = visualizer(vamp)
    narrow.name = LONG
    figures["narrow"] = pseudo_inputs(narrow)
    for name, figure in figures.items():
        assert cut_off(figure) == 0, name


def test_lines_break_after_the_colon_and_at_commas():
    def title(text: str, width: float = 6) -> str:
        figure = new_figure(width, 3)
        set_title(figure, text)
        return figure.get_suptitle()

    assert title("Samples: base, z = 2") == "Samples: base, z = 2"  # it fits
    assert title("Samples from the prior of a long name: base, tc, z = 2, β = 1", 4) == (
        "Samples from the prior of a long name\nbase, tc, z = 2, β = 1"
    )
    lines = title(f"Traversal\n{LONG}").split("\n")
    assert lines[0] == "Traversal"
    assert " ".join(lines[1:]) == LONG  # nothing is lost
    assert len(lines) > 2
    assert all(line.endswith(",") for line in lines[1:-1])
    wider = title(f"Traversal\n{LONG}", 20).split("\n")
    assert wider == ["Traversal", LONG]


def test_names_say_what_is_not_usual_in_the_likelihood_and_the_data():
    def name(*overrides: str) -> str:
        return describe_model(compose(list(overrides)))

    assert name() == name("likelihood=bernoulli") == "base, z = 2, β = 1"
    words = {
        "continuous_bernoulli": "continuous Bernoulli",
        "gaussian": "Gaussian",
        "gaussian_learned": "learned Gaussian",
        "laplace": "Laplace",
    }
    for option, said in words.items():
        assert name(f"likelihood={option}") == f"base, z = 2, β = 1, {said}"
    assert name("data.binarize=dynamic") == "base, z = 2, β = 1, dynamically binarised"
    assert name("data.binarize=static") == "base, z = 2, β = 1, statically binarised"
    config = compose([])
    for target, said in {"own.MSE": "MSE", "own.StudentT": "student T", "own.plain": "plain"}.items():
        assert describe_model(config | {"likelihood": {"_target_": target}}).endswith(f", {said}")
    del config["likelihood"], config["data"]["binarize"]  # as an older run
    assert describe_model(config) == "base, z = 2, β = 1"

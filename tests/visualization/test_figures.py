"""A finished run gets the pictures that fit its model, under stable names, and looking changes nothing."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fmvae.config import compose
from fmvae.data import CLASS_NAMES
from fmvae.data.split import Split
from fmvae.errors import ConfigError
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.visualization import (
    FigureObserver,
    check_figures,
    describe_model,
    measure_figures,
    result_animations,
    result_figures,
)
from tests.visualization.helpers import global_states, seeded, shown, tick_labels, tile_at, visualizer

ALWAYS = {
    "reconstructions",
    "samples",
    "latent_scatter",
    "kl_per_dimension",
    "traversal_prior",
    "traversal_posterior",
    "interpolations",
    "training_curves",
}
CONDITIONAL = {"class_samples", "style_transfer"}
HISTORY = [{"epoch": 1, "beta": 1.0, "train/objective": 3.0, "train/recon": 2.0, "train/kl": 1.0}]


@pytest.fixture(scope="module")
def data(small_data):
    return small_data()


def settings(option: str = "default", **changes) -> dict:
    return compose([f"figures={option}"])["figures"] | {"manifold_side": 2} | changes


def shows(latent_dim: int = 3, *, conditional: bool = False):
    return visualizer(seeded(ConditionalVAE if conditional else BaseVAE, latent_dim, hidden_dim=8))


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
@pytest.mark.parametrize("conditional", [False, True])
def test_every_figure_that_fits_is_drawn(latent_dim, conditional, data):
    names = [
        name for name, _ in result_figures(shows(latent_dim, conditional=conditional), data, HISTORY, settings())
    ]
    assert len(names) == len(set(names))
    expected = ALWAYS | (CONDITIONAL if conditional else set())
    if latent_dim == 2:
        expected |= {f"latent_manifold_class_{c}" for c in range(10)} if conditional else {"latent_manifold"}
    assert set(names) == expected


def test_every_class_has_a_traversal_if_asked_from_its_first_image(data):
    figures = dict(result_figures(shows(), data, HISTORY, settings("all", only=["traversal"])))
    assert set(figures) == {f"traversal_class_{c}" for c in range(10)}
    for c in range(10):
        first = int((data.test.labels == c).nonzero()[0])
        original = tile_at(shown(figures[f"traversal_class_{c}"], 0), 0, 0)
        np.testing.assert_allclose(original, data.test.images[first, 0] / 255)
        assert CLASS_NAMES[c] in figures[f"traversal_class_{c}"].get_suptitle()
    names = {name for name, _ in result_figures(shows(), data, HISTORY, settings("all"))}
    assert names == ALWAYS | set(figures)


def test_none_draws_nothing(data):
    assert not list(result_figures(shows(2), data, HISTORY, settings("none")))
    assert not list(result_animations(shows(2), data, settings("none")))
    assert settings("none")["projector"] == 0


@pytest.mark.parametrize("option", ["none", "all"])
def test_options_have_the_same_keys(option):
    default, other = settings(), settings(option)
    assert other.keys() == default.keys()
    assert other["traversal"].keys() == default["traversal"].keys()


def test_only_what_is_asked_for_is_drawn(data, monkeypatch):
    def drawn(*names: str, conditional: bool = False) -> list[str]:
        chosen = settings(only=list(names))
        return [name for name, _ in result_figures(shows(2, conditional=conditional), data, HISTORY, chosen)]

    assert drawn("samples", "traversal_prior") == ["samples", "traversal_prior"]
    assert drawn("traversal_class_3") == ["traversal_class_3"]
    assert drawn("latent_manifold") == ["latent_manifold"]
    assert drawn("latent_manifold", conditional=True) == [f"latent_manifold_class_{c}" for c in range(10)]
    assert drawn() == []
    model = shows()
    monkeypatch.setattr(model, "posteriors", lambda *_: pytest.fail("nothing needs them"))
    assert len(list(result_figures(model, data, HISTORY, settings(only=["samples"])))) == 1


@pytest.mark.parametrize("name", ["smaples", "latent_manifold", "style_transfer", "confusion_matrix", "", 3, None])
def test_a_figure_that_does_not_fit_is_an_error_before_any_is_drawn(name, data):
    chosen, model = settings(only=["samples", name]), shows(3)
    for ask in (
        lambda: result_figures(model, data, HISTORY, chosen),  # at the call, no figure is asked for yet
        lambda: check_figures(model, data, chosen),
    ):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert caught.value.subject == "figures.only"
        assert repr(name) in caught.value.problem
        assert "choose from reconstructions, samples, " in caught.value.way_out
        assert "traversal_class_<label>" in caught.value.way_out
        assert "style_transfer" not in caught.value.way_out
    check_figures(shows(2, conditional=True), data, settings(only=["style_transfer", "confusion_matrix"]))


def test_a_dimension_that_does_not_exist_is_an_error_before_any_figure_is_drawn(data):
    chosen = settings()
    chosen["traversal"]["dimensions"] = [3]
    with pytest.raises(ConfigError, match=r"dimension 3 .* z = 3 .*give 0 to 2"):
        result_figures(shows(3), data, HISTORY, chosen)


def test_few_test_images_are_enough(small_data):
    data = small_data(num_test=1)
    names = {name for name, _ in result_figures(shows(3, conditional=True), data, HISTORY, settings())}
    assert names == (ALWAYS | CONDITIONAL) - {"interpolations"}


def test_the_first_image_of_a_class_is_meant_though_other_classes_are_missing(small_data):
    whole = small_data().test
    two = Split("test", whole.images[:6], torch.tensor([3, 3, 5, 3, 5, 5]))  # round-robin goes round three times
    data = SimpleNamespace(test=two, num_classes=10, labelled=True, factor_names=())
    figures = dict(result_figures(shows(), data, HISTORY, settings(only=["traversal"])))  # type: ignore[arg-type]
    assert set(figures) == {"traversal_class_3", "traversal_class_5"}
    for c, index in ((3, 0), (5, 2)):
        original = tile_at(shown(figures[f"traversal_class_{c}"], 0), 0, 0)
        np.testing.assert_allclose(original, two.images[index, 0] / 255)


def test_traversals_follow_the_settings(data):
    chosen = settings(only=["traversal_prior", "traversal_posterior"])
    chosen["traversal"] |= {"span": 1.5, "steps": 7, "dimensions": [2, 0]}
    for name, figure in result_figures(shows(3), data, HISTORY, chosen):
        axes = figure.axes[-1]
        assert tick_labels(axes.xaxis)[0] == "-1.5"
        assert shown(figure, len(figure.axes) - 1).shape == (2 * 29, 7 * 29), name


def test_known_posteriors_are_used(data, monkeypatch):
    model = shows()
    posteriors = model.posteriors(data.test)
    monkeypatch.setattr(model, "posteriors", lambda *_: pytest.fail("they are known"))
    assert {name for name, _ in result_figures(model, data, HISTORY, settings(), posteriors)} == ALWAYS
    assert list(result_animations(model, data, settings(), posteriors))


def test_the_animation_goes_with_its_figure(data):
    ((name, content),) = result_animations(shows(), data, settings())
    assert name == "traversal_prior.gif"
    assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 32  # 17 values there and back
    assert not list(result_animations(shows(), data, settings(gif=False)))
    assert not list(result_animations(shows(), data, settings(only=["samples"])))
    assert len(list(result_animations(shows(), data, settings(only=["traversal_prior"])))) == 1


def test_looking_at_everything_leaves_no_trace(data):
    model = seeded(ConditionalVAE, 2, hidden_dim=8).train()
    model.get_submodule("mu").eval()  # a layer in a mode of its own keeps it
    modes = [layer.training for layer in model.modules()]
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = global_states()
    list(result_figures(visualizer(model), data, HISTORY, settings("all")))
    list(result_animations(visualizer(model), data, settings()))
    assert global_states() == states
    assert [layer.training for layer in model.modules()] == modes
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    assert not torch.is_inference_mode_enabled()
    torch.rand(1)
    assert global_states() != states  # a draw would have been seen


def test_titles_name_the_run_and_the_epoch(data):
    config = compose(["model=conditional_conv", "latent_dim=32", "beta=0.5"])
    assert describe_model(config) == "conditional_conv, z = 32, β = 0.5"
    assert describe_model(compose(["beta=warmup", "beta.value=4"])) == "base, z = 2, β = 4 (warmup)"
    model = shows(2, conditional=True)
    model.name = describe_model(config)
    later = model.at_epoch(7)
    assert model.name == "conditional_conv, z = 32, β = 0.5"  # the first keeps its own
    for name, figure in result_figures(later, data, HISTORY, settings("all")):
        titles = figure.get_suptitle() + figure.axes[0].get_title()
        assert name == "training_curves" or "conditional_conv, z = 32, β = 0.5, epoch 7" in titles, name


def test_during_training_every_few_epochs_are_seen_with_their_epoch(data):
    seen = []
    recorder = SimpleNamespace(glance=lambda name, figure, step: seen.append((name, step, figure.get_suptitle())))
    observer = FigureObserver(shows(), data, recorder, settings(every=2))  # type: ignore[arg-type]
    for epoch in range(1, 7):
        observer.on_epoch_end(SimpleNamespace(epoch=epoch, epochs=6), {})
    assert [(name, step) for name, step, _ in seen] == [
        (name, step) for step in (2, 4) for name in ("reconstructions", "samples")
    ]
    assert all(title.endswith(f"epoch {step}") for _, step, title in seen)


def test_measured_accuracies_become_a_matrix_and_bars(caplog):
    counts = np.diag(range(10))
    confusion = (counts + np.roll(counts, 1, axis=1)).tolist()  # half of each class but the first
    per_class = {f"name of then {c}": 0.0 for c in range(10)}  # names may have been others
    block = {
        "generated": {"confusion": confusion, "per_class": per_class, "num_images": 4500},
        "real": {"confusion": confusion, "per_class": per_class, "num_images": 9000},
        "settings": {"extractor_sha256": "f" * 64},
    }
    model = shows(3, conditional=True)
    figures = dict(measure_figures(model, {"accuracy": block, "test": {}}, settings()))
    assert list(figures) == ["confusion_matrix", "class_accuracy"]
    texts = [text.get_text() for text in figures["confusion_matrix"].axes[0].texts]
    assert texts[::11] == [str(count) for count in range(10)]
    heights = [bar.get_height() for bar in figures["class_accuracy"].axes[0].containers[0]]  # type: ignore
    np.testing.assert_array_equal(heights, [np.nan, *[0.5] * 9])
    for figure in figures.values():
        assert "FashionResNet18 (ffffffffff)" in figure.get_suptitle()
        assert "4,500 generated images" in figure.get_suptitle()
    assert not dict(measure_figures(model, {"test": {}}, settings()))
    assert not caplog.text
    assert not dict(measure_figures(model, {"test": {}}, settings(only=["class_accuracy"])))
    assert "class_accuracy shows an accuracy, which evaluation.accuracy.num_per_class=500 measures" in caplog.text
    assert list(dict(measure_figures(model, {"accuracy": block}, settings(only=["class_accuracy"])))) == [
        "class_accuracy"
    ]

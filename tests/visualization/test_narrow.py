"""No text is cut off where figures are narrow: few classes, one latent, few images, a small width."""

import numpy as np
import pytest
import torch

from fmvae.config import compose
from fmvae.data import ImageData
from fmvae.models import BaseVAE, ConditionalVAE, VampPrior
from fmvae.objectives import Bernoulli
from fmvae.visualization import Source, VAEVisualizer, measure_figures, result_figures
from fmvae.visualization.appearance import Appearance, appearing
from fmvae.visualization.curves import classifier_curves
from fmvae.visualization.factors import factor_matrix
from fmvae.visualization.tiles import new_figure, set_note, set_title
from tests.visualization.helpers import seeded
from tests.visualization.test_titles import SAMPLERS, cut_off

SHAPE = (3, 8, 8)
NAMES = ("a class with a long name of several words", "green square", "circle")
WORD = "a_model_of_ones_own_whose_name_has_no_place_to_break_a_line_at"
TURNED = 0.05  # inches of turned names that matplotlib's layout misses beside panels of fixed proportions
EPOCHS = [
    {"epoch": epoch, "beta": 1.0 * epoch, "lr": 1e-3}
    | {f"{split}/{name}": 400.0 / epoch for split in ("train", "val") for name in names}
    for names in (("objective", "recon", "kl", "loss", "accuracy"),)
    for epoch in (1, 2)
]


def few_images(labelled: bool) -> ImageData:
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    if not labelled:
        return ImageData.from_arrays(images, num_test=3, val_size=3)
    return ImageData.from_arrays(images, np.arange(24) % 3, NAMES, num_test=3, val_size=3)


def figures_of_a_run(kind: str, latent_dim: int, name: str):
    data = few_images(kind != "unlabelled")
    if kind == "conditional":
        model = seeded(ConditionalVAE, latent_dim, hidden_dim=8, image_shape=SHAPE, num_classes=3)
    else:
        model = seeded(BaseVAE, latent_dim, hidden_dim=8, image_shape=SHAPE)
    if kind == "vamp":
        model.latent_prior = VampPrior(SHAPE, 1)
    shows = VAEVisualizer(model, Bernoulli(), class_names=data.class_names, name=name)
    settings = compose(["figures=all"])["figures"] | {"manifold_side": 2, "only": None, "num_samples": 3}

    def draw(num: int, labels: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(num, latent_dim, generator=generator)

    told = SAMPLERS["gmm"]
    yield from result_figures(shows, data, EPOCHS, settings, None, {"gmm": lambda: Source(told, draw)})
    if kind == "conditional":
        side = {"confusion": np.diag(range(1, 4)).tolist(), "num_images": 30}
        block = {"generated": side, "real": side, "settings": {"extractor_sha256": "f" * 64}}
        yield from measure_figures(shows, {"accuracy": block}, settings)
        yield "classifier_curves", classifier_curves(EPOCHS)
        yield "factor_information", factor_matrix([[0.5]], ["shape"], f"Mutual information\n{name}")


@pytest.mark.parametrize(
    ("kind", "latent_dim", "name", "width"),
    [
        ("conditional", 1, "conditional, z = 1, β = 1", None),
        ("vamp", 2, WORD, 3.0),
        ("unlabelled", 3, WORD, None),
        ("conditional", 2, WORD, 3.0),
    ],
)
@pytest.mark.one_in(4)
def test_no_text_of_a_narrow_figure_is_cut_off(kind, latent_dim, name, width):
    """Own widths are narrow by the number of classes, the user's by ``figures.width``."""
    with appearing(Appearance(width=width)):
        figures = figures_of_a_run(kind, latent_dim, name)
        cut = {each: beyond for each, figure in figures if (beyond := cut_off(figure)) > TURNED}
    assert not cut


def test_a_note_that_is_cut_off_is_seen():
    """Control: as the label of an axis, the same words are cut off."""
    said = "class given to the decoder (framed: the image's own class, its reconstruction)"
    figure = new_figure(3, 3)
    figure.subplots().set_xlabel(said)
    assert cut_off(figure) > 0.5
    figure = new_figure(3, 3)
    figure.subplots()
    set_note(figure, said)
    assert cut_off(figure) == 0
    assert figure.get_supxlabel().replace("\n", " ") == said  # its colon, too
    assert figure.get_figheight() > 3  # its lines take nothing from the panel


def test_a_word_is_broken_only_if_no_space_is_left_to_break_at():
    def title(text: str) -> list[str]:
        set_title(figure := new_figure(3, 3), text)
        return figure.get_suptitle().split("\n")

    assert title("Samples from the prior mean of a model") == ["Samples from the prior mean of", "a model"]
    broken = title(f"Samples of {WORD}")
    assert broken[0] == "Samples of"
    assert "".join(broken[1:]) == WORD
    assert title("KL: base\nMI: mutual information of a dimension and the image")[1].startswith("MI: ")

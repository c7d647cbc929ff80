"""A decoder as operations for a page: the model's images, for any model that it can take, and refusals by name."""

import json

import pytest
import torch
from torch import nn

from fmvae.errors import RunError
from fmvae.explore import packing
from fmvae.explore.content import content_of
from fmvae.explore.graph import decoder, traced
from fmvae.explore.lowering import Lowering
from fmvae.explore.page import page_of
from fmvae.explore.program import Program
from fmvae.models import VAE
from fmvae.objectives import Bernoulli, ContinuousBernoulli, LearnedGaussian
from tests.explore.helpers import MODELS, decoded, stirred, subject


def program_of(model: VAE, likelihood=None) -> Program:
    labels = range(3) if model.conditional else [None]
    graphs = [traced(decoder(model, likelihood or Bernoulli(), label), model.latent_dim) for label in labels]
    return Lowering(graphs, model.latent_dim, model.image_shape).lowered()


@pytest.mark.parametrize("name", MODELS)
def test_operations_give_the_images_of_the_model(name: str):
    model = stirred(MODELS[name]())
    program, z = program_of(model), torch.randn(50, model.latent_dim)
    for label in range(3) if model.conditional else [0]:
        labels = torch.full((50,), label) if model.conditional else None
        wanted = decoded(subject(model), z, labels)
        assert wanted.std(0).max() > 1e-3  # images differ, so that a constant does not pass
        torch.testing.assert_close(program.run(z, label), wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("likelihood", [ContinuousBernoulli(), LearnedGaussian()])
def test_the_likelihood_gives_the_mean(likelihood):
    model, z = stirred(MODELS["base"]()), torch.randn(20, 4)
    wanted = decoded(subject(model, likelihood=likelihood), z)
    torch.testing.assert_close(program_of(model, likelihood).run(z), wanted, atol=5e-6, rtol=0)


class Own(VAE):
    """A user's model, with a choice of decoders."""

    def __init__(self, layers):
        super().__init__(4, (1, 8, 8))
        self.layers = layers
        self.heads = nn.Linear(64, 8)

    def encode(self, x, labels=None):
        return self.heads(x.flatten(1)).chunk(2, 1)

    def decode(self, z, labels=None):
        return self.layers(z).reshape(-1, 1, 8, 8)


def wide(*layers) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 32), nn.Unflatten(1, (2, 4, 4)), *layers)


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 16), nn.Linear(20, 64)

    def forward(self, z):
        return self.second(torch.cat([z, self.first(z).relu()], 1))


class Odd(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(4, 64), function

    def forward(self, z):
        return self.function(self.linear(z))


TAKEN = {
    "skip": Skip(),
    "upsampling": wide(nn.Upsample(scale_factor=2), nn.Conv2d(2, 1, 3, 1, 1), nn.ELU()),
    "shuffle": wide(nn.Conv2d(2, 4, 3, 1, 1, groups=2), nn.PixelShuffle(2)),
    "dilated": wide(nn.ConvTranspose2d(2, 2, 3, 2, 2, 1, groups=2, dilation=2), nn.Conv2d(2, 1, 1), nn.GELU()),
    "leaky": nn.Sequential(
        nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.LayerNorm(16), nn.Linear(16, 64), nn.Softplus()
    ),
    "clipped": nn.Sequential(nn.Linear(4, 64), nn.Hardtanh(-0.2, 0.3), nn.GELU("tanh")),
    "flipped": Odd(lambda x: (x.flip(1) * x - 0.5 * x.clamp(min=0.1)) / (1 + x.square())),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_model_of_ones_own_needs_nothing_more(name: str):
    model, z = stirred(Own(TAKEN[name])), torch.randn(30, 4)
    torch.testing.assert_close(program_of(model).run(z), decoded(subject(model), z), atol=5e-6, rtol=0)


REFUSED = {
    "softmax": (nn.Sequential(nn.Linear(4, 64), nn.Softmax(1)), "_softmax"),
    "a matrix that depends on z": (Odd(lambda x: (x.view(-1, 8, 8) @ x.view(-1, 8, 8)).flatten(1)), "bmm"),
    "a branch": (Odd(lambda x: x * 5 if x.mean() > 0.02 else x), "more than z"),
    "noise": (Odd(lambda x: x + torch.rand_like(x)), "more than z|rand"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_page_cannot_run_is_refused_in_one_line(name: str):
    layers, named = REFUSED[name]
    with pytest.raises(RunError, match=named) as refused:
        content_of([subject(stirred(Own(layers)))])
    assert "the decoder of Own has an operation that the explorer cannot run" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_are_stored_in_float16_unless_that_is_seen(monkeypatch):
    def kinds(model: VAE) -> set[str]:
        content, _ = content_of([subject(model)])
        return {constant["type"] for constant in content["runs"][0]["program"]["constants"]}

    model = stirred(MODELS["conv"]())
    assert kinds(model) == {"f16"}
    monkeypatch.setattr(packing, "TOLERANCE", 1e-5)
    assert "f32" in kinds(model)
    monkeypatch.undo()
    with torch.no_grad():
        model.get_parameter("decoder.0.weight").mul_(3e5)  # beyond float16
        model.get_parameter("decoder.3.weight").div_(3e5)
    assert "f32" in kinds(model)


def test_a_run_of_other_images_is_not_shown_beside_the_first():
    first, other = subject(MODELS["base"](), "first", "a"), subject(MODELS["base_rgb"](), "other", "b")
    with pytest.raises(RunError, match="its test images are not those of first"):
        content_of([first, other])


def test_text_of_a_run_is_data_and_no_markup():
    bad = "</script><img src=x onerror=alert(1)>"
    page = page_of([subject(MODELS["base"](), bad, names=(bad, "b", "c"))], [(bad, bad)])
    assert bad not in page
    assert page.count("</script>") == 3  # the page's own
    start = page.index('id="data">') + len('id="data">')
    data = json.loads(page[start : page.index("</script>", start)])
    assert data["wholeNames"][0] == bad
    assert bad.startswith(data["classes"][0].rstrip("…"))

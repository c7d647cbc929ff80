"""fmvae.models.residual: blocks, shapes, and a second implementation of a whole pass."""

from collections.abc import Iterator
from math import copysign
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fmvae.config import compose
from fmvae.errors import ConfigError
from fmvae.models import ConditionalVAE, ResidualVAE
from fmvae.models.residual import ResidualBlock, normalization
from fmvae.objectives import vae_loss
from fmvae.rng import seeded_init
from tests.models.layers import num_parameters, table


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with seeded_init(0):
        yield


both_norms = pytest.mark.parametrize("norm", ["group", "batch"])


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scattered(module: Any, seed: int = 1) -> Any:
    """In float64, and each parameter and running statistic away from what it starts at: nothing is 0 or 1."""
    module = module.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor += 0.2 * torch.rand(tensor.shape, dtype=tensor.dtype, generator=generator)
                assert not name.endswith("running_var") or tensor.min() > 0
    return module


# --- a block, from its weights ------------------------------------------------------------------------------


def normalized(w: dict[str, Tensor], name: str, x: Tensor, groups: int) -> Tensor:
    """By the formula: over each group of channels of an image, or by the running statistics if there are any."""
    if f"{name}.running_mean" in w:
        mean, var = (w[f"{name}.running_{key}"].view(1, -1, 1, 1) for key in ("mean", "var"))
    else:
        grouped = x.reshape(len(x), groups, -1)
        mean, var = grouped.mean(2), grouped.var(2, unbiased=False)
        mean, var = (s.repeat_interleave(x.shape[1] // groups, 1)[:, :, None, None] for s in (mean, var))
    weight, bias = (w[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("weight", "bias"))
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def block_by_hand(w: dict[str, Tensor], name: str, x: Tensor, groups: int) -> Tensor:
    hidden = silu(normalized(w, f"{name}norm", x, groups))
    patches = F.unfold(hidden, 3, padding=1)  # (B, C * 9, H * W)
    kernel = w[f"{name}squeeze.weight"].flatten(1)
    hidden = silu(kernel @ patches + w[f"{name}squeeze.bias"][:, None])
    out = w[f"{name}expand.weight"][:, :, 0, 0] @ hidden
    return x + out.view_as(x) + w.get(f"{name}expand.bias", torch.zeros(x.shape[1])).view(1, -1, 1, 1)


@both_norms
@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (12, 1), (8, 2), (16, 4), (3, 1), (1, 1)])
def test_a_block_is_that_of_a_second_implementation(norm, channels, groups):
    block = scattered(ResidualBlock(channels, norm)).eval()
    x = draws(3, channels, 5, 7)
    with torch.no_grad():
        found, w = block(x), block.state_dict()
        torch.testing.assert_close(found, block_by_hand(w, "", x, groups), rtol=0, atol=1e-10)
        # negative controls: the 1x1 convolution without its activation's input scaled, and no skip, are told apart
        w = {**w, "squeeze.bias": w["squeeze.bias"] + 1e-6}
        assert not torch.allclose(found, block_by_hand(w, "", x, groups), rtol=0, atol=1e-10)
        assert not torch.allclose(found - x, block_by_hand(block.state_dict(), "", x, groups), atol=1e-3)


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (3, 1), (7, 1), (8, 2), (9, 1), (10, 2), (24, 2), (32, 8), (64, 8), (100, 1)]
)
def test_groups_are_equal_at_most_8_and_of_at_least_4_channels_where_there_are_as_many(channels, groups):
    norm = normalization("group", channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


@both_norms
def test_a_block_starts_as_the_identity_and_learns_not_to_be(norm):
    with seeded_init(0):
        block = ResidualBlock(16, norm)
    x = torch.randn(4, 16, 6, 6)
    assert torch.equal(block(x), x)
    (block(x).square().sum()).backward()
    optimizer = torch.optim.SGD(block.parameters(), lr=1e-3)
    optimizer.step()
    assert not torch.allclose(block(x), x)


@both_norms
def test_the_depth_does_not_matter_at_first(norm):
    with seeded_init(0):
        shallow, deep = ResidualVAE(3, 8, 1, norm), ResidualVAE(3, 8, 3, norm)
    # the norm and activation after the blocks are numbered by the depth, and start alike
    own, own_deep = shallow.state_dict(), deep.state_dict()
    shared = [name for name in own if name in own_deep and "_half." not in name and "_quarter." not in name]
    assert len(shared) == (11 if norm == "batch" else 14)  # of the layers beside the blocks; biases of three vary
    deep.load_state_dict({name: own[name] for name in shared}, strict=False)
    x, z = torch.rand(4, 1, 28, 28), torch.randn(4, 3)
    assert torch.equal(shallow.encode(x)[0], deep.encode(x)[0])
    assert torch.equal(shallow.decode(z), deep.decode(z))
    with torch.no_grad():  # negative control
        deep.get_parameter("backbone.up_half.1.expand.weight").add_(1e-2)
    assert not torch.equal(shallow.decode(z), deep.decode(z))


# --- a whole pass -------------------------------------------------------------------------------------------


def pass_by_hand(
    model: Any, x: Tensor, z: Tensor, one_hot: Tensor, width: int, depth: int
) -> tuple[Tensor, Tensor]:
    """Mu and logits; ``one_hot`` (B, 0) for a model without labels."""
    w = model.backbone.state_dict()
    groups = {width: normalization("group", width), 2 * width: normalization("group", 2 * width)}

    def maps(h: Tensor) -> Tensor:
        return torch.cat([h, one_hot[:, :, None, None].expand(-1, -1, *h.shape[2:])], 1)

    def blocks(name: str, h: Tensor) -> Tensor:
        norm: Any = groups[h.shape[1]]
        for i in range(depth):
            h = block_by_hand(w, f"{name}.{i}.", h, norm.num_groups)
        return silu(normalized(w, f"{name}.{depth}", h, norm.num_groups))

    def weights(name: str) -> tuple[Tensor, Tensor | None]:
        return w[f"{name}.weight"], w.get(f"{name}.bias")

    height, breadth = x.shape[2] // 4, x.shape[3] // 4
    h = blocks("down_half", F.conv2d(maps(x), *weights("stem"), stride=2, padding=1))
    h = blocks("down_quarter", F.conv2d(maps(h), *weights("down"), stride=2, padding=1))
    mu = model.mu(torch.cat([h.flatten(1), one_hot], 1))
    h = F.linear(torch.cat([z, one_hot], 1), *weights("expand.0")).view(-1, 2 * width, height, breadth)
    h = F.conv_transpose2d(maps(blocks("up_quarter", h)), *weights("up"), stride=2, padding=1)
    return mu, F.conv_transpose2d(maps(blocks("up_half", h)), *weights("out"), stride=2, padding=1)


SIZES = [(8, 1, (1, 28, 28)), (4, 2, (3, 32, 32)), (3, 1, (2, 12, 20))]


@both_norms
@pytest.mark.parametrize(("width", "depth", "image_shape"), SIZES)
def test_a_pass_is_that_of_a_second_implementation(norm, width, depth, image_shape):
    model = scattered(ResidualVAE(3, width, depth, norm, image_shape)).eval()
    x, z = draws(4, *image_shape).sigmoid(), draws(4, 3)
    with torch.no_grad():
        mu, logits = pass_by_hand(model, x, z, x.new_zeros(4, 0), width, depth)
        torch.testing.assert_close(model.encode(x)[0], mu, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(model.decode(z), logits, rtol=1e-10, atol=1e-10)
        assert not torch.allclose(model.decode(z.flip(0)), logits)


@both_norms
@pytest.mark.parametrize(("width", "depth", "image_shape"), SIZES)
def test_a_conditional_pass_is_that_of_a_second_implementation(norm, width, depth, image_shape):
    options: Any = {"backbone": "residual", "width": width, "depth": depth, "norm": norm}
    model = scattered(ConditionalVAE(3, 5, image_shape=image_shape, **options)).eval()
    x, z, labels = draws(4, *image_shape).sigmoid(), draws(4, 3), torch.tensor([0, 4, 2, 2])
    one_hot = torch.eye(5, dtype=torch.float64)[labels]
    with torch.no_grad():
        mu, logits = pass_by_hand(model, x, z, one_hot, width, depth)
        torch.testing.assert_close(model.encode(x, labels)[0], mu, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(model.decode(z, labels), logits, rtol=1e-10, atol=1e-10)
        wrong_mu, wrong_logits = pass_by_hand(model, x, z, one_hot.flip(0), width, depth)
        assert not torch.allclose(mu, wrong_mu)
        assert not torch.allclose(logits, wrong_logits)


@both_norms
@pytest.mark.parametrize("conditional", [False, True])
def test_gradients_are_those_of_finite_differences(norm, conditional):
    """Of the −ELBO in training mode, by each parameter, along one random direction each."""
    shape = (2, 8, 8)
    made: Any = (
        ConditionalVAE(2, 3, "residual", image_shape=shape, width=4, norm=norm)
        if conditional
        else ResidualVAE(2, 4, 2, norm, shape)
    )
    model = scattered(made)
    x, noise, labels = draws(5, *shape).sigmoid(), draws(5, 2, seed=3), torch.tensor([0, 2, 1, 1, 0])

    def loss() -> Tensor:
        out = model(x, labels if conditional else None, noise=noise)
        return vae_loss(out.logits, x, out.mu, out.logvar)[0]

    loss().backward()
    parameters = dict(model.named_parameters())
    for i, (name, parameter) in enumerate(parameters.items()):
        direction, step = draws(*parameter.shape, seed=10 + i), 1e-5
        assert parameter.grad is not None
        wanted = (parameter.grad * direction).sum().item()
        sides = []
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * step)
                sides.append(loss().item())
                parameter.add_(direction, alpha=-sign * step)
        found = (sides[0] - sides[1]) / (2 * step)
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6), name
        assert found != pytest.approx(wanted * 1.001 + copysign(1e-3, wanted), rel=1e-5, abs=1e-6), (
            name
        )  # negative control


@both_norms
def test_no_norm_takes_a_parameter_out_again(norm):
    """The gradient of such a parameter would be rounding errors, which Adam scales to its learning rate."""
    model = scattered(ResidualVAE(2, 4, 2, norm, (2, 8, 8)))
    x, noise = draws(5, 2, 8, 8).sigmoid(), draws(5, 2, seed=3)

    def smallest() -> float:
        model.zero_grad()
        out = model(x, noise=noise)
        vae_loss(out.logits, x, out.mu, out.logvar)[0].backward()
        return min(parameter.grad.abs().max().item() for parameter in model.parameters())

    assert smallest() > 1e-4
    if norm == "batch":  # negative control
        model.backbone.down.bias = nn.Parameter(draws(8))
        assert smallest() < 1e-10


# --- shapes -------------------------------------------------------------------------------------------------


def counted(
    z: int, width: int, depth: int, channels: int, num_pixels: int, num_classes: int = 0, bias: int = 1
) -> int:
    def block(c: int) -> int:
        return 2 * c + (c * (c // 2) * 9 + c // 2) + ((c // 2) * c + bias * c)

    def convolution(inputs: int, outputs: int, bias: int = bias) -> int:
        return inputs * outputs * 16 + bias * outputs

    wide, k = 2 * width, num_classes
    trunk = 2 * (depth * (block(width) + block(wide)) + 2 * width + 2 * wide)
    down = convolution(channels + k, width) + convolution(width + k, wide)
    up = convolution(wide + k, width) + convolution(width + k, channels, 1)
    flat = wide * num_pixels
    return trunk + down + up + 2 * ((flat + k) * z + z) + ((z + k) * flat + flat)


@pytest.mark.parametrize("z", [2, 32])
def test_the_number_of_parameters_is_that_counted_by_hand(z):
    assert num_parameters(ResidualVAE(z)) == counted(z, 32, 1, 1, 49, bias=0)
    assert num_parameters(ResidualVAE(z, 16, 3, "group", (3, 32, 32))) == counted(z, 16, 3, 3, 64)
    assert num_parameters(ConditionalVAE(z, backbone="residual")) == counted(z, 32, 1, 1, 49, 10, bias=0)


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from([1, 3]),
    st.integers(2, 9).map(lambda n: 4 * n),
    st.integers(2, 9).map(lambda n: 4 * n),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from(["group", "batch"]),
)
def test_any_multiple_of_4_width_and_depth_comes_back_whole(channels, height, breadth, width, depth, norm):
    model = ResidualVAE(2, width, depth, norm, (channels, height, breadth))
    out = model(torch.rand(2, channels, height, breadth))
    assert out.logits.shape == (2, channels, height, breadth)
    assert out.mu.shape == out.logvar.shape == (2, 2)
    assert out.logits.isfinite().all()


def test_the_blocks_work_at_half_and_quarter_resolution_only():
    model = ResidualVAE(2, 8, depth=2)
    seen = []
    for block in model.modules():
        if isinstance(block, ResidualBlock):
            block.register_forward_hook(lambda layer, inputs, output: seen.append(tuple(output.shape[1:])))
    model(torch.rand(1, 1, 28, 28))
    assert seen == [(8, 14, 14)] * 2 + [(16, 7, 7)] * 4 + [(8, 14, 14)] * 2
    assert "BN(8)" in table(ResidualVAE(2, 8, norm="batch"))


def test_group_norm_treats_an_image_alike_in_training_and_evaluation_and_batch_norm_does_not():
    x = torch.rand(4, 1, 28, 28)
    for norm, equal in (("group", True), ("batch", False)):
        model: Any = ResidualVAE(2, 8, norm=norm)  # pyright: ignore[reportArgumentType]
        assert torch.equal(model.train().encode(x)[0], model.eval().encode(x)[0]) == equal


# --- refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_shape", [(1, 30, 28), (1, 28, 29), (3, 2, 2)])
def test_other_sizes_are_an_error_that_names_them(image_shape):
    _, height, width = image_shape
    with pytest.raises(ValueError, match=f"multiples of 4, got {height}x{width}"):
        ResidualVAE(2, image_shape=image_shape)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"width": 0}, "width must be >= 1, got 0"),
    ({"depth": 0}, "depth must be >= 1, got 0"),
    ({"norm": "layer"}, "norm must be one of group, batch, got 'layer'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_arguments_are_errors_that_say_what_is_accepted(options, message):
    with pytest.raises(ValueError, match=message):
        ResidualVAE(2, **options)
    with pytest.raises(ValueError, match=message):
        ConditionalVAE(2, backbone="residual", **options)


@pytest.mark.parametrize("model", ["residual", "conditional_residual"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("width=0", "model.width: 0 is not a whole number >= 1"),
        ("width=2.5", "model.width: 2.5 is not a whole number >= 1"),
        ("depth=0", "model.depth: 0 is not a whole number >= 1"),
        ("depth=1001", "model.depth: 1001 is not a whole number >= 1 and <= 1000"),
        ("norm=layer", "model.norm: 'layer' is not one of group, batch"),
    ],
)
def test_a_config_refuses_them_in_one_line_before_anything_is_built(model, override, message):
    with pytest.raises(ConfigError) as raised:
        compose([f"model={model}", f"model.{override}"])
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
    compose([f"model={model}", "model.width=3", "model.depth=2", "model.norm=batch"])

"""A model's layers as the tables of docs and papers write them, to compare with tables counted by hand."""

from torch import nn

from fmvae.models.priors import Prior


def table(module: nn.Module) -> list[str]:
    """The leaf layers in order: name, then in, out, kernel, stride, padding, and opN for output padding N."""
    leaves = (layer for layer in module.modules() if not list(layer.children()) and not isinstance(layer, Prior))
    return [_row(layer) for layer in leaves]


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _row(layer: nn.Module) -> str:
    match layer:
        case nn.Linear():
            return f"Linear({layer.in_features},{layer.out_features})"
        case nn.Conv2d() | nn.ConvTranspose2d():
            assert layer.groups == 1
            assert layer.dilation == (1, 1)
            sizes = [layer.kernel_size, layer.stride, layer.padding]
            numbers = [layer.in_channels, layer.out_channels, *map(_square, sizes)]
            extra = [f"op{_square(layer.output_padding)}"] if any(layer.output_padding) else []
            name = "Conv" if isinstance(layer, nn.Conv2d) else "ConvT"
            return f"{name}({','.join(map(str, numbers + extra))})"
        case nn.BatchNorm2d():
            return f"BN({layer.num_features})"
        case nn.Unflatten():
            return f"Unflatten({','.join(map(str, layer.unflattened_size))})"
    return type(layer).__name__


def _square(size: object) -> int:
    assert isinstance(size, tuple)
    assert len(set(size)) == 1
    return size[0]

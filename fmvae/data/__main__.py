"""Command line for datasets: fetch one, print its statistics, plot it. ``python -m fmvae.data --help``."""

import argparse
import logging
import sys
from pathlib import Path
from shlex import quote

from fmvae.common.command import run_command, say
from fmvae.common.logs import Terminal
from fmvae.common.text import typed_path as path
from fmvae.config import compose
from fmvae.config.building import build
from fmvae.data import Arrays, FashionMNISTManager, ImageData, ImageFolder
from fmvae.data.named import NamedData
from fmvae.data.sources import load_dataset
from fmvae.errors import ConfigError, DataError


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0, or 1 after an error message of one line."""
    parser = argparse.ArgumentParser(prog="python -m fmvae.data", description="Fetch, count and draw a dataset.")
    parser.add_argument(
        "command",
        choices=("fetch", "stats", "check", "eda"),
        help="fetch: find or download the files and verify them; stats: print statistics per split; "
        "check: plot a labelled 5x5 batch; eda: print statistics and plot all figures",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="data=<option>",
        help="another dataset than Fashion-MNIST, and overrides of its keys, as for train.py: data=sprites, "
        "data.num_train=1000",
    )
    parser.add_argument("--root", help="folder with the four IDX files (default: the usual folders)")
    parser.add_argument("--to", help="folder to download the files into; created if missing")
    parser.add_argument("--no-download", action="store_true", help="fail instead of downloading")
    parser.add_argument("--seed", type=int, default=0, help="seed of the train/validation split (default 0)")
    parser.add_argument("--output", type=path, default=Path("outputs/eda"), help="folder for figures and events")
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Terminal()])
    try:
        return _command(options)
    except DataError as error:  # name the options of this command instead of config keys
        way_out = error.way_out.replace("data.root=", "--root=").replace("data.download_to=", "--to=")
        raise DataError(error.subject.replace("data.root", "--root"), error.problem, way_out) from None


def _command(options: argparse.Namespace) -> int:
    download = not options.no_download
    if options.command == "fetch":
        if options.overrides:
            return _fetch_chosen(options)
        found = load_dataset(options.root, download=download, download_to=options.to)
        say(f"Fashion-MNIST is in {found.root}, verified:")
        for name, sha256 in found.sha256.items():
            say(f"  {name:<24}  {sha256}")
        return 0
    if options.overrides:
        data = _chosen(options)
    else:
        data = FashionMNISTManager(options.root, download=download, download_to=options.to, seed=options.seed)
    if options.command == "stats":
        _print_stats(data)
        return 0
    from torch.utils.tensorboard import SummaryWriter

    from fmvae.runs.files import write_bytes
    from fmvae.runs.recorder import pixels, render

    with SummaryWriter(str(options.output)) as writer:

        def save(name, figure):
            png = render(figure)
            write_bytes(options.output / f"{name}.png", png)
            writer.add_image(f"eda/{name}", pixels(png), 0, dataformats="HWC")
            say(f"  {options.output / f'{name}.png'}")

        data.sanity_check(save)
        if options.command == "eda":
            _print_stats(data)
            data.perform_eda(save)
    say(f"  TensorBoard: tensorboard --logdir {quote(str(options.output))}")
    return 0


def _fetch_chosen(options: argparse.Namespace) -> int:
    """Find or fetch the dataset that the overrides choose, and say where it is."""
    data = _chosen(options)
    place = f"is in {data.root}" if isinstance(data, NamedData | Arrays | ImageFolder) else "is ready"
    say(f"{type(data).__name__} {place}, verified:")
    for name, sha256 in data.sha256.items():
        say(f"  {name:<24}  {sha256}")
    return 0


def _chosen(options: argparse.Namespace) -> ImageData:
    """Build the dataset that the overrides choose."""
    for given, name, key in ((options.root, "--root", "root"), (options.to, "--to", "download_to")):
        if given:
            raise ConfigError(name, "an option for Fashion-MNIST, beside overrides", f"give data.{key}={given}")
    if options.no_download:
        raise ConfigError(
            "--no-download", "an option for Fashion-MNIST, beside overrides", "give data.download=false"
        )
    for override in options.overrides:
        if not override.lstrip("+~").startswith(("data.", "data=", "hydra.searchpath=", "allow=")):
            raise ConfigError(override, "no override of the dataset", "give data=<option> or data.<key>=<value>")
    config = compose([*options.overrides, f"seed={options.seed}"])
    return build(config["data"], "data", ImageData)


def _print_stats(data: ImageData) -> None:
    columns = ("images", "per class", "mean", "std", "min", "max")
    say("".join(f"{name:>16}" if name == "per class" else f"{name:>8}" for name in ("split", *columns)))
    for name, stats in data.report_data_stats().items():
        counts = stats["images_per_class"]
        span = f"{min(counts)} to {max(counts)}" if counts else "no labels"
        span = span if len({*counts}) != 1 else f"{min(counts)}"
        numbers = "".join(f"{stats[f'pixel_{key}']:>8.4f}" for key in ("mean", "std", "min", "max"))
        say(f"{name:>8}{stats['num_images']:>8}{span:>16}{numbers}")
    for name, size in zip(data.factor_names, data.factor_sizes, strict=True):
        say(f"  factor {name}: {size} values")


if __name__ == "__main__":
    sys.exit(main())

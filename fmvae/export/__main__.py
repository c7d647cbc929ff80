"""``python -m fmvae.export outputs/<run>``: write encoder.onnx, decoder.onnx and a README with an example."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from fmvae.common.command import run_command, say
from fmvae.common.logs import Terminal
from fmvae.common.text import short, typed_path
from fmvae.config.own_code import names_in, taken_out
from fmvae.runs.names import run_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a run; print the folder."""
    parser = argparse.ArgumentParser(prog="python -m fmvae.export", description=__doc__)
    parser.add_argument("run", type=run_path, help="a run's directory")
    parser.add_argument(
        "--to", type=typed_path, help="the folder to write; usually export/ in the run's directory"
    )
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--allow", type=names_in, default=[], help="packages of yours, as mymodels,b.c")
    arguments = sys.argv[1:] if arguments is None else arguments

    def export() -> int:
        names, rest = taken_out(arguments)
        given = parser.parse_args(rest)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Terminal()])
        # torch, which --help need not wait for
        from fmvae.export.folder import NAME, export_run
        from fmvae.export.networks import check_installed
        from fmvae.measurement.load import load_run

        check_installed()
        loaded = load_run(given.run, given.checkpoint, "cpu", allow=[*names, *given.allow])
        folder = given.to or loaded.run.path / NAME
        largest = export_run(loaded, folder)
        say(f"{short(folder)}: encoder.onnx, decoder.onnx, README.md; equal to torch up to {largest:.1g}")
        return 0

    return run_command(export)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m fmvae.verify outputs/<run or sweep>``: check that files are intact, and recompute the numbers."""

from __future__ import annotations

import argparse
import sys

from fmvae.common.command import run_command, say
from fmvae.common.text import expand_home
from fmvae.config.own_code import allowing, names_in, taken_out
from fmvae.config.stored import NotAVAE
from fmvae.errors import FmvaeError, HeldError, RunError
from fmvae.runs.directory import find_runs
from fmvae.runs.names import run_path


def main(arguments: list[str] | None = None) -> int:
    """Verify the runs; return 0 if all of them verify, and 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m fmvae.verify", description=__doc__)
    parser.add_argument("folder", nargs="+", type=run_path, help="a run, or a folder of runs")
    parser.add_argument("--files", action="store_true", help="check the files only; recompute nothing")
    parser.add_argument("--device", default="auto", help="where to compute; auto, cpu, cuda, ...")
    parser.add_argument(
        "--data-root", type=expand_home, help="where the dataset is, if not where the run found it"
    )
    parser.add_argument(
        "--allow",
        type=names_in,
        default=[],
        help="packages of yours whose classes a run may name, as mymodels,b.c",
    )
    arguments = sys.argv[1:] if arguments is None else arguments

    def verify_them() -> int:
        names, rest = taken_out(arguments)  # allow=[...], as for train.py and evaluate.py
        given = parser.parse_args(rest)
        with allowing([*names, *given.allow]):
            return _verify_all(given)

    return run_command(verify_them)


def _verify_all(given: argparse.Namespace) -> int:
    from fmvae.measurement.verification import verify  # imports torch

    failed, runs = 0, [run for folder in given.folder for run in find_runs(folder)]
    for run in runs:
        try:
            found = verify(run, recompute=not given.files, device=given.device, data_root=given.data_root)
        except NotAVAE:
            say(f"{run}: a classifier, left out")
            continue
        except HeldError as error:
            say(f"{run}: {error.problem}; left out")
            continue
        except FmvaeError as error:
            failed += 1
            say(f"{run}: {error}")
            continue
        failed += bool(found.problems)
        say(found)
    if failed:
        problem = f"{failed} of {len(runs)} runs do not verify"
        raise RunError("verify", problem, "see the lines above")
    return 0


if __name__ == "__main__":
    sys.exit(main())

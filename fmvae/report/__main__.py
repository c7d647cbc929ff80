"""Pages from run directories: ``python -m fmvae.report outputs/<sweep>``, ``python -m fmvae.report reference``."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from fmvae.config import PROJECT_ROOT
from fmvae.errors import FmvaeError, of_the_machine


def sweep(arguments: list[str]) -> Path:
    """``<folder> ...``: tables, figures and a page of the runs in the folders."""
    parser = argparse.ArgumentParser(
        prog="python -m fmvae.report",
        description="Compare the runs in folders: index.html, table.csv, table.md and figures.",
        epilog="Also: `python -m fmvae.report status <sweep>`, and `... reference`, which writes docs/results.md.",
    )
    parser.add_argument("folder", nargs="+", type=Path, help="of runs; several are merged, equal runs count once")
    parser.add_argument("--to", type=Path, help="the folder to write into; usually report/ in the first folder")
    given = parser.parse_args(arguments)
    from fmvae.report.sweep import write_report

    return write_report(given.folder, given.to)


def reference(arguments: list[str]) -> Path:
    """``reference``: docs/results.md, the published tables beside our own runs."""
    parser = argparse.ArgumentParser(prog="python -m fmvae.report reference", description=reference.__doc__)
    parser.add_argument(
        "folder", nargs="?", default=PROJECT_ROOT / "outputs", type=Path, help="of runs and sweeps"
    )
    parser.add_argument(
        "--to", default=PROJECT_ROOT / "docs", type=Path, help="the folder that results.md goes into"
    )
    given = parser.parse_args(arguments)
    from fmvae.report.reference import write_page

    return write_page(given.folder, given.to, "python -m fmvae.report reference")


def status(arguments: list[str]) -> str:
    """``status <sweep>``: where a sweep stands, also while it runs."""
    parser = argparse.ArgumentParser(prog="python -m fmvae.report status", description=status.__doc__)
    parser.add_argument("folder", type=Path, help="of the sweep")
    given = parser.parse_args(arguments)
    from fmvae.sweeping import status as table

    return table(given.folder)


COMMANDS: dict[str, Callable[[list[str]], object]] = {
    "reference": reference,
    "status": status,
}  # print what they return


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in COMMANDS:
            print(COMMANDS[arguments[0]](arguments[1:]), flush=True)
        else:
            print(sweep(arguments), flush=True)
    except BrokenPipeError:  # as of `... | head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
    except (FmvaeError, OSError) as failed:
        error = failed if isinstance(failed, FmvaeError) else of_the_machine(failed)
        print(f"fmvae: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

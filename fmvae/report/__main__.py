"""Write reports on runs: ``python -m fmvae.report outputs/<sweep>``, ``python -m fmvae.report reference``."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from fmvae.common.command import run_command, say
from fmvae.common.text import typed_path as path
from fmvae.config.project import checkout
from fmvae.runs.names import run_path


def sweep(arguments: list[str]) -> Path:
    """``<folder> ...``: write tables, figures and a page on the runs in the folders."""
    parser = argparse.ArgumentParser(
        prog="python -m fmvae.report",
        description="Compare the runs in folders: index.html, table.csv, table.md and figures.",
        epilog="Also: `python -m fmvae.report status <sweep>`, and `... reference`, which writes docs/results.md.",
    )
    parser.add_argument(
        "folder", nargs="+", type=run_path, help="of runs; several are merged, and equal runs count once"
    )
    parser.add_argument("--to", type=path, help="the folder to write into; usually report/ in the first folder")
    given = parser.parse_args(arguments)
    from fmvae.report.sweep import write_report

    return write_report(given.folder, given.to)


def reference(arguments: list[str]) -> Path:
    """``reference``: write docs/results.md, the published tables beside our own runs."""
    command = "python -m fmvae.report reference"
    parser = argparse.ArgumentParser(prog=command, description=reference.__doc__)
    parser.add_argument(
        "folder", nargs="?", type=path, help="of runs and sweeps; usually outputs/ of the checkout"
    )
    parser.add_argument(
        "--to", type=path, help="the folder that results.md goes into; usually docs/ of the checkout"
    )
    given = parser.parse_args(arguments)
    project = checkout(command, "docs/published.yaml and docs/findings/")
    from fmvae.report.reference import write_page

    return write_page(given.folder or project / "outputs", given.to or project / "docs", command)


def status(arguments: list[str]) -> str | None:
    """``status <sweep>``: print the state of a sweep's runs, also while it runs."""
    parser = argparse.ArgumentParser(prog="python -m fmvae.report status", description=status.__doc__)
    parser.add_argument("folder", type=run_path, help="of the sweep")
    parser.add_argument("--watch", action="store_true", help="print it again and again until all runs have ended")
    given = parser.parse_args(arguments)
    if given.watch:
        from fmvae.sweeps.watching import watch_status

        return watch_status(given.folder)
    from fmvae.common.streams import cut
    from fmvae.sweeps.status import status as table

    return cut(table(given.folder), sys.stdout)


COMMANDS: dict[str, Callable[[list[str]], object]] = {
    "reference": reference,
    "status": status,
}  # their return values are printed


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        named = given and given[0] in COMMANDS
        printed = COMMANDS[given[0]](given[1:]) if named else sweep(given)
        if printed is not None:
            say(printed)
        return 0

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m fmvae.report reference``: docs/results.md from the run directories under outputs/."""

import argparse
import sys
from pathlib import Path

from fmvae.config import PROJECT_ROOT
from fmvae.errors import FmvaeError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fmvae.report", description=__doc__)
    parser.add_argument("page", choices=["reference"], help="the published tables beside our own runs")
    parser.add_argument(
        "folder", nargs="?", default=PROJECT_ROOT / "outputs", type=Path, help="of runs and sweeps"
    )
    parser.add_argument(
        "--to", default=PROJECT_ROOT / "docs", type=Path, help="the folder that results.md goes into"
    )
    given = parser.parse_args(arguments)
    from fmvae.report.reference import write_page

    try:
        page = write_page(given.folder, given.to, "python -m fmvae.report reference")
    except FmvaeError as error:
        print(f"fmvae: error: {error}", file=sys.stderr)
        return 1
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())

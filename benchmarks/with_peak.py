"""Run a script, then write its peak GPU memory in bytes to a file.

python -m benchmarks.with_peak <file> <script> [arguments]
"""

import runpy
import sys
from pathlib import Path

from benchmarks.sides import peak_memory


def main() -> None:
    file, *sys.argv = sys.argv[1:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        Path(file).write_text(str(peak_memory()), encoding="utf-8")


if __name__ == "__main__":
    main()

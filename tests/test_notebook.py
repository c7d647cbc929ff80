"""The notebook: made from its source, and run from top to bottom in a fresh kernel."""

import base64
import io
import math
import os
import re
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from fmvae.data.sources import DEFAULT_ROOT, FILES

ROOT = Path(__file__).resolve().parents[1]
SOURCE, NOTEBOOK = ROOT / "notebooks" / "explore.py", ROOT / "notebooks" / "explore.ipynb"
REMAKE = f".venv/bin/jupytext --to ipynb --update {SOURCE.relative_to(ROOT)}"

# Notes each path that a process opens for writing, makes, renames or removes: other programs write into outputs/
# while tests run, so that a look at the folder before and after could not tell whose a change is.
NOTE_WRITES = """
import os, sys

notes = os.open(os.environ["WRITES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def note(event, arguments):
    folder, paths = "", ()
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        paths = arguments[:1]
    elif event == "os.mkdir":
        paths = arguments[:1]
    elif event in ("os.rename", "os.link", "os.symlink"):
        paths = arguments[:2]
    elif event in ("os.remove", "os.rmdir"):  # by shutil.rmtree relative to an open folder
        paths, descriptor = arguments[:1], arguments[1]
        folder = "" if descriptor == -1 else os.readlink(f"/proc/self/fd/{descriptor}")
    for path in paths:
        if not isinstance(path, int):
            os.write(notes, os.path.abspath(os.path.join(folder, os.fsdecode(path))).encode() + b"\\n")

sys.addaudithook(note)
"""


class Executed(NamedTuple):
    """A notebook with its outputs, and the paths in the project that its kernel wrote to."""

    notebook: NotebookNode
    written: list[Path]

    @property
    def outputs(self) -> list[NotebookNode]:
        return [output for cell in self.notebook.cells for output in cell.get("outputs", [])]

    def streamed(self, name: str) -> str:
        return "".join(o.text for o in self.outputs if o.output_type == "stream" and o.name == name)

    def displayed(self, kind: str) -> list[str]:
        return [output.data[kind] for output in self.outputs if kind in output.get("data", {})]


def execute(notebook: NotebookNode, folder: Path, cwd: Path = ROOT / "docs") -> Executed:
    """Run every cell in a fresh kernel whose temporary files go into ``folder / "tmp"``.

    Raises:
        CellExecutionError: a cell raised an exception.
    """
    (folder / "sitecustomize.py").write_text(NOTE_WRITES)
    (folder / "tmp").mkdir()
    env = os.environ | {
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "IPYTHONDIR": str(folder / "ipython"),
        "TMPDIR": str(folder / "tmp"),
        "WRITES": str(folder / "writes"),
    }
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(cwd)}}
    )
    client.execute(env=env)
    written = [Path(line) for line in (folder / "writes").read_text().splitlines()]
    return Executed(notebook, [path for path in written if path.is_relative_to(ROOT)])


def of_code(*sources: str) -> NotebookNode:
    return new_notebook(cells=[new_code_cell(source) for source in sources])


def cells(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def finite_table(markdown: str) -> dict[str, dict[str, float]]:
    """The numbers of a Markdown table by column and row; all are there and finite."""
    head, _, *body = ([part.strip() for part in line.strip("|").split("|")] for line in markdown.splitlines())
    table = {name: {row[0]: float(row[column]) for row in body} for column, name in enumerate(head) if column}
    assert all(math.isfinite(value) for column in table.values() for value in column.values()), markdown
    return table


def test_the_notebook_is_made_from_its_source():
    """Without outputs, which would make every run of it a change."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert cells(notebook) == cells(jupytext.read(SOURCE)), REMAKE
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")], REMAKE


def test_a_changed_cell_is_noticed():
    changed, shorter = (nbformat.read(NOTEBOOK, as_version=4) for _ in range(2))
    changed.cells[-1].source += "."
    del shorter.cells[1]
    for other in (changed, shorter):
        assert cells(other) != cells(jupytext.read(SOURCE))


def test_an_exception_in_a_cell_is_raised(tmp_path):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(of_code("x = 0", "1 / x"), tmp_path)


def test_what_a_cell_writes_into_the_project_is_noted(tmp_path):
    """By a kernel that stands in another directory; what it appends is nothing."""
    code = f"from pathlib import Path\nopen({str(NOTEBOOK)!r}, 'ab').close()\nprint(Path.cwd())"
    done = execute(of_code(code, f"open({str(NOTEBOOK)!r}).close()"), tmp_path)
    assert done.written == [NOTEBOOK]
    assert done.streamed("stdout").strip() == str(ROOT / "docs")


@pytest.mark.parametrize("value", ["nan", "inf", "not measured"])
def test_a_table_without_a_number_is_refused(value):
    table = "| Test | z = 2 | z = 10 |\n|---|---:|---:|\n| KL | 1.5 | {} |"
    assert finite_table(table.format("-2")) == {"z = 2": {"KL": 1.5}, "z = 10": {"KL": -2.0}}
    with pytest.raises((AssertionError, ValueError)):
        finite_table(table.format(value))


@pytest.mark.real_data
@pytest.mark.skipif(not all((DEFAULT_ROOT / name).exists() for name in FILES), reason="needs `make data`")
@pytest.mark.slow
def test_it_runs_from_top_to_bottom_and_leaves_nothing(tmp_path):
    beside = sorted(NOTEBOOK.parent.rglob("*"))
    done = execute(nbformat.read(NOTEBOOK, as_version=4), tmp_path)

    assert [cell.execution_count for cell in done.notebook.cells if cell.cell_type == "code"][-1]
    assert done.streamed("stderr") == ""
    said = done.streamed("stdout")
    for name in ("base-b1-z2-s0", "base-b1-z10-s0"):
        assert re.search(rf"^training {tmp_path}/tmp/fmvae-\w+/{name}-[0-9a-f]{{8}} on ", said, re.MULTILINE)
        assert re.search(rf"^{name}-[0-9a-f]{{8}}: best checkpoint, epoch \d$", said, re.MULTILINE)
    assert said.count("epoch 3/3 | train objective ") == 2
    assert "the results that training returned: True" in said

    (markdown,) = done.displayed("text/markdown")
    table = finite_table(markdown)
    assert list(table) == ["z = 2", "z = 10"]
    for column in table.values():
        assert list(column) == ["recon", "KL", "−ELBO"]
        assert column["recon"] + column["KL"] == pytest.approx(column["−ELBO"], abs=0.02)
        assert f"{column['−ELBO']:.2f}" in said  # as train() says it
    assert table["z = 2"] != table["z = 10"]

    pictures = done.displayed("image/png")
    assert (
        len(pictures) == 8
    )  # reconstructions, samples twice, traversal; curves, both models' reconstructions, traversals
    for picture in pictures:
        grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
        assert min(grey.shape) > 200
        assert len(np.unique(grey)) > 50

    assert done.written == []
    assert sorted(NOTEBOOK.parent.rglob("*")) == beside
    assert not list((tmp_path / "tmp").glob("fmvae-*"))  # deleted with the kernel, as it says

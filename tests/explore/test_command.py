"""``python -m fmvae.explore``, and ``figures.explorer=true``: what is written where, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fmvae.config import compose
from fmvae.experiments import train
from fmvae.explore.__main__ import main
from fmvae.measurement.evaluate import evaluate_runs
from tests.idx import write_idx_dataset

QUICK = ["evaluation=fast", "evaluation.samplers=[prior]", "evaluation.cache=null", "figures=none"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder of two runs of one epoch, the first with its explorer."""
    root = tmp_path_factory.mktemp("explored")
    sha256 = write_idx_dataset(root / "data", 400, 200)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    data = [f"data.root={root}/data", f"data.sha256={{{digests}}}", "data.download=false", "data.val_size=50"]
    model = ["model=base", "model.hidden_dim=16", "trainer.epochs=1", "device=cpu", f"output_root={root}/outputs"]
    train(compose([*data, *model, *QUICK, "figures.explorer=true"]))
    train(compose([*data, *model, *QUICK, "beta=4"]))
    return root / "outputs"


@pytest.fixture
def runs(trained, tmp_path) -> list[Path]:
    """A copy of the two, by beta."""
    folder = Path(shutil.copytree(trained, tmp_path / "outputs"))
    return [next(folder.glob(f"base-b{beta}-*")) for beta in (1, 4)]


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    return json.loads(text[start : text.index("</script>", start)])


def refusal(capsys, *arguments: Path) -> str:
    """The one line with which the command ends, with status 1 and nothing written."""
    assert main([str(argument) for argument in arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("fmvae: error: ")
    return line


def test_a_run_writes_its_explorer_only_if_asked(runs):
    with_page, without = runs
    assert (with_page / "explorer.html").exists()
    assert not (without / "explorer.html").exists()


def test_measuring_again_makes_the_page_and_no_new_pictures(runs):
    _, run = runs
    before = {path: path.read_bytes() for path in (run / "figures").rglob("*") if path.is_file()}
    evaluate_runs(compose([f"run={run}", *QUICK, "figures.explorer=true"], "evaluate"))
    assert [entry["name"] for entry in data_of(run / "explorer.html")["runs"]] == [run.name]
    assert {path: path.read_bytes() for path in (run / "figures").rglob("*") if path.is_file()} == before


def test_the_command_writes_the_page_of_a_run_and_of_a_folder(runs, capsys):
    run, folder = runs[0], runs[0].parent
    (run / "explorer.html").unlink()
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "explorer.html")
    (shown,) = data_of(run / "explorer.html")["runs"]
    assert shown["facts"][0][0] == "−ELBO"
    assert shown["order"] == sorted(range(2), key=lambda i: -shown["scores"][i])
    assert main([str(folder)]) == 0
    assert [entry["label"] for entry in data_of(folder / "explorer.html")["runs"]] == ["β = 1", "β = 4"]


def test_runs_that_are_damaged_or_foreign_are_refused_in_a_line(runs, tmp_path, capsys):
    run, other = runs
    assert "no such directory" in refusal(capsys, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "no runs in it" in refusal(capsys, tmp_path / "empty")
    weights = run / "checkpoints" / "best.safetensors"
    content = bytearray(weights.read_bytes())
    content[-9] ^= 1
    weights.write_bytes(content)
    (run / "explorer.html").unlink()
    assert "best.safetensors" in refusal(capsys, run)
    assert not (run / "explorer.html").exists()
    assert main([str(run.parent)]) == 0  # the other run is shown, and the page says which is not
    page = data_of(run.parent / "explorer.html")
    assert [entry["name"] for entry in page["runs"]] == [other.name]
    assert [name for name, _ in page["leftOut"]] == [run.name]
    (other / "config.yaml").write_text("a: 1\n", encoding="utf-8")
    assert str(other) in refusal(capsys, other) or "config" in refusal(capsys, other)

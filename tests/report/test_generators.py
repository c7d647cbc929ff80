"""The section on the best generators in docs/results.md: each number is of the sampler that its column names."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fmvae.data import Split
from fmvae.errors import FmvaeError
from fmvae.models import BaseVAE
from fmvae.report import generators
from fmvae.report.findings import COMMENT, FIELD
from fmvae.report.generators import COLUMNS, FINDING, HEADING
from fmvae.report.reference import write_page
from fmvae.runs.files import read_record, write_record
from fmvae.visualization.neighbours import neighbours
from tests.report.test_reference import cells, quick, write_run  # noqa: F401  (a fixture)
from tests.visualization.helpers import seeded, visualizer

WORDS = FINDING
MEASURES = ("precision", "recall", "density", "coverage", "nearest_ratio")


def sampled(value: float, **settings: Any) -> dict[str, Any]:
    fitted = {"num_components": 7, **settings}
    block = {"generation": value, "generation_se": 0.001} | {
        name: value + i / 100 for i, name in enumerate(MEASURES, 1)
    }
    return block | {"fitted": fitted, "settings": {"fit": {"num_components": 7}} | settings}


def write(folder: Path, overrides: list[str], number: float, **settings: Any) -> Path:
    """A run whose FID is number / 100 under the prior, number / 1,000 of gmm, and half of that of q(z)."""
    run = write_run(folder, overrides, number)
    results = read_record(run / "results.json")
    results["fid"]["resnet18"]["settings"]["precision"] = "bf16"
    results["samplers"] = {
        "gmm": {"resnet18": sampled(number / 1000, **settings)},
        "aggregate": {"resnet18": sampled(number / 2000)},
    }
    if "best_conditional" in overrides[0]:
        shares = {"generated": {"overall": 0.97}, "settings": {}}
        results["samplers"]["gmm"]["accuracy"] = shares
    write_record(run / "results.json", results)
    for name in generators.PICTURES:
        (run / "figures" / f"{name}.png").write_bytes(b"\x89PNG")
    return run


def page_of(tmp_path: Path) -> str:
    return write_page(tmp_path / "runs", tmp_path / "docs", "the command").read_text(encoding="utf-8")


def section_of(page: str) -> str:
    return page.partition(f"## {HEADING}\n")[2].partition("\n## ")[0]


def test_each_column_is_of_its_sampler(tmp_path):
    runs = [
        write(tmp_path / "runs", ["experiment=best_generator", f"seed={seed}"], 300 + 2 * seed) for seed in (0, 1)
    ]
    page = page_of(tmp_path)
    row = cells(page, HEADING, "best_generator")
    assert row[0] == f"[best_generator](results/{runs[0].name}/results.json)"
    assert row[1:4] == ["residual", "64, 0.1", "2"]
    assert row[5:] == ["3.010 ± 0.014", "0.301 ± 0.001", "0.150 ± 0.001", "3.012 ± 0.014"]
    assert cells(page, HEADING, "best_generator", 1)[1:] == [
        *("gmm, 7", "0.311 ± 0.001", "0.321 ± 0.001", "0.331 ± 0.001", "0.341 ± 0.001", "0.351 ± 0.001", "")
    ]
    said = next(line for line in section_of(page).splitlines() if line.startswith("Not run yet: "))
    assert "best_conditional (`python train.py experiment=best_conditional seed=0`)" in said
    assert "best_generator" not in said  # its row has numbers
    assert "| best_conditional" not in section_of(page)
    assert "What was tried" not in page
    for name in generators.PICTURES:  # of the first seed alone
        assert page.count(f"results/{runs[0].name}/{name}.png") == 1
        assert f"{runs[1].name}/{name}.png" not in page
    assert "best_generator" in (tmp_path / "docs" / "results" / "provenance.md").read_text(encoding="utf-8")


def test_of_one_seed_the_error_is_that_of_the_draws(tmp_path):
    write(tmp_path / "runs", ["experiment=best_conditional", "seed=0"], 400)
    page = page_of(tmp_path)
    assert cells(page, HEADING, "best_conditional")[6] == "0.400 ± 0.001"
    assert cells(page, HEADING, "best_conditional", 1)[-1] == "97.00 %"


def test_the_mixture_is_told_with_its_temperature_and_of_each_seed(tmp_path):
    for seed in (0, 1):
        run = write(tmp_path / "runs", ["experiment=best_conditional", f"seed={seed}"], 400, temperature=0.9)
        results = read_record(run / "results.json")
        results["samplers"]["gmm"]["resnet18"]["fitted"]["num_components"] = (10, 30)[seed]
        write_record(run / "results.json", results)
    assert cells(page_of(tmp_path), HEADING, "best_conditional", 1)[1] == "gmm, 10, T = 0.9; gmm, 30, T = 0.9"


def test_the_caption_of_neighbours_says_what_the_figure_says():
    """Distances are in pixels, and not in the features of FID."""
    images = Split("train", torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8), torch.zeros(3).long())
    title = neighbours(visualizer(seeded(BaseVAE, 2, hidden_dim=4)), images, images).get_suptitle()
    assert "in pixels:" in " ".join(title.split())
    assert generators.PICTURES["neighbours_gmm"].endswith("in pixels")


def test_the_search_is_a_table_of_its_own(tmp_path):
    write(tmp_path / "runs", ["experiment=best_generator", "seed=0"], 300)
    jobs = generators.sweep_jobs("generators")
    for i, job in enumerate(jobs):
        write(tmp_path / "runs", job, 500 + i)
    section = section_of(page_of(tmp_path))
    assert "of 10 epochs and one seed each, in features computed in bf16; `gmm` has\n7 components" in section
    assert len(
        {line for line in section.partition("What was tried")[2].splitlines() if "results.json" in line}
    ) == len(jobs)
    assert "conv, z = 32, β = 1, 10 epochs, laplace" in section


def test_seeds_measured_in_different_ways_are_refused(tmp_path):
    write(tmp_path / "runs", ["experiment=best_generator", "seed=0"], 300)
    write(tmp_path / "runs", ["experiment=best_generator", "seed=1"], 301, temperature=0.9)
    with pytest.raises(FmvaeError, match="gmm/resnet18 was measured with"):
        page_of(tmp_path)


def test_without_its_runs_there_is_no_section(tmp_path):
    write_run(tmp_path / "runs", ["experiment=baseline"], 261.0)
    assert HEADING not in page_of(tmp_path)


def test_words_are_filled_in_and_their_fields_exist(tmp_path, monkeypatch):
    write(tmp_path / "runs", ["experiment=best_generator", "seed=0"], 300)
    generators.FINDING.write_text("FID {best_generator: gmm}.\n\nGone: {best_conditional: gmm}.", encoding="utf-8")
    section = section_of(page_of(tmp_path))
    assert "FID 0.300 ± 0.001." in section
    assert "Gone" not in section
    generators.FINDING.write_text("{best_generator: FID of cats}", encoding="utf-8")
    with pytest.raises(FmvaeError, match="is no row and column"):
        page_of(tmp_path)
    titles = generators.read(tmp_path / "runs", tmp_path / "docs" / "results", ["seed=0"]).titled
    fields = [field.groups() for field in FIELD.finditer(COMMENT.sub("", WORDS.read_text(encoding="utf-8")))]
    assert fields
    assert {title for title, _ in fields} <= set(titles)
    assert {column for _, column in fields} <= set(COLUMNS)

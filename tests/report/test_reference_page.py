"""How docs/results.md is laid out: findings, contents, a grid of shares, pictures with captions."""

import re

import pytest

from fmvae.errors import FmvaeError
from fmvae.report import reference
from fmvae.report.reference import write_page
from fmvae.report.reference_tables import gallery, grid_table, judged
from fmvae.report.tables import Found, Row
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import read_record
from tests.report.test_reference import judged_block, page, quick, write_run  # noqa: F401  (fixtures)


def test_the_findings_come_first_with_numbers_of_the_runs_and_of_the_papers(tmp_path):
    write_run(tmp_path / "outputs", ["experiment=baseline"], 261.0)
    words = "Ours is {baseline: objective}, theirs {baseline: objective theirs}.\n\nNot yet: {conv_z10: −ELBO}.\n"
    reference.FINDING.write_text(words, encoding="utf-8")
    text = write_page(tmp_path / "outputs", tmp_path / "docs", "the command").read_text()
    assert "## Findings\n\nOurs is 261.00, theirs 261.66.\n\n## Contents\n" in text
    assert "Not yet" not in text
    reference.FINDING.write_text("It is {baseline: beauty}.", encoding="utf-8")
    with pytest.raises(FmvaeError, match=r"results\.md: \{baseline: beauty\} is no row and column"):
        write_page(tmp_path / "outputs", tmp_path / "docs", "the command")


def test_the_contents_name_the_sections_that_are_there(page):  # noqa: F811
    named = re.findall(r"^- \[(.+)\]\(#(.+)\)$", page, re.MULTILINE)
    assert [title for title, _ in named] == re.findall(
        r"^## (.+)$", page.partition("## Contents")[2], re.MULTILINE
    )
    assert ("Fréchet distances and related measures", "fréchet-distances-and-related-measures") in named
    assert "Latents" not in dict(named)  # no run has them


def test_shares_of_a_study_have_a_column_for_each_beta(tmp_path):
    def row(beta: float, z: int, share: float | None) -> Row:
        job = ["model=conditional", f"beta={beta}", f"latent_dim={z}"]
        run = RunDirectory(write_run(tmp_path, job, 230.0))
        results = read_record(run.results) | ({"accuracy": judged_block(share)} if share else {})
        return Row("", "", (Found("", run, results),))

    shown = grid_table(judged([row(4, 2, 0.9), row(1, 2, 0.8), row(1, 8, 0.7), row(4, 8, None)]))
    assert shown.splitlines()[0] == "| model | z | β = 1 | β = 4 |"
    assert shown.splitlines()[2:] == [
        "| conditional | 2 | 80.00 % | 90.00 % |",
        "| conditional | 8 | 70.00 % |  |",
    ]
    assert not grid_table([])


def test_pictures_stand_above_their_captions():
    lines = gallery([("a.png", "first"), ("b.png", "second"), ("c.png", "third")], 100).splitlines()
    assert lines[3] == "| *first* | *second* |"
    assert lines[4:] == ['| <img src="c.png" width="100" alt="third"> |  |', "| *third* |  |"]

"""A report follows ``evaluate.py``: the numbers that are new are in it."""

from __future__ import annotations

import json
from pathlib import Path

from fmvae.common.digests import digest
from fmvae.report.collect import collect
from fmvae.report.following import follow
from fmvae.report.starts import started
from fmvae.report.sweep import write_report
from tests.report.fakes import write_run


def edit(run: Path, recon: float) -> None:
    results = json.loads((run / "results.json").read_text())
    del results["content_sha256"]
    results["test"]["recon"] = recon
    (run / "results.json").write_text(json.dumps(results | {"content_sha256": digest(results)}))


def table(folder: Path) -> str:
    return (folder / "report" / "table.md").read_text()


def test_the_folder_of_runs_has_a_new_report_and_a_single_runs_only_if_it_had_one(tmp_path, capsys):
    run = write_run(tmp_path / "sweep", recon=111.25)
    follow(str(run))
    assert not (tmp_path / "sweep" / "report").exists()
    follow([str(tmp_path / "sweep")])
    assert "111.25" in table(tmp_path / "sweep")
    edit(run, 222.25)
    assert "222.25" not in table(tmp_path / "sweep")  # the control: it does not change by itself
    capsys.readouterr()
    follow([str(run), str(tmp_path / "sweep")])
    assert "222.25" in table(tmp_path / "sweep")
    assert capsys.readouterr().out.count("report: ") == 1


def test_a_report_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    write_run(tmp_path / "sweep")
    (tmp_path / "sweep" / "report").write_text("in the way")
    follow(str(tmp_path / "sweep"))
    (said,) = caplog.messages
    assert said.startswith("no report: ")


def test_a_folder_that_is_no_name_of_a_sweep_keeps_the_configs_name(tmp_path):
    for folder, name in (("a folder & more", "mine"), ("renamed", "renamed")):
        run = write_run(tmp_path / folder)
        text = (run / "config.yaml").read_text().replace("sweep_name: null", "sweep_name: mine")
        (run / "config.yaml").write_text(text)
        (run / "overrides.yaml").write_text('- "seed=0"\n')
        (found,) = collect([tmp_path / folder])
        start = started(found)
        assert start is not None
        assert start.sweep == name
    write_report([tmp_path / "renamed"])
    assert "sweep_name=renamed" in table(tmp_path / "renamed")

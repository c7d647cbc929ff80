"""The tables say what the runs say: means, deviations, the best of each column, every number of every run."""

import csv
import io
import statistics
from typing import Any

import pytest

from fmvae.report.collect import collect
from fmvae.report.comparison import compare, markdown, run_table
from fmvae.report.settings import settings_of
from tests.report.fakes import FACTOR, TC, edit_status, write_run


def tables(folder):
    """The table of settings as dictionaries by column, and that of runs."""
    runs = collect([folder])
    comparison = compare(settings_of(runs))
    lines = comparison.markdown().split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    settings = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    return settings, list(csv.DictReader(io.StringIO(run_table(runs), newline="")))


def test_a_setting_shows_mean_and_deviation_over_its_seeds(tmp_path):
    values = [251.25, 249.5, 250.125]
    for seed, value in enumerate(values):
        write_run(tmp_path, seed=seed, recon=value)
    ((row,), _) = tables(tmp_path)
    assert row["recon"] == f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    assert [row[name] for name in ("model", "z", "β", "n")] == ["base", "2", "1", "3"]
    assert row["FID resnet18"] == "8.000 ± 0.000"


def test_one_seed_shows_no_deviation_and_one_setting_no_best(tmp_path):
    write_run(tmp_path, recon=250.0)
    ((row,), _) = tables(tmp_path)
    assert row["recon"] == "250.00"
    assert not [cell for cell in row.values() if "±" in cell or "**" in cell]


def test_a_changed_number_changes_the_table(tmp_path):
    for seed, recon in enumerate((250.0, 251.0)):
        write_run(tmp_path / "one", seed=seed, recon=recon)
        write_run(tmp_path / "other", seed=seed, recon=recon + 0.02 * seed)
    (one,), _ = tables(tmp_path / "one")
    (other,), _ = tables(tmp_path / "other")
    assert {name for name in one if one[name] != other[name]} == {"recon"}


def test_the_best_of_a_column_is_bold_where_there_is_a_best(tmp_path):
    write_run(tmp_path, "model=conditional", beta=0.5, fid=9.0, accuracy=0.75, recon=240.0, kl=5.0, neg_elbo=245.0)
    write_run(tmp_path, "model=conditional", beta=1.0, fid=8.0, accuracy=0.875)
    bold = [{name for name, cell in row.items() if cell.startswith("**")} for row in tables(tmp_path)[0]]
    assert bold == [{"−ELBO", "IWAE 64"}, {"FID resnet18", "accuracy"}]


def test_rows_that_read_the_same_are_equally_good(tmp_path):
    for beta, neg_elbo in ((0.5, 250.001), (1.0, 250.002), (2.0, 250.1)):
        write_run(tmp_path, beta=beta, neg_elbo=neg_elbo)
    assert [row["−ELBO"] for row in tables(tmp_path)[0]] == ["**250.00**", "**250.00**", "250.10"]


def test_there_are_columns_for_what_was_measured_and_no_others(tmp_path):
    write_run(tmp_path, fid=None)
    assert not {"FID resnet18", "accuracy", "schedule"} & set(tables(tmp_path)[0][0])
    write_run(tmp_path, "model=conditional", "beta=warmup", fid=8.0, accuracy=0.9)
    rows, _ = tables(tmp_path)
    assert {"FID resnet18", "accuracy", "schedule"} <= set(rows[0])
    assert [row["accuracy"] for row in rows] == ["", "90.00%"]


def test_a_mean_of_fewer_runs_says_so(tmp_path):
    for seed, fid in enumerate((8.0, None, 10.0)):
        write_run(tmp_path, seed=seed, fid=fid)
    assert tables(tmp_path)[0][0]["FID resnet18"] == f"9.000 ± {statistics.stdev([8, 10]):.3f} (n = 2)"


def test_the_caption_says_how_many_images_and_the_floor(tmp_path):
    write_run(tmp_path)
    caption = compare(settings_of(collect([tmp_path]))).caption
    assert "10,000 images" in caption
    assert "FID resnet18: 5,000 images; floor (training against test images) 0.125" in caption
    write_run(tmp_path, seed=1, fid=None)
    assert compare(settings_of(collect([tmp_path]))).caption == caption


def test_every_run_has_a_row_with_every_number_in_full(tmp_path):
    done = write_run(tmp_path, beta=0.5, z=10, seed=3, recon=1 / 3)
    write_run(tmp_path, "optimizer.lr=0.01")
    failed = write_run(tmp_path, seed=9, state="failed")
    edit_status(failed, error='loss, "nan"\nat step 3')
    rows = {row["run"]: row for row in tables(tmp_path)[1]}
    assert len(rows) == 3
    row = rows[done.name]
    assert float(row["test/recon"]) == 1 / 3
    names = ("state", "model", "latent_dim", "beta", "schedule", "seed", "epochs", "optimizer.lr")
    assert [row[name] for name in names] == ["complete", "base", "10", "0.5", "constant", "3", "30", "0.001"]
    assert rows[failed.name]["state"] == "failed"
    assert rows[failed.name]["error"].startswith('loss, "nan" at step 3')
    assert rows[failed.name]["test/recon"] == ""
    assert not {"data.seed", "model.latent_dim", "output_root", "trainer.epochs"} & set(row)


def test_a_split_of_its_own_seed_is_told(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed=seed, split=7)
    settings, runs = tables(tmp_path)
    assert len(settings) == 1
    assert "data.seed" not in runs[0]  # equal in all
    write_run(tmp_path, seed=7, split=7)
    write_run(tmp_path, seed=8, split=8)
    settings, runs = tables(tmp_path)
    assert len(settings) == 1
    assert [row["data.seed"] for row in runs] == ["7", "7", "7", "8"]


@pytest.mark.parametrize("text", ["a | b", "**a**", "<b>", "`x`", "[a](b)", "a\nb"])
def test_texts_from_files_break_no_markdown(text):
    escaped = markdown(text)
    assert "\n" not in escaped
    assert not [c for i, c in enumerate(escaped) if c in "|*<`[" and escaped[i - 1] != "\\"]


def test_only_failed_runs_give_empty_tables_and_no_error(tmp_path):
    write_run(tmp_path, state="failed")
    settings, runs = tables(tmp_path)
    assert settings == []
    assert [row["state"] for row in runs] == ["failed"]


def test_a_column_says_the_loss_and_its_numbers_are_in_the_rows_that_vary_them(tmp_path):
    for gamma in (5.0, 10.0):
        write_run(tmp_path, loss=FACTOR | {"gamma": gamma})
    assert "loss" not in tables(tmp_path)[0][0]  # one loss in all
    write_run(tmp_path, loss=TC)
    write_run(tmp_path)
    settings, runs = tables(tmp_path)
    assert list(settings[0])[:6] == ["model", "loss", "z", "β", "gamma", "n"]
    found = [(row["loss"], row["gamma"]) for row in settings]
    assert found == [("elbo", ""), ("factor", "5"), ("factor", "10"), ("tc", "")]
    assert [(row["loss"], row["loss.gamma"]) for row in runs] == [
        ("elbo", ""),
        ("factor", "5.0"),
        ("factor", "10.0"),
        ("tc", "1.0"),
    ]


def test_a_copy_of_z_in_a_loss_is_no_column(tmp_path):
    for z in (2, 10):
        write_run(tmp_path, z=z, loss=FACTOR | {"latent_dim": z})
    write_run(tmp_path)
    settings, runs = tables(tmp_path)
    assert not [name for row in (*settings, *runs) for name in row if name.endswith(".latent_dim")]
    assert "latent_dim" not in settings[0]
    write_run(tmp_path, z=3, loss=FACTOR | {"latent_dim": 4})
    assert "loss.latent_dim" in tables(tmp_path)[1][0]  # a value of its own


def caption(folder):
    return compare(settings_of(collect([folder]))).caption


@pytest.mark.parametrize(
    ("key", "compares"),
    [
        ("likelihood=gaussian", False),
        ("likelihood=gaussian_learned", False),
        ("data.binarize=static", False),
        ("optimizer.lr=0.01", True),
    ],
)
def test_nats_of_different_likelihoods_have_no_best(tmp_path, key, compares):
    numbers: Any = {"decomposition": {"mi": 3.0, "tc": 1.0}}
    write_run(tmp_path, neg_elbo=321.5, fid=9.0, **numbers)
    write_run(tmp_path, key, neg_elbo=-0.64, recon=-4.0, **numbers)
    bold = [{name for name, cell in row.items() if cell.startswith("**")} for row in tables(tmp_path)[0]]
    nats = {"−ELBO", "IWAE 64"}
    # distances to black and white images are not those to grey ones
    distances = set() if key.startswith("data.binarize") else {"FID resnet18"}
    assert set().union(*bold) == distances | (nats if compares else set())
    said = "Nats of different likelihoods or data.binarize do not compare, so none of them is in bold."
    assert (said in caption(tmp_path)) is not compares
    ordered = "(none of recon, KL, active units, MI and TC)" if compares else "(none of active units)"
    assert ordered in caption(tmp_path)
    write_run(tmp_path / "one", key, neg_elbo=-0.64)
    write_run(tmp_path / "one", key, beta=2.0, neg_elbo=-0.6)
    assert [row["−ELBO"] for row in tables(tmp_path / "one")[0]] == ["**-0.64**", "-0.60"]


def test_a_run_that_is_not_complete_does_not_keep_others_from_having_a_best(tmp_path):
    write_run(tmp_path, neg_elbo=250.0)
    write_run(tmp_path, beta=2.0, neg_elbo=251.0)
    write_run(tmp_path, "likelihood=gaussian", state="failed")
    assert [row["−ELBO"] for row in tables(tmp_path)[0]] == ["**250.00**", "251.00"]


def test_parts_of_an_objective_are_told_from_measured_numbers(tmp_path):
    parts: Any = {"decomposition": {"tc": 2.0}}
    write_run(tmp_path, mmd=0.006, tc=-0.25, **parts)
    ((row,), _) = tables(tmp_path)
    assert [row[name] for name in ("mmd (in batches)", "tc (in batches)", "TC")] == ["0.0060", "-0.2500", "2.000"]
    assert "−ELBO, recon, KL, IWAE 64 and TC in nats per image." in caption(tmp_path)
    assert "In batches: " in caption(tmp_path)
    write_run(tmp_path / "none", **parts)
    assert "In batches: " not in caption(tmp_path / "none")


def test_the_caption_says_how_to_read_a_low_tc(tmp_path):
    write_run(tmp_path)
    assert "latents that are not used" not in caption(tmp_path)
    write_run(tmp_path, beta=2.0, decomposition={"tc": 0.1})
    assert "A low TC may also mean latents that are not used: read it with MI and recon." in caption(tmp_path)


def test_a_number_of_one_run_has_the_error_of_its_estimate_and_the_caption_says_so(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed=seed, decomposition={"tc": 1.0 + seed, "tc_se": 0.25})
    said = "If n is 1, TC ± the standard error of the estimate."
    assert said not in caption(tmp_path)
    write_run(tmp_path, beta=2.0, decomposition={"tc": 2.0, "tc_se": 0.125})
    several, one = tables(tmp_path)[0]
    assert several["TC"] == f"1.500 ± {statistics.stdev([1, 2]):.3f}"
    assert one["TC"] == "2.000 ± 0.125"
    assert said in caption(tmp_path)
    write_run(tmp_path, beta=2.0, seed=1, recon=1.0)  # one of two runs has it
    assert tables(tmp_path)[0][1]["TC"] == "2.000 (n = 1)"

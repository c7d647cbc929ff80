"""The charts of a search, from its record."""

import json
from typing import cast

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from fmvae.report.searching import found_by, front_chart, history_chart, importance_chart, labelled
from fmvae.report.sweep import write_report
from fmvae.sweeps.record import RECORD, Record, Trial, keep_lost, read_studies, write_study
from tests.report.fakes import write_run

VALUES = [(5.0, 1.0), (4.0, 2.0), (6.0, 3.0), (3.0, 3.0), (3.5, 0.5)]
TRIALS = (
    *(Trial(n, "complete", f"run-{n}", {"beta.value": n, "model": "base"}, v) for n, v in enumerate(VALUES[:3])),
    Trial(3, "pruned", "run-3", {"beta.value": 9, "model": "conv"}, ()),
    Trial(4, "fail", "", {"beta.value": 10, "model": "conv"}, ()),
    *(Trial(n, "complete", f"run-{n}", {"beta.value": n, "model": "base"}, VALUES[n - 2]) for n in (5, 6)),
)
TWO = Record(
    ("neg_elbo", "accuracy"),
    ("minimize", "maximize"),
    "TPESampler",
    TRIALS,
    (5,),
    ({"beta.value": 0.7, "model": 0.3}, {}),
)


def one(record: Record = TWO) -> Record:
    trials = tuple(trial._replace(values=trial.values[:1]) for trial in record.trials)
    return record._replace(objectives=("neg_elbo",), directions=("minimize",), trials=trials)


class Told:
    def __init__(self):
        self.points = []

    def __call__(self, axes, point, trial):
        self.points.append((trial.number, point))


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_the_line_is_the_best_so_far_in_the_objectives_direction():
    told = Told()
    figure = history_chart({"s": TWO}, told)
    assert figure is not None
    low, high = figure.axes
    numbers = [0, 1, 2, 5, 6]
    for axes, place, best in ((low, 0, [5, 4, 4, 3, 3]), (high, 1, [1, 2, 3, 3, 3])):
        points, line, *ended = axes.lines
        np.testing.assert_array_equal(
            points.get_xydata(), [(n, v[place]) for n, v in zip(numbers, VALUES, strict=True)]
        )
        np.testing.assert_array_equal(line.get_xydata(), list(zip(numbers, best, strict=True)))
        assert [np.asarray(each.get_xdata()).tolist() for each in ended] == [[3], [4]]
    assert legend_of(low) == [
        "a trial",
        "lowest so far",
        "pruned: no value",
        "failed: no value",
    ]
    assert "highest so far" in legend_of(high)
    assert "−ELBO" in low.get_ylabel()
    assert told.points[:5] == [(n, (n, v[0])) for n, v in zip(numbers, VALUES, strict=True)]


def test_the_front_is_drawn_apart_and_its_steps_are_what_is_reached():
    figure = front_chart({"s": TWO._replace(front=(1, 5))}, Told())
    assert figure is not None
    others, front = figure.axes[0].lines
    assert np.asarray(front.get_xydata()).tolist() == [[3.0, 3.0], [4.0, 2.0]]
    assert np.asarray(others.get_xydata()).tolist() == [[5.0, 1.0], [6.0, 3.0], [3.5, 0.5]]
    assert front.get_drawstyle() == "steps-post"
    assert "lower is better" in figure.axes[0].get_xlabel()
    assert "higher is better" in figure.axes[0].get_ylabel()
    assert front_chart({"s": one()}, Told()) is None


def test_the_bars_are_the_shares():
    figure = importance_chart({"s": TWO}, Told())
    assert figure is not None
    (axes,) = figure.axes
    bars = {
        label.get_text(): cast(Rectangle, bar).get_width()
        for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)
    }
    assert bars == {"beta": 0.7, "model": 0.3}
    assert importance_chart({"s": TWO._replace(importances=())}, Told()) is None


def test_a_search_of_fewer_than_two_complete_trials_has_no_charts():
    few = TWO._replace(trials=TRIALS[2:5])
    assert history_chart({"s": few}, Told()) is None
    assert front_chart({"s": few}, Told()) is None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("neg_elbo", "−ELBO, nats per image"),
        ("fid", "FID of generated images, in the first features of evaluation.fid"),
        ("mine/number", "mine/number"),
        ("latent/active_units", "active units (latent/active_units), dimensions"),
    ],
)
def test_an_axis_says_what_it_shows(name, label):
    assert labelled(name) == label


def test_a_record_is_read_as_it_was_written_beside_others(tmp_path):
    write_study(tmp_path, "a", TWO)
    write_study(tmp_path, "b", one())
    write_study(tmp_path, "a", TWO._replace(front=(0,)))
    assert read_studies(tmp_path) == {"a": TWO._replace(front=(0,)), "b": one()}


@pytest.mark.parametrize("damage", ["no json", "{}", '{"studies": 3}', '{"studies": {"a": {"trials": [1]}}}'])
def test_a_damaged_record_has_no_studies_and_the_report_no_charts(damage, tmp_path):
    write_run(tmp_path)
    write_study(tmp_path, "a", TWO)
    write_report([tmp_path])
    assert (tmp_path / "report" / "search_history.png").exists()
    assert "The search, trial by trial" in (tmp_path / "report" / "index.html").read_text()
    (tmp_path / RECORD).write_text(damage)
    assert read_studies(tmp_path) == {}
    write_report([tmp_path])
    assert not list((tmp_path / "report").glob("search_*"))
    assert "trial by trial" not in (tmp_path / "report" / "index.html").read_text()


def test_a_record_that_would_be_lost_is_kept_and_said(tmp_path, caplog):
    keep_lost(tmp_path, "a", [])
    write_study(tmp_path, "a", TWO)
    keep_lost(tmp_path, "a", range(7))  # all that it has is in the database
    keep_lost(tmp_path, "b", [])
    assert not caplog.messages
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]
    before = (tmp_path / RECORD).read_bytes()
    keep_lost(tmp_path, "a", range(6))  # negative control: one is not
    keep_lost(tmp_path, "a", range(6))
    said = "it has 1 trials of the study a that study.db does not have, and will lose them (kept as search-1.json)"
    assert [message.partition(": ")[2] for message in caplog.messages] == [said]
    (tmp_path / RECORD).write_bytes(before[:100])
    keep_lost(tmp_path, "b", [])
    assert "repeat the command of each other study" in caplog.messages[-1]
    assert [(tmp_path / f"search-{i}.json").read_bytes() for i in (1, 2)] == [before, before[:100]]


def test_the_conclusion_says_what_was_found(tmp_path):
    (front,) = found_by({"s": TWO})
    assert front == (
        "Search s:",
        " 5 of 7 trials are complete; the Pareto front has 1 of them: "
        "trial 5 (neg_elbo 3, accuracy 3) with beta=5, model=base.",
    )
    (best,) = found_by({"s": one()})
    assert best[1].endswith("the best is trial 5 (neg_elbo 3) with beta=5, model=base.")
    assert found_by({"s": TWO._replace(front=())})[0][1].endswith("complete; none has a value.")
    write_run(tmp_path)
    write_study(tmp_path, "s", one())
    assert "the best is trial 5" in write_report([tmp_path]).read_text()
    assert "**Search s:** 5 of 7 trials" in (tmp_path / "report" / "table.md").read_text()


def test_a_changed_record_is_noticed_by_its_digest(tmp_path):
    write_study(tmp_path, "a", TWO)
    content = json.loads((tmp_path / RECORD).read_text())
    content["studies"]["a"]["trials"][0]["values"] = [0.0, 0.0]
    (tmp_path / RECORD).write_text(json.dumps(content))
    assert read_studies(tmp_path) == {}

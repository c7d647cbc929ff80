"""Levels beside scores: which scores are above them, in captions, charts and the conclusion."""

import numpy as np
import pytest

from fmvae.evaluation.columns import BLOCKS
from fmvae.evaluation.disentanglement import rotated_level
from fmvae.report.above import is_above, not_above, scores_of
from fmvae.report.collect import collect
from fmvae.report.comparison import caption
from fmvae.report.conclusion import conclude
from fmvae.report.levels import by_data, level
from fmvae.report.naming import Names
from fmvae.report.scores import ROTATED, correlation_chart, score_chart, spearman
from fmvae.report.settings import settings_of
from fmvae.report.study import _similarities
from fmvae.report.topics import DISENTANGLEMENT
from fmvae.runs.files import write_record
from tests.report.fakes import write_run

NAMES = [column.tag for column in BLOCKS["disentanglement"] if column.direction]
UNTRAINED = (0.02, 0.03, 0.04)  # of three seeds


def block(mig: float, seed: int, chance: float = 0.001) -> dict:
    scores = {tag.rpartition("/")[2]: mig for tag in NAMES}
    return {
        **scores,
        "chance": dict.fromkeys(scores, chance),
        "untrained": dict.fromkeys(scores, UNTRAINED[seed]),
        "num_images": 150,
        "settings": {},
    }


def runs(folder, *overrides, good=0.5, bad=0.031):
    """Three seeds of beta = 1, whose scores are above both levels, and of beta = 4, near an untrained one's."""
    for seed in range(3):
        for beta, score in ((1.0, good), (4.0, bad)):
            made = block(score + 0.001 * seed, seed)
            write_run(folder, *overrides, beta=beta, seed=seed, z=3, blocks={"disentanglement": made})
    return settings_of(collect([folder]))


def test_a_score_is_above_a_level_by_more_than_the_noise_of_the_difference(tmp_path):
    good, bad = settings = runs(tmp_path)
    mig = scores_of(settings)[0]
    untrained, chance = (level(settings, mig, name) for name in ("untrained", "chance"))
    assert untrained
    assert chance
    assert (untrained.mean, untrained.n) == (pytest.approx(0.03), 3)  # six runs, but three encoders
    assert untrained.sd == pytest.approx(np.std(UNTRAINED, ddof=1))
    assert (chance.mean, chance.sd, chance.n) == (0.001, 0.0, 3)
    assert [is_above(good, mig, untrained), is_above(bad, mig, untrained)] == [True, False]
    assert is_above(bad, mig, chance)
    (of_chance, of_untrained) = not_above(settings, Names(settings))
    assert of_chance[0] == "Above shuffled factors:"
    assert "in every setting" in of_chance[1]
    error = np.std(UNTRAINED, ddof=1) / 3**0.5  # of the mean, as everywhere in the conclusion
    assert f"MIG (0.030 ± {error:.3f}) in all but 1 of 2 settings (β = 4)" in of_untrained[1]


def test_the_caption_and_the_conclusion_say_the_levels(tmp_path):
    settings = runs(tmp_path)
    levels = "shuffled factors 0.001 ± 0.000, an untrained encoder 0.030 ± 0.010."
    assert f"MIG: of 150 images; {levels}" in caption(settings)
    every = [run for setting in settings for run in setting.runs]
    said = " ".join(map(str, conclude(every, settings, lambda run: None, "f").findings))
    assert "β = 1 is best by" in said
    assert "Above an untrained encoder: MIG (0.030 ± 0.006) in all but 1 of 2 settings (β = 4)" in said
    plain = tmp_path / "plain"  # control: without scores there is nothing of this
    write_run(plain, z=3)
    write_run(plain, z=3, beta=4.0)
    settings = settings_of(collect([plain]))
    assert "Above" not in str(conclude(settings[0].runs, settings, lambda run: None, "f").findings)
    assert score_chart(settings) is None
    assert correlation_chart(settings) is None


def test_runs_of_other_data_are_not_ranked_together(tmp_path):
    runs(tmp_path, "data=sprites")
    settings = runs(tmp_path, "data=shapes3d", good=0.9)
    groups = by_data(settings)
    assert {name: len(group) for name, group in groups.items()} == {"Sprites": 2, "Shapes3D": 2}
    every = [run for setting in settings for run in setting.runs]
    said = [str(one) for one in conclude(every, settings, lambda run: None, "f").findings]
    assert any(one.startswith("Sprites: ") and "is best by" in one and "MIG (0.501" in one for one in said)
    assert any(one.startswith("Shapes3D: ") and "is best by" in one and "MIG (0.901" in one for one in said)
    assert not any("data Sprites" in one for one in said)  # it is said before the sentence


def test_data_of_one_class_are_told_apart_by_their_arguments(tmp_path):
    runs(tmp_path, "data=sprites")
    settings = runs(tmp_path, "data=sprites", "data.num_test=500", good=0.9)
    every = [run for setting in settings for run in setting.runs]
    said = [str(one) for one in conclude(every, settings, lambda run: None, "f").findings]
    (other,) = {one.first.config["data.num_test"] for one in settings} - {500}
    assert {name: len(group) for name, group in by_data(settings).items()} == {
        f"Sprites, num_test {other}": 2,
        "Sprites, num_test 500": 2,
    }
    assert any(one.startswith("Sprites, num_test 500: β = 1 is best by") and "MIG (0.901" in one for one in said)
    assert not any("β = 1, num_test" in one or "num_test 500, β" in one for one in said)  # once is enough


def test_hashes_in_names_of_data_are_cut(tmp_path):
    for digit in "ab":
        runs(tmp_path, "data=dsprites", f"data.sha256={64 * digit}")
    names = list(by_data(settings_of(collect([tmp_path]))))
    assert sorted(name.rpartition(" ")[2] for name in names) == ["aaaaaaaa…", "bbbbbbbb…"]


def test_a_score_that_no_setting_has_above_chance_is_not_ranked(tmp_path):
    def said(chance: float) -> str:
        folder = tmp_path / str(chance)
        for seed in range(3):
            for beta, score in ((1.0, 0.5), (4.0, 0.2)):
                made = block(score + 0.001 * seed, seed)
                made["chance"]["modularity"] = chance + 0.001 * seed
                write_run(folder, beta=beta, seed=seed, z=3, blocks={"disentanglement": made})
        settings = settings_of(collect([folder]))
        every = [run for setting in settings for run in setting.runs]
        return "\n".join(map(str, conclude(every, settings, lambda run: None, "f").findings))

    lost = said(0.9).splitlines()
    assert [line for line in lost if "modularity" in line.lower()] == [
        line for line in lost if line.startswith("Above")
    ]
    assert "modularity (0.901 ± 0.001) in no setting" in "\n".join(lost)
    best = next(line for line in said(0.3).splitlines() if "is best by" in line)  # above it, one setting is enough
    assert "odularity (0.501" in best


def test_the_chart_has_means_bars_and_levels(tmp_path):
    settings = runs(tmp_path)
    figure = score_chart(settings)
    assert figure is not None
    axes = figure.axes[0]
    assert axes.get_ylabel() == "MIG"
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    heights = {round(float(line[0]), 3) for line in drawn}
    assert {0.001, 0.03} <= heights
    assert any(np.allclose(line, [0.501, 0.032]) for line in drawn if len(line) == 2)
    text = " ".join(t.get_text() for t in figure.texts) + figure.get_supxlabel()
    assert "untrained" in text


def similar(settings, folder, counts):
    """Made-up UDR of each setting, with the informative dimensions of its three runs."""
    entries = [
        {
            "scores": {run.name: 0.7 for run in setting.runs},
            "informative": [[place < count for place in range(6)] for count in found],
            "num_images": 100,
        }
        for setting, found in zip(settings, counts, strict=True)
    ]
    write_record(folder / "udr.json", {"settings": entries})
    return entries


def test_udr_has_a_level_at_each_point_that_follows_from_the_informative_dimensions(tmp_path):
    settings = runs(tmp_path)
    plain = score_chart(settings)
    similar(settings, tmp_path, [(2, 2, 2), (4, 5, 3)])
    figure = score_chart(settings)
    assert plain is not None
    assert figure is not None
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == "UDR")
    (dotted,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert np.ravel(dotted.get_xdata()).tolist() == [1, 4]
    expected = [rotated_level(counts).mean() for counts in ((2, 2, 2), (3, 4, 5))]
    assert np.ravel(dotted.get_ydata()).tolist() == pytest.approx(expected)
    assert expected[0] > expected[1] + 0.2
    assert ROTATED in figure.get_supxlabel().replace("\n", " ")
    # control: without UDR there is neither row nor sentence
    assert len(plain.axes) == len(figure.axes) - 1
    assert "rotated" not in plain.get_supxlabel()


def test_the_page_has_the_level_and_the_dimensions_beside_the_score(tmp_path):
    settings = runs(tmp_path)
    similar(settings, tmp_path, [(2, 2, 2), (4, 5, 3)])
    found = _similarities(settings)
    for setting, counts in zip(settings, [(2, 2, 2), (4, 5, 3)], strict=True):
        told = [found[run.name] for run in setting.runs]
        assert [one["informative"] for one in told] == list(counts)
        assert [one["rotated"] for one in told] == rotated_level(counts).tolist()
        assert {one["score"] for one in told} == {0.7}
    shown = [path for path, *_ in DISENTANGLEMENT.columns.values() if path.startswith("udr/")]
    assert {path.partition("/")[2] for path in shown} == set(next(iter(found.values())))
    assert _similarities(runs(tmp_path / "others")) == {}  # control


def by_ranks(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation as that of ranks, which are counted; equal values share their mean rank."""
    ranks = [[(one < v).sum() + ((one == v).sum() + 1) / 2 for v in one] for one in (a, b)]
    return float(np.corrcoef(ranks)[0, 1])


def test_rank_correlations_are_those_of_ranks_without_missing_numbers():
    drawn = np.random.default_rng(0).integers(0, 6, size=(4, 30)).astype(float)
    drawn[2, 5], drawn[3] = np.nan, 7
    found = spearman(drawn)
    assert found[0, 1] == pytest.approx(by_ranks(drawn[0], drawn[1]), abs=1e-12)
    there = np.isfinite(drawn[2])
    assert found[0, 2] == pytest.approx(by_ranks(drawn[0][there], drawn[2][there]), abs=1e-12)
    assert np.isnan(found[3]).all()
    assert abs(found[0, 1] - np.corrcoef(drawn[0], drawn[1])[0, 1]) > 1e-4  # control: not that of the values

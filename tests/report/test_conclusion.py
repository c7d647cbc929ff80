"""The conclusion of made-up sweeps: the sentences that it must and must not have."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fmvae.report.collect import collect
from fmvae.report.conclusion import Conclusion, conclude
from fmvae.report.continuing import Start
from fmvae.report.settings import settings_of
from fmvae.report.starts import started
from tests.report.fakes import FACTOR, TC, edit_status, write_run

START = Start(["model=base", "seed=0", "beta.value=1"], "study")


def concluded(folder: Path) -> Conclusion:
    runs = collect([folder])
    return conclude(runs, settings_of(runs), lambda run: START, "outputs/study")


def told(conclusion: Conclusion) -> str:
    lines = [*map(str, conclusion.findings), *conclusion.warnings, conclusion.note]
    return "\n".join([*lines, *(f"{command.purpose}: {command.line}" for command in conclusion.commands)])


def seeds(folder: Path, values: list[float], beta: float, **others: Any) -> None:
    """A setting of one run for each −ELBO."""
    for seed, value in enumerate(values):
        write_run(
            folder, beta=beta, seed=seed, neg_elbo=value, **{"blocks": {"iwae": None}, "fid": None, **others}
        )


def fid(value: float, num_images: int = 10_000, se: float | None = None, **settings: Any) -> dict[str, Any]:
    block: dict[str, Any] = {"generation": value, "num_images": num_images, "settings": settings}
    return block | ({} if se is None else {"generation_se": se})


def clear_winner(folder: Path) -> None:
    seeds(folder, [250.0, 250.2, 250.4], 0.5)
    seeds(folder, [240.0, 240.2, 240.4], 1.0)


def ties(folder: Path) -> None:
    seeds(folder, [250.0, 250.6], 0.5)  # sd 0.424, standard error 0.3
    seeds(folder, [250.4, 251.0], 1.0)  # 0.4 away; the difference's standard error is 0.42
    seeds(folder, [260.0, 260.6], 4.0)


def all_tie(folder: Path) -> None:
    for beta in (0.5, 1.0, 4.0):
        seeds(folder, [250.0 + beta / 10, 250.6 + beta / 10], beta)


def one_seed(folder: Path) -> None:
    seeds(folder, [250.0], 0.5)
    seeds(folder, [240.0], 1.0)


def some_with_one_seed(folder: Path) -> None:
    seeds(folder, [250.0, 250.2], 0.5)
    seeds(folder, [240.0], 1.0)


def a_lone_rival(folder: Path) -> None:
    seeds(folder, [286.12], 0.5)
    seeds(folder, [284.0, 285.0, 289.03], 1.0)
    seeds(folder, [299.0], 4.0)


def errors_of_a_measure(folder: Path) -> None:
    for beta, value in ((0.5, 8.0), (1.0, 8.05), (4.0, 9.0)):
        blocks = {"iwae": None, "fid/resnet18": fid(value, se=0.05)}
        write_run(folder, beta=beta, fid=None, blocks=blocks, neg_elbo=250.0 + 10 * beta)


def diverged(folder: Path) -> None:
    clear_winner(folder)
    run = write_run(folder, beta=9.0, state="failed")
    edit_status(run, error="epoch 2, step 7: recon is nan; lower optimizer.lr")


def collapsed(folder: Path) -> None:
    seeds(folder, [250.0, 250.2], 1.0, z=10)
    blocks = {"iwae": None, "latent": {"active_units": 3, "num_images": 10_000, "settings": {}}}
    seeds(folder, [270.0, 270.2], 16.0, z=10, blocks=blocks)
    blocks = {"iwae": None, "latent": None}
    seeds(folder, [280.0, 280.2], 99.0, z=10, blocks=blocks, kl=0.01)


def missing_fid(folder: Path) -> None:
    for beta in (0.5, 1.0, 4.0):
        write_run(folder, beta=beta, fid=None if beta == 4.0 else 8.0 + beta, neg_elbo=250.0 + beta)


def two_extractors(folder: Path) -> None:
    for beta, weights in ((0.5, "aaaa"), (1.0, "bbbb")):
        blocks = {"iwae": None, "fid/resnet18": fid(8.0 + beta, extractor_sha256=weights)}
        write_run(folder, beta=beta, fid=None, blocks=blocks, neg_elbo=250.0 + beta)


def two_precisions(folder: Path) -> None:
    for beta, precision in ((0.5, "fp32"), (1.0, "bf16")):
        blocks = {"iwae": None, "fid/resnet18": fid(8.0 + beta, precision=precision)}
        write_run(folder, beta=beta, fid=None, blocks=blocks, neg_elbo=250.0 + beta)


def two_temperatures(folder: Path) -> None:
    """Settings within settings, and a list that is longer than what is shown of a value."""
    for beta, temperature in ((0.5, 1.0), (1.0, 0.8)):
        fit = {"num_components": list(range(50)), "temperature": temperature, "long": "x" * 40 + str(beta)}
        blocks = {"iwae": None, "fid/resnet18": fid(8.0 + beta, fit=fit)}
        write_run(folder, beta=beta, fid=None, blocks=blocks, neg_elbo=250.0 + beta)


def two_datasets(folder: Path) -> None:
    for beta, content in ((0.5, "one"), (1.0, "two")):
        blocks = {"provenance": {"data_sha256": {"train": "t", "test": content}}}
        write_run(folder, beta=beta, fid=8.0 + beta, blocks=blocks)


def two_likelihoods(folder: Path) -> None:
    write_run(folder, neg_elbo=321.5, fid=9.0)
    write_run(folder, "likelihood=gaussian", neg_elbo=-0.64, fid=8.0)


def few_images(folder: Path) -> None:
    for beta in (0.5, 1.0):
        write_run(folder, beta=beta, fid=None, blocks={"fid/resnet18": fid(8.0 + beta, num_images=1000)})


def all_failed(folder: Path) -> None:
    for beta in (0.5, 1.0):
        edit_status(write_run(folder, beta=beta, state="failed"), error="out of memory")


def unfinished(folder: Path) -> None:
    clear_winner(folder)
    write_run(folder, beta=7.0, state="interrupted")
    write_run(folder, beta=8.0, state="failed")


def not_converged(folder: Path) -> None:
    for beta, epoch in ((0.5, 30), (1.0, 12)):
        blocks = {"checkpoint": {"epoch": epoch}, "iwae": None}
        seeds(folder, [240.0 + beta, 240.1 + beta], beta, blocks=blocks)


def single(folder: Path) -> None:
    write_run(folder, fid=8.0, neg_elbo=258.67)


def winners_differ(folder: Path) -> None:
    for beta, elbo, iwae, distance in ((0.5, 240.0, 239.0, 9.0), (4.0, 250.0, 249.0, 8.0)):
        blocks = {
            "iwae": {"iwae_64": iwae, "num_images": 1000, "settings": {}},
            "samplers/gmm/resnet18": fid(1.0 + 1 / distance),
        }
        write_run(folder, beta=beta, fid=distance, blocks=blocks, neg_elbo=elbo)


def own_measure(folder: Path) -> None:
    """A disentanglement score of the user's own, in which more is better, and a number without a direction."""
    columns = [
        {"tag": "mig", "header": "MIG", "unit": "", "digits": 3, "direction": "higher"},
        {"tag": "size", "header": "size of it", "unit": "", "digits": 3, "direction": None},
    ]
    for beta, mig in ((1.0, 0.2), (4.0, 0.3)):
        block = {"mig": mig, "size": mig, "columns": columns, "settings": {}}
        write_run(folder, beta=beta, fid=None, blocks={"disentangled": block, "iwae": None}, neg_elbo=250.0 + beta)


class Expected(NamedTuple):
    make: Callable[[Path], None]
    said: list[str]
    not_said: list[str]


BEAT = "is best by"
SWEEPS = {
    "a clear winner": Expected(
        clear_winner,
        ["β = 1 is best by −ELBO (240.20 ± 0.12).", "± is the standard error", "more seeds of β = 1:", "seed=3,4"],
        ["tie with", "ties", "n = 1", "diverged", "failed", "Not compared", "KL (", "recon ("],
    ),
    "ties": Expected(
        ties,
        ["β = 0.5 has the best mean −ELBO (250.30 ± 0.30), but ties with β = 1 (250.70 ± 0.30)."],
        [BEAT, "β = 4 (260"],
    ),
    "all tie": Expected(
        all_tie, ["No setting is best by −ELBO: all 3 settings tie"], ["β = 0.5 is best", "but ties"]
    ),
    "one seed": Expected(
        one_seed,
        ["β = 1 is best by −ELBO (240.00).", "n = 1 seed in every setting", "seed=1,2"],
        ["±", "ties with"],
    ),
    "some with one seed": Expected(
        some_with_one_seed, ["n = 1 seed in 1 of 2 settings (β = 1)"], ["ties with", "in every setting"]
    ),
    "a lone rival within the noise": Expected(
        a_lone_rival,
        [
            "β = 1 has the best mean −ELBO (286.01 ± 1.54), but ties with β = 0.5 (286.12).",
            "more seeds of β = 0.5: python train.py -m model=base beta=1 seed=1,2",
        ],
        ["is best by −ELBO", "more seeds of β = 4:"],
    ),
    "the error of a measure": Expected(
        errors_of_a_measure,
        ["β = 0.5 has the best mean FID resnet18 (8.000 ± 0.050), but ties with β = 1 (8.050 ± 0.050)."],
        ["β = 4 (9"],
    ),
    "diverged": Expected(
        diverged,
        ["1 run diverged (base-b9", "recon is nan). Try a smaller optimizer.lr", BEAT],
        ["failed", "finish base-b9"],
    ),
    "collapsed": Expected(
        collapsed,
        ["(collapsed), in 2 of 3 settings: β = 16: 3 of 10 active and β = 99: KL 0.01 nats"],
        ["β = 1: 2", "β = 1: K"],
    ),
    "missing FID": Expected(
        missing_fid,
        ["FID resnet18 was not measured for 1 of 3 settings (β = 4).", "and FID resnet18 (8.500)."],
        ["diverged"],
    ),
    "two extractors": Expected(
        two_extractors,
        [
            "Not compared: FID resnet18; its runs differ in extractor_sha256 (aaaa or bbbb).",
            "measure all runs alike: python evaluate.py run=outputs/study",
            "β = 0.5 is best by −ELBO",
        ],
        ["best by FID", "best mean FID"],
    ),
    "two precisions": Expected(
        two_precisions, ["its runs differ in precision (bf16 or fp32)"], ["best by FID", "best mean FID"]
    ),
    "two temperatures": Expected(
        two_temperatures,
        ["its runs differ in fit.long, fit.temperature (1.0 or 0.8).", "β = 0.5 is best by −ELBO"],
        ["best by FID", "num_components", "{"],
    ),
    "two datasets": Expected(
        two_datasets,
        ["Not compared: −ELBO, IWAE 64 and FID resnet18; its runs differ in test (one or two)."],
        [BEAT, "Rate and distortion"],
    ),
    "two likelihoods": Expected(
        two_likelihoods,
        ["Not compared: −ELBO and IWAE 64; nats of different likelihoods", "is best by FID resnet18 (8.000)"],
        ["best by −ELBO", "Rate and distortion", "measure all runs alike"],
    ),
    "few images": Expected(
        few_images, ["FID resnet18 is of 1,000 images: below 5,000, the bias"], ["10,000 images"]
    ),
    "all failed": Expected(
        all_failed,
        ["All 2 runs failed, so there is nothing to compare.", "2 runs failed: in none", "finish base-b0.5"],
        [BEAT, "diverged", "n = 1", "Rate and distortion"],
    ),
    "unfinished": Expected(
        unfinished, ["1 run failed and 1 run not finished: in none", "finish base-b7", BEAT], ["diverged"]
    ),
    "not converged": Expected(
        not_converged,
        ["2 of 4 runs were best at the last epoch", "more epochs of β = 0.5:", "seed=0,1 trainer.epochs=60"],
        ["more epochs of β = 1:"],
    ),
    "one run": Expected(
        single,
        ["base, z = 2, β = 1: −ELBO 258.67, IWAE 64 ", "there is no other setting", "n = 1 seed: ", "seed=1,2"],
        [BEAT, "Rate and distortion", "n = 1 seed in"],
    ),
    "other winners by other numbers": Expected(
        winners_differ,
        [
            "β = 0.5 is best by −ELBO (240.00), IWAE 64 (239.00) and FID resnet18 (gmm) (1.111).",
            "β = 4 is best by FID resnet18 (8.000).",
        ],
        ["ties with"],
    ),
    "a measure of one's own": Expected(
        own_measure, ["β = 4 is best by MIG (0.300).", "β = 1 is best by −ELBO"], ["size of it"]
    ),
}


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_has_the_sentences_that_it_must_and_none_that_it_must_not(tmp_path, sweep):
    make, said, not_said = SWEEPS[sweep]
    make(tmp_path)
    text = told(concluded(tmp_path))
    assert [words for words in said if words not in text] == [], text
    assert [words for words in not_said if words in text] == [], text


def test_the_sentences_of_one_sweep_are_not_those_of_another(tmp_path):
    """The control: what sweeps must say is not said of all of them."""
    texts = {}
    for name, expected in SWEEPS.items():
        expected.make(tmp_path / name)
        texts[name] = told(concluded(tmp_path / name))
    assert len(set(texts.values())) == len(texts)
    for name, expected in SWEEPS.items():
        elsewhere = [other for other in texts if other != name and all(w in texts[other] for w in expected.said)]
        assert len(elsewhere) <= 2, (name, elsewhere)


def test_what_sweeps_differ_in_is_their_settings_names(tmp_path):
    for loss, beta in ((None, 1.0), (None, 4.0), (TC, 4.0), (FACTOR, 1.0)):
        for model in ("base", "conv"):
            write_run(tmp_path, f"model={model}", loss=loss, beta=beta, neg_elbo=250 + beta)
    text = told(concluded(tmp_path))
    assert "base, elbo, β = 1 has the best mean −ELBO" in text
    assert "z = " not in text  # the same in all


def test_a_command_of_a_run_whose_start_is_not_known_is_left_out(tmp_path):
    clear_winner(tmp_path)
    runs = collect([tmp_path])
    assert conclude(runs, settings_of(runs), lambda run: None, "outputs/study").commands == []
    start = Start(["data.class_names=[a\nb]"])  # a line break would run what follows it
    assert conclude(runs, settings_of(runs), lambda run: start, "outputs/study").commands == []
    run = runs[0]
    assert started(run) is None  # these runs have no overrides.yaml
    for text in ("{", "a: 1", "[1, 2]"):
        run.directory.overrides.write_text(text)
        assert started(run) is None
    run.directory.overrides.write_text('- "seed=0"\n- "model=conv"\n')
    assert started(run) == Start(["seed=0", "model=conv"], "")


def test_words_of_a_command_stay_what_they_are(tmp_path):
    clear_winner(tmp_path)
    runs = collect([tmp_path])
    mean = "data.root=/a b/$(rm -rf x)';\"&|"
    found = conclude(runs, settings_of(runs), lambda run: Start([mean, "seed=7", "sweep_name=old"], "a b"), "x y")
    for command in found.commands:
        words = shlex.split(command.line)
        assert words[:3] == ["python", "train.py", "-m"]
        assert mean in words
        assert "sweep_name=a b" in words
        assert not {"seed=7", "sweep_name=old"} & set(words)


def test_the_markdown_says_the_same(tmp_path):
    clear_winner(tmp_path)
    conclusion = concluded(tmp_path)
    text = conclusion.markdown()
    assert "- **β = 1** is best by −ELBO" in text
    assert all(command.line in text for command in conclusion.commands)
    lines = text.splitlines()
    assert [a for a, b in pairwise(lines) if a.startswith("# ") and not b.startswith("python ")] == []

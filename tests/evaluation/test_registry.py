"""Measures in a registry: one of one's own reaches every place with no edit in fmvae, and lists are derived."""

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from omegaconf import open_dict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmvae.config import building, compose, composing
from fmvae.config.composing import resolve
from fmvae.config.identity import RunIdentity
from fmvae.errors import ConfigError, ObjectiveError, RunError
from fmvae.evaluation import Column, Evaluator, columns, registry
from fmvae.evaluation.column import group_of
from fmvae.evaluation.measure import Context
from fmvae.evaluation.planned import BuiltIn
from fmvae.experiments import objective, train
from fmvae.experiments.search_target import check_objective, directions
from fmvae.experiments.vae import VAEExperiment
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.summary import describe
from fmvae.measurement.verification import verify
from fmvae.models import ConditionalVAE
from fmvae.objectives import ELBO, Bernoulli, Constant
from fmvae.report.charts import against_beta
from fmvae.report.collect import collect
from fmvae.report.comparison import columns_of, compare
from fmvae.report.settings import settings_of
from fmvae.report.sweep import write_report
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import read_record, write_record
from fmvae.runs.results import blocks, columns_in, flat_scalars
from fmvae.sweeps.directory import SweepDirectory, progress
from fmvae.sweeps.status import summary
from tests.idx import write_idx_dataset
from tests.report.fakes import write_run

MINE = '''
import torch
from fmvae.evaluation import Column, Context, Measure

class Entropy(Measure):
    """Of the histogram of generated pixels."""

    columns = (
        Column("entropy", "entropy", unit="bits", digits=6, direction="higher"),
        Column("lit/bright", "lit", unit="share"),
    )

    def __init__(self, bins=10, needs=(), returns=None, told=None):
        self.bins, self.needs, self.returns, self.told = bins, tuple(needs), returns, told

    @property
    def settings(self):
        return self.told or {}

    def compute(self, context: Context):
        if self.returns == "an error":
            raise KeyError("broken")
        if self.returns == "nan":
            return {"entropy": float("nan"), "lit": {"bright": 1.0}}
        if self.returns is not None:
            return self.returns
        images = torch.cat(list(context.generated(context.data.test.labels[:50])))
        shares = torch.histc(images.double(), self.bins, 0, 1) / images.numel()
        entropy = -(shares * shares.clamp(min=1e-300).log2()).sum().item()
        lit = {"bright": (images > 0.5).double().mean().item()}
        return {"entropy": entropy, "lit": lit, "shares": shares.tolist(), "num_images": 50}

class NoMeasure:
    pass
'''
YAML = """
defaults:
  - full

measures:
  entropy:
    _target_: mymeasures.Entropy
    bins: 10
"""
NODE = {"_target_": "mymeasures.Entropy", "bins": 10}
ASKED = ["+evaluation.measures.entropy._target_=mymeasures.Entropy", "+evaluation.measures.entropy.bins=10"]
SMALL = ["evaluation.iwae.num_samples=2", "evaluation.iwae.num_images=20", "evaluation.cache=null"]
PICTURES = ["figures.only=[samples]", "figures.num_samples=4", "figures.gif=false", "figures.projector=0"]


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Iterator[Path]:
    """A folder with a module of measures and a folder of configs; the module may be named by configs."""
    root = tmp_path_factory.mktemp("mine")
    (root / "mymeasures.py").write_text(MINE)
    (root / "conf" / "evaluation").mkdir(parents=True)
    (root / "conf" / "evaluation" / "mine.yaml").write_text(YAML)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        patch.setattr(building, "ALLOWED_TARGETS", (*building.ALLOWED_TARGETS, "mymeasures."))
        yield root
    sys.modules.pop("mymeasures", None)


@pytest.fixture(scope="module")
def data_settings(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("data")
    digests = ",".join(f"{name}:'{sha}'" for name, sha in write_idx_dataset(root, 300, 100).items())
    sizes = ["data.val_size=50", "model.hidden_dim=16", "trainer.epochs=1", "device=cpu"]
    return [f"data.root={root}", f"data.sha256={{{digests}}}", "data.download=false", *sizes]


def composed(folder: Path | None, overrides: list[str], program: str = "train") -> dict[str, Any]:
    """As the command line with ``--config-dir`` gives it."""
    made = composing._compose(overrides, program, folder and folder / "conf")
    with open_dict(made):
        own = made.pop("hydra")
    return resolve(made, own.runtime)


@pytest.fixture(scope="module")
def sweep(mine, data_settings, tmp_path_factory) -> Path:
    """Two runs, with a measure of one's own in both."""
    root = tmp_path_factory.mktemp("outputs")
    for beta in ("0.5", "2"):
        given = [*data_settings, *SMALL, *PICTURES, f"beta={beta}", "evaluation=mine", f"output_root={root}"]
        train(composed(mine, [*given, "sweep_name=own"]))
    return root / "own"


@pytest.fixture
def run(sweep, tmp_path) -> RunDirectory:
    (first, _) = sorted(path for path in sweep.glob("base-*"))
    return RunDirectory(Path(shutil.copytree(first, tmp_path / first.name)))


def evaluate(run: RunDirectory, *overrides: str, folder: Path | None = None) -> dict[str, Any]:
    settings = composed(folder, [f"run={run.path}", *SMALL, *PICTURES, *overrides], "evaluate")
    (results,) = evaluate_runs(settings)
    return results


# --- one's own, from end to end -------------------------------------------------------------------------------


def test_its_block_holds_values_settings_columns_and_its_origin(run):
    results = read_record(run.results)
    block = results["entropy"]
    assert block["settings"] == {"measure": NODE}
    assert block["columns"] == [
        {"tag": "entropy", "header": "entropy", "unit": "bits", "digits": 6, "direction": "higher"},
        {"tag": "lit/bright", "header": "lit", "unit": "share", "digits": 2, "direction": None},
    ]
    assert 0 < block["entropy"] < 3.33
    assert len(block["shares"]) == 10
    assert results["provenance"]["evaluation"]["entropy"] == results["provenance"]["evaluation"]["test"]
    assert list(results)[4:10] == ["test", "iwae", "latent", "decomposition", "samplers", "entropy"]


def test_it_names_no_other_run(mine, data_settings):
    usual, own = (RunIdentity.of(compose([*data_settings, *asked])) for asked in ([], ASKED))
    assert usual == own


def test_its_numbers_are_in_tensorboard(run, mine, data_settings):
    accumulator = EventAccumulator(str(run.path))
    accumulator.Reload()
    block = read_record(run.results)["entropy"]
    (event,) = accumulator.Scalars("entropy/entropy")
    assert event.value == pytest.approx(block["entropy"])
    assert accumulator.Scalars("entropy/lit/bright")
    shown = VAEExperiment(compose(data_settings + SMALL + ASKED), torch.device("cpu"))
    usual = VAEExperiment(compose(data_settings + SMALL), torch.device("cpu"))
    assert set(shown.metrics) - set(usual.metrics) == {"entropy/entropy", "entropy/lit/bright"}
    assert shown.layout == {
        **usual.layout,
        "entropy": {"entropy": ["entropy/entropy$"], "lit": ["entropy/lit/bright$"]},
    }


def test_its_numbers_are_in_the_report(sweep, tmp_path):
    write_report([sweep], tmp_path)
    found = {run.beta: run.scalars for run in collect([sweep])}
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert {float(row["beta"]): float(row["entropy/entropy"]) for row in rows} == {
        beta: scalars["entropy/entropy"] for beta, scalars in found.items()
    }
    settings = settings_of(collect([sweep]))
    comparison = compare(settings)
    place = comparison.header.index("entropy")
    assert comparison.header[place:] == ["entropy", "lit"]
    best = max(scalars["entropy/entropy"] for scalars in found.values())
    assert [cell.text for cell in (row[place] for row in comparison.rows) if cell.best] == [f"{best:.6f}"]
    assert all(row[place + 1].text.endswith("%") and not row[place + 1].best for row in comparison.rows)
    assert "entropy: bits, 50 images." in comparison.caption
    assert "Best of each column in bold (none of recon, KL, " in comparison.caption
    figure = against_beta(settings)
    assert figure
    panels = {axes.get_title(): axes.get_ylabel() for axes in figure.axes}
    assert panels["entropy, test set"] == "bits"
    assert panels["lit, test set"] == "share"


def test_its_numbers_are_in_the_summary_of_the_run(run):
    block = read_record(run.results)["entropy"]
    said = describe(run, read_record(run.results)).split("\n")
    (line,) = (line for line in said if "entropy: entropy" in line)
    assert line.split() == ["entropy:", "entropy", f"{block['entropy']:.6f}", "bits", "(50", "images)"]


def test_readers_of_files_need_no_class(run, sweep, monkeypatch):
    """As a report on another machine."""
    monkeypatch.setattr(building, "ALLOWED_TARGETS", ("fmvae.",))
    monkeypatch.setitem(sys.modules, "mymeasures", None)
    assert "entropy" in compare(settings_of(collect([sweep]))).header
    assert "entropy: entropy" in describe(run, read_record(run.results))


def test_it_is_verified_bit_for_bit(run, monkeypatch):
    found = verify(run, device="cpu")
    assert found.problems == []
    assert "entropy" in found.measures
    record = read_record(run.results)
    record["entropy"]["entropy"] *= 1 + 2**-52
    write_record(run.results, record)
    (problem,) = verify(run, device="cpu").problems
    assert problem.startswith("entropy/entropy: ")
    monkeypatch.setattr(building, "ALLOWED_TARGETS", ("fmvae.", "torch."))  # a stored config grants itself nothing
    (problem,) = verify(run, device="cpu").problems
    assert problem.startswith("entropy: can't be computed again here with its settings ")


def test_what_brings_columns_and_no_origin_does_not_verify(run):
    record = read_record(run.results)
    record["other"] = {"columns": [], "x": 1.0}
    write_record(run.results, record)
    assert any("other not of the best checkpoint" in problem for problem in verify(run, recompute=False).problems)


def test_it_is_kept_by_its_settings(run, mine, monkeypatch):
    before = read_record(run.results)
    import mymeasures  # type: ignore[import-not-found]

    monkeypatch.setattr(mymeasures.Entropy, "compute", None)
    assert evaluate(run, "evaluation=mine", folder=mine) == before
    assert evaluate(run, "evaluation=fast")["entropy"] == before["entropy"]
    with pytest.raises(RunError, match=r"^evaluation\.measures\.entropy: TypeError"):
        evaluate(run, "evaluation=mine", "evaluation.measures.entropy.bins=5", folder=mine)
    monkeypatch.undo()
    after = evaluate(run, "evaluation=mine", "evaluation.measures.entropy.bins=5", folder=mine)
    assert len(after["entropy"]["shares"]) == 5
    assert after["test"] == before["test"]


def test_what_its_columns_say_anew_is_told_anew(run, mine, monkeypatch):
    import mymeasures  # type: ignore[import-not-found]

    (_, second) = mymeasures.Entropy.columns
    monkeypatch.setattr(mymeasures.Entropy, "columns", (Column("entropy", "H", "bits"), second))
    assert evaluate(run, "evaluation=mine", folder=mine)["entropy"]["columns"][0]["header"] == "H"


def test_an_old_run_is_measured_by_it(run, mine):
    record = read_record(run.results)
    block = record.pop("entropy")
    del record["provenance"]["evaluation"]["entropy"]
    write_record(run.results, record)
    assert evaluate(run, "evaluation=mine", folder=mine)["entropy"] == block


# --- a search by it -------------------------------------------------------------------------------------------


def test_a_search_goes_by_its_column(sweep, mine, data_settings):
    config = compose([*data_settings, *SMALL, *ASKED, "objective=entropy/entropy"])
    experiment = VAEExperiment(config, torch.device("cpu"))
    tags = [column.tag for column in experiment.parts.evaluator.columns()]
    check_objective(config, tags)
    assert directions(config) == ("maximize",)
    for run in collect([sweep]):
        results = read_record(run.directory.results)
        assert objective(config, results) == results["entropy"]["entropy"]
    with pytest.raises(ObjectiveError, match="neither low nor high values"):
        directions(config | {"objective": "entropy/lit/bright"})
    with pytest.raises(ObjectiveError, match=r"choose from entropy/entropy, entropy/lit/bright"):
        directions(config | {"objective": "entropy/entropi"})
    with pytest.raises(ObjectiveError, match=r"did you mean entropy/entropy\?"):
        check_objective(config | {"objective": "entropy/entropi"}, tags)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("neg_elbo", "minimize"),
        ("accuracy", "maximize"),
        ("test/iwae_16", "minimize"),
        ("fid/pixels/kid", "minimize"),
        ("fid/resnet18/recall", "maximize"),
        ("latent/gaussian_total_correlation", "minimize"),
        ("decomposition/tc", "minimize"),
    ],
)
def test_any_number_with_a_direction_is_searched_by(name, expected):
    assert directions(compose([f"objective={name}"])) == (expected,)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("elbo", r"'elbo' is not one of neg_elbo, iwae, fid, accuracy, .*did you mean neg_elbo\?"),
        ("latent/active_unit", r"did you mean latent/active_units\?"),
        ("fid/pixel/kid", "did you mean fid/pixels/kid"),
        ("entropy/entropy", "give a word, or a tag"),
        ("test/neg_elboo", "did you mean test/neg_elbo"),
        ("zebra", "give a word, or a tag"),
        ("latent/total_correlation", "another name now.*give objective=latent/gaussian_total_correlation"),
    ],
)
def test_an_objective_that_is_no_number_is_refused_when_composed(name, said):
    with pytest.raises(ConfigError, match=f"^objective: .*{said}"):
        compose([f"objective={name}"])


def test_a_number_without_a_direction_is_known_and_needs_one():
    config = compose(["objective=latent/active_units"])
    with pytest.raises(ObjectiveError, match=r"hydra\.sweeper\.direction=minimize, or maximize"):
        directions(config)


def test_another_number_of_a_block_that_is_measured_is_not_measured(data_settings):
    asked = compose([*data_settings, *SMALL, "objective=test/iwae_3"])
    with pytest.raises(ObjectiveError, match=r"give evaluation\.iwae\.num_samples"):
        VAEExperiment(asked, torch.device("cpu"))
    VAEExperiment(asked | {"objective": "test/iwae_2"}, torch.device("cpu"))
    with pytest.raises(ObjectiveError, match=r"evaluation\.latent=true"):
        VAEExperiment(
            compose([*data_settings, "evaluation=fast", "objective=latent/active_units"]), torch.device("cpu")
        )


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test", "fid", "checkpoint", "train", "provenance"])
def test_a_name_that_is_taken_is_refused(name, mine):
    with pytest.raises(
        ConfigError, match=rf"^evaluation\.measures\.{name}: '{name}' is the name of something else"
    ):
        registry.own_measures({"measures": {name: NODE}})


@pytest.mark.parametrize(
    ("name", "node", "said"),
    [
        ("a/b", NODE, "cannot name a block"),
        ("x", 3, "3 is no measure"),
        ("x", {"bins": 3}, "is no measure"),
        ("x", {"_target_": "mymeasures.NoMeasure"}, "does not inherit from Measure"),
        ("x", {"_target_": "mymeasures.Nothing"}, "there is no 'mymeasures.Nothing'"),
        ("x", {"_target_": "os.system"}, "'os.system' is not allowed"),
        ("x", NODE | {"bims": 3}, "unexpected keyword"),
        ("x", {"_target_": "fmvae.evaluation.measures.elbo.Elbo"}, "comes with fmvae"),
    ],
)
def test_what_is_no_measure_is_refused_in_one_line(name, node, said, mine):
    with pytest.raises(ConfigError, match=rf"^evaluation\.measures\.{name}.*{said}"):
        registry.own_measures({"measures": {name: node}})


def test_an_argument_that_its_class_does_not_take_is_refused_when_composed(mine):
    with pytest.raises(
        ConfigError, match=r"^evaluation\.measures\.entropy\.bims: .*did you mean .*entropy\.bins\?"
    ):
        compose([*ASKED, "+evaluation.measures.entropy.bims=3"])
    with pytest.raises(ConfigError, match=r"^evaluation\.mesures: there is no such key"):
        compose(["+evaluation.mesures.entropy=3"])


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        ("an error", "KeyError: 'broken'"),
        ("nan", "ValueError: Out of range float"),
        ([1], "must return a mapping"),
        ({"settings": {}}, "none named settings or columns"),
        ({"entropy": 1.0}, "does not return lit/bright"),
        ({"entropy": "high", "lit": {"bright": 1.0}}, "does not return entropy"),
    ],
)
def test_what_it_returns_is_looked_at(returns, said, mine, run):
    """A run loses nothing by it."""
    before = read_record(run.results)
    given = json.dumps(returns).replace('"', "") if not isinstance(returns, str) else f"'{returns}'"
    with pytest.raises(RunError, match=rf"^evaluation\.measures\.entropy: .*{said}.*mymeasures\.Entropy"):
        evaluate(run, *ASKED, f"+evaluation.measures.entropy.returns={given}")
    assert read_record(run.results) == before


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        (
            "columns",
            Column("entropy", "entropy"),
            r"its columns are Column\(.*give a tuple, as \(Column\(...\),\)",
        ),
        ("columns", ("entropy",), "'entropy' is not a column"),
        ("needs", "labels", r"its needs are 'labels'; give a tuple, as \(\"labels\",\)"),
        ("needs", ("label",), r"its needs are \('label',\); .*'labels', 'factors', 'conditional model'"),
        ("settings", {"x": float("inf")}, "its settings: "),
    ],
)
def test_what_its_class_states_is_checked_before_training(attribute, value, said, mine, monkeypatch):
    import mymeasures  # type: ignore[import-not-found]

    class Wrong(mymeasures.Entropy):
        def __init__(self):
            super().__init__()
            if attribute == "needs":
                self.needs = value

    if attribute != "needs":
        setattr(Wrong, attribute, value)
    Wrong.__module__ = "mymeasures"
    monkeypatch.setattr(mymeasures, "Wrong", Wrong, raising=False)
    with pytest.raises(ConfigError, match=rf"^evaluation\.measures\.x: {said}"):
        registry.own_measures({"measures": {"x": {"_target_": "mymeasures.Wrong"}}})


def test_settings_that_no_file_can_hold_are_refused(mine):
    (own,) = registry.own_measures({"measures": {"x": NODE}})
    vars(own.measure)["told"] = {"x": float("inf")}
    with pytest.raises(ConfigError, match=r"^evaluation\.measures\.x: its settings"):
        _ = own.settings
    vars(own.measure)["told"] = {"x": (1, 2)}
    assert own.settings == {"measure": NODE, "x": [1, 2]}


def test_what_it_needs_and_is_not_there_leaves_it_out_with_a_line(mine, data_settings, caplog):
    for model, need, there in (
        ("base", "labels", True),
        ("base", "factors", False),
        ("base", "conditional model", False),
        ("conditional", "conditional model", True),
    ):
        given = [
            *data_settings,
            *SMALL,
            *ASKED,
            f"+evaluation.measures.entropy.needs=['{need}']",
            f"model={model}",
        ]
        evaluator = VAEExperiment(compose(given), torch.device("cpu")).parts.evaluator
        assert ("entropy" in evaluator.plan()) == there
        caplog.clear()
        with caplog.at_level("INFO", "fmvae"):
            next(evaluator.measure())
        assert (f"entropy is left out: it needs {need}" in caplog.text) == (not there)


# --- everything that lists measures is derived ----------------------------------------------------------------


class Brightness(BuiltIn):
    """A measure that comes with fmvae, as if it did."""

    name = "brightness"
    off: ClassVar = {"latent": False}
    way_in = "ask for it"

    @classmethod
    def asked(cls, context: Context, evaluation):
        if evaluation["latent"]:
            yield cls()

    @classmethod
    def again(cls, name, settings):
        return {"latent": True}

    def compute(self, context: Context) -> dict[str, Any]:
        return {"mean": context.data.test.images.double().mean().item(), "num_images": len(context.data.test)}


def test_a_measure_is_added_by_a_class_and_its_columns(data_settings, tmp_path, monkeypatch):
    given = [*data_settings, *SMALL, *PICTURES]
    before = VAEExperiment(compose(given), torch.device("cpu"))
    monkeypatch.setitem(registry.BUILT_IN, "brightness", Brightness)
    added = Column("mean", "brightness", "grey levels", 1, "higher", (*columns.EVERYWHERE, "status"), "brightness")
    monkeypatch.setitem(columns.BLOCKS, "brightness", (added,))
    shown = VAEExperiment(compose(given), torch.device("cpu"))
    assert set(shown.metrics) - set(before.metrics) == {"brightness/mean"}
    assert shown.layout["test"] == {**before.layout["test"], "brightness": ["brightness/mean$"]}
    for beta in ("0.5", "1"):
        train(compose([*given, f"beta={beta}", f"output_root={tmp_path}", "sweep_name=s"]))
    settings = settings_of(collect([tmp_path / "s"]))
    (column,) = (column for column in columns_of(settings) if column.header == "brightness")
    assert column.tag == "brightness/mean"
    figure = against_beta(settings)
    assert figure
    assert "brightness, test set" in [axes.get_title() for axes in figure.axes]
    run = settings[0].first.directory
    results = read_record(run.results)
    assert "brightness" in blocks(results)
    assert flat_scalars(results)["brightness/mean"] == results["brightness"]["mean"]
    assert "columns" not in results["brightness"]
    found = verify(run, device="cpu")
    assert (found.problems, "brightness" in found.measures) == ([], True)
    assert directions(compose(["objective=brightness/mean"])) == ("maximize",)
    said = summary(SweepDirectory(tmp_path / "s"), {}, [progress(run)])
    assert f"brightness {results['brightness']['mean']:.1f}" in said
    monkeypatch.undo()
    with pytest.raises(
        ConfigError, match=r"^objective: "
    ):  # negative control: without the entries nothing knows it
        compose(["objective=brightness/mean"])
    assert "brightness" not in blocks(results)


def test_every_measure_has_columns_and_every_number_one_and_the_other_way_round(small_data):
    """Of a conditional model, so that all are measured."""
    assert list(registry.BUILT_IN) == list(
        dict.fromkeys(["test", "iwae", "latent", "decomposition", *columns.kinds()])
    )
    data = small_data(num_train=1000, val_size=100, num_test=800)
    settings = compose([*SMALL, "evaluation.fid.features=[pixels]", "evaluation.fid.num_images=790"])["evaluation"]
    evaluator = Evaluator(
        ConditionalVAE(2, hidden_dim=8), ELBO(Bernoulli(), Constant(1.0)), data, seed=0, settings=settings
    )
    measured = {
        name: evaluator.compute(name) for name in ("test", "iwae", "latent", "decomposition", "fid/pixels")
    }
    for name, block in measured.items():
        tags = {tag for tag, _ in columns.numbers(block)}
        listed = {column.tag for column in evaluator.measures[name].columns}
        assert tags == listed, name
        assert {column.tag for column in columns.columns_of(name, block)} == {
            f"{group_of(name)}/{tag}" for tag in tags
        }


# --- parts of an objective that are its own -------------------------------------------------------------------


def test_any_number_in_the_block_test_is_a_column(tmp_path):
    for beta in (0.5, 2.0):
        write_run(tmp_path, beta=beta, mi=3.0 + beta, tc=0.25)
    runs = collect([tmp_path])
    comparison = compare(settings_of(runs))
    place = comparison.header.index("KL")
    assert comparison.header[place : place + 4] == ["KL", "mi (in batches)", "tc (in batches)", "IWAE 64"]
    assert [row[place + 1].text for row in comparison.rows] == ["3.5000", "5.0000"]
    assert not any(cell.best for row in comparison.rows for cell in row[place + 1 : place + 3])
    figure = against_beta(settings_of(runs))
    assert figure
    panels = {axes.get_title(): axes.get_ylabel() for axes in figure.axes}
    assert panels["mi (in batches), test set"] == ""  # its unit is not known
    assert panels["−ELBO, test set"] == "nats per image"
    assert runs[0].scalars["test/mi"] == 3.5
    known = [
        column.tag for column in columns_in({"test": {"objective": 1.0, "recon": 1.0, "objective_at_mean": 1.0}})
    ]
    assert known == ["test/recon", "test/objective", "test/objective_at_mean"]


def test_they_are_in_the_summary_too(run):
    results = read_record(run.results)
    assert "  mi " not in describe(run, results)
    results["test"]["mi"] = 3.25
    results["test"]["dimension_wise"] = 0.0625
    lines = describe(run, results).split("\n")
    told = [line for line in lines if "(in batches)" in line]
    assert [line.split() for line in told] == [
        ["mi", "(in", "batches)", "3.2500"],
        ["dimension_wise", "(in", "batches)", "0.0625"],
    ]
    assert {len(line) for line in told} == {len(line) for line in lines if line.startswith("  KL  ")}  # aligned


# --- damaged or foreign columns -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stored", [3, {}, {"tag": "x"}, {"tag": 1, "header": "", "unit": "", "digits": 2, "direction": None}]
)
def test_what_is_no_column_is_passed_over(stored):
    good = Column("x", "x").stored()
    found = columns_in(
        {"own": {"x": 1.0, "columns": [stored, good, good | {"digits": -1}, good | {"direction": 3}]}}
    )
    assert [column.tag for column in found] == ["own/x"]

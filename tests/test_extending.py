"""docs/extending.md, as a reader follows it: its files in a folder outside the project, its commands run there."""

import copy
import csv
import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.cli.process import ROOT, Finished, refused, succeeded
from tests.faults.warmed import warmed
from tests.idx import write_idx_dataset

PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SECTIONS = {
    "model": "A model",
    "objective": "An objective",
    "prior": "A prior",
    "data": "A dataset",
    "measure": "A measure",
    "tracker": "A tracker",
}
QUICK = [
    "trainer.epochs=2",
    "figures.gif=false",
    "figures.projector=0",
    "threads=1",
]


class Section(NamedTuple):
    """The files, by path, and the commands of a part of the page."""

    files: dict[str, str]
    commands: list[list[str]]


def sections(text: str) -> dict[str, Section]:
    """What the page has under each of the headings of ``SECTIONS``."""
    found = {}
    for door, title in SECTIONS.items():
        part = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        files, commands = {}, []
        for language, body in BLOCK.findall(part):
            if language == "bash":
                commands += [shlex.split(line) for line in body.splitlines()]
            else:
                first, _, rest = body.partition("\n")
                files[first.removeprefix("# ")] = rest
        found[door] = Section(files, commands)
    return found


DOORS = sections(PAGE.read_text(encoding="utf-8"))


class Reader:
    """Someone with a folder that holds the page's files, a small dataset, and outputs."""

    def __init__(self, folder: Path):
        self.folder, self.outputs = folder, folder / "outputs"
        (folder / "mystudy").mkdir(parents=True)
        (folder / "mystudy" / "__init__.py").touch()
        for section in DOORS.values():
            for name, text in section.files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
        sha256 = write_idx_dataset(folder / "idx", 300, 200)
        hashes = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
        self.garments = [f"data.root={folder / 'idx'}", f"data.sha256={{{hashes}}}", "data.val_size=60"]
        draw = np.random.default_rng(0)
        shapes = {
            "images": draw.integers(0, 256, (300, 12, 12)),
            "test_images": draw.integers(0, 256, (90, 12, 12)),
        }
        arrays: dict[str, Any] = {name: array.astype(np.uint8) for name, array in shapes.items()}
        arrays |= {"labels": np.arange(300) % 3, "test_labels": np.arange(90) % 3}
        np.savez(folder / "shapes.npz", **arrays)

    def run(self, command: list[str], *more: str) -> Finished:
        """A command of the page, with settings that make it quick."""
        python, program, *arguments = command
        assert python == "python"
        assert program.startswith("fmvae/")
        arguments = [argument.replace("fmvae/outputs/<run>", str(self.newest())) for argument in arguments]
        settings = ["figures=none"]
        if program.endswith("train.py"):
            settings = [*QUICK, f"output_root={self.outputs}"]
            settings += [] if "data=shapes" in arguments else self.garments
            settings += [] if any(a.startswith("evaluation=") for a in arguments) else ["evaluation=fast"]
            # drawing takes longer than such a run; the curves are for the objective's part
            objective = "loss=free_bits" in arguments and "-m" not in arguments
            settings += [f"figures.only=[{'training_curves' * objective}]"]
        return warmed().call(program.removeprefix("fmvae/"), *arguments, *settings, *more, cwd=self.folder)

    def newest(self) -> Path:
        found = sorted(self.outputs.rglob("config.yaml"), key=lambda file: file.stat().st_mtime)
        return found[-1].parent if found else self.outputs

    def runs(self, part: str) -> list[Path]:
        return sorted(file.parent for file in self.outputs.rglob("config.yaml") if part in str(file))


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def done(reader) -> dict[str, list[str]]:
    """What each command of each section said."""
    return {door: [succeeded(reader.run(c)) for c in section.commands] for door, section in DOORS.items()}


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def scalars(run: Path) -> set[str]:
    """The tags of a run's scalars in TensorBoard."""
    events = EventAccumulator(str(run))
    events.Reload()
    return set(events.Tags()["scalars"])


def test_each_door_is_one_class_and_one_yaml():
    for door, section in DOORS.items():
        kinds = sorted(Path(name).suffix for name in section.files)
        assert kinds == [".py", ".yaml"], door
        assert not any(name.startswith("fmvae/") for name in section.files)
        assert section.commands, door


@pytest.mark.usefixtures("done")
def test_the_model_has_runs_of_its_own_name(reader):
    alone, stacked = reader.runs("outputs/skip-b1"), reader.runs("latent_dim-model")
    assert [results(run)["run"].startswith("skip-b1-z2-s0") for run in alone] == [True]
    assert [run.name.rsplit("-", 1)[0] for run in stacked] == [
        *("base-b1-z2-s0", "base-b1-z3-s0", "skip-b1-z2-s0", "skip-b1-z3-s0")
    ]
    assert all("test" in results(run) for run in stacked)


# --- the objective --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("done")
def test_a_part_of_ones_own_is_wherever_ours_are(reader):
    (alone,) = [run for run in reader.runs("-z10-") if run.parent == reader.outputs]
    for row in rows(alone):
        assert row["train/paid"] >= row["train/kl"]
        assert row["val/paid"] >= row["val/kl"]
    test = results(alone)["test"]
    assert test["paid"] >= test["kl"]
    assert test["objective"] == pytest.approx(test["recon"] + test["paid"], rel=0.05), "other draws alone"
    assert {"Train/paid", "Val/paid", "test/paid"} <= scalars(alone)
    assert (alone / "figures" / "training_curves.png").is_file()


@pytest.mark.usefixtures("done")
def test_it_is_in_the_report_of_a_sweep(reader):
    (report,) = [path.parent for path in reader.outputs.glob("seed-*/report/index.html")]
    with (report / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["test/paid"]) > 0 for row in table] == [True, True]
    assert "| paid (in batches) |" in (report / "table.md").read_text()
    assert '<th scope="col">paid (in batches)' in (report / "index.html").read_text()


@pytest.mark.usefixtures("done")
def test_stacked_and_alone_it_gives_the_same_numbers(reader):
    stacked = reader.runs("outputs/seed-")
    assert len(stacked) == 2
    loss = next(c for c in DOORS["objective"].commands if "-m" in c)
    for run in stacked:
        seed = next(part for part in run.name.split("-") if part.startswith("s"))[1:]
        command = [argument for argument in loss if argument not in ("-m", "hydra/launcher=stacked", "seed=0,1")]
        succeeded(reader.run(command, f"seed={seed}"))
        (alone,) = [found for found in reader.runs(run.name) if found.parent == reader.outputs]
        for ours, theirs in zip(rows(run), rows(alone), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        assert "stacked:" not in (alone / "train.log").read_text()
        assert "stacked: 2 runs" in (run / "train.log").read_text() + (reader.newest() / "train.log").read_text()


def in_process(reader: Reader, monkeypatch: pytest.MonkeyPatch, capture: bool | None) -> list[dict[str, float]]:
    """The history of the objective's training in this process: by the plain loop, or without asking the device."""
    from fmvae.config import compose
    from fmvae.config.own_code import allowing
    from fmvae.experiments.vae import VAEExperiment
    from fmvae.training import VAETrainer
    from fmvae.training.engines.cuda_graph import CUDAGraph

    monkeypatch.syspath_prepend(str(reader.folder))
    settings = [*QUICK, *reader.garments, "evaluation=fast", "device=cpu", "+loss.floor=0.25"]
    with allowing(["mystudy"]):
        config = compose([*settings, "loss._target_=mystudy.objectives.FreeBits"])
        experiment = VAEExperiment(copy.deepcopy(config), torch.device("cpu"))
        assert isinstance(experiment.trainer, VAETrainer)
        if capture is not None:
            experiment.trainer.engine = CUDAGraph(experiment.trainer, capture=capture)
        return experiment.trainer.train()


def test_without_asking_the_device_it_is_the_plain_loop_to_the_last_bit(reader, monkeypatch):
    plain = in_process(reader, monkeypatch, None)
    assert in_process(reader, monkeypatch, capture=False) == plain
    assert all(row["train/paid"] > 0 for row in plain)


# --- the prior ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("done")
def test_the_prior_is_trained_saved_and_followed(reader):
    from fmvae.config.own_code import allowing
    from fmvae.measurement import load_run

    (run,) = reader.runs("outputs/base-heavy-b1-z3-s0")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(reader.folder))
        with allowing(["mystudy"]):
            model = load_run(run).parts.model
    log_scale = model.latent_prior.state_dict()["log_scale"].item()
    assert abs(log_scale) > 1e-3, "trained"
    draws = model.prior_density().sample(20_000, torch.Generator().manual_seed(0)).detach()
    assert float(draws.std()) == pytest.approx(math.exp(log_scale) * (5 / 3) ** 0.5, rel=0.05)
    assert "decomposition" not in results(run), "evaluation=fast"
    assert results(run)["test"]["kl"] > 0


# --- the dataset ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("done")
def test_the_dataset_is_trained_on_and_named_in_the_results(reader):
    from fmvae.config.own_code import allowing
    from fmvae.measurement import load_run

    (run,) = [r for r in reader.runs("outputs/base-") if "Npz" in (r / "config.yaml").read_text()]
    found = results(run)
    assert found["test"]["num_images"] == 90
    digests = found["provenance"]["data_sha256"]
    assert set(digests) == {
        f"{split}-{kind}" for split in ("train", "val", "test") for kind in ("images", "labels")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(reader.folder))
        patch.chdir(reader.folder)
        with allowing(["mystudy"]):
            loaded = load_run(run)
    data = loaded.parts.data
    assert data.class_names == ("0", "1", "2")
    assert [len(split) for split in data.splits] == [200, 100, 90]
    assert data.val.labels.bincount().tolist() in ([34, 33, 33], [33, 34, 33], [33, 33, 34])


# --- the measure ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("done")
def test_the_measure_is_in_the_results_and_right(reader):
    from fmvae.measurement import load_run

    (run,) = [r for r in reader.runs("outputs/base-") if "pixel_error" in results(r)]
    block = results(run)["pixel_error"]
    loaded = load_run(run)
    images = loaded.parts.data.test.images.double() / 255
    with torch.inference_mode():
        mu, _ = loaded.parts.model.encode(images.float())
        made = loaded.parts.model.decode(mu).double().sigmoid()
    assert block["mse"] == pytest.approx(np.mean((images - made).numpy() ** 2), rel=1e-5)
    assert block["num_images"] == 200
    assert "pixel_error/mse" in scalars(run)
    assert "pixel_error" in results(run)["provenance"]["evaluation"]
    own = results(run)["provenance"]
    assert re.search(r"[0-9a-f]{64}", json.dumps(own["training"])), "of the source of the package"


@pytest.mark.usefixtures("done")
def test_the_measure_is_verified_and_kept(reader):
    (run,) = [r for r in reader.runs("outputs/base-") if "pixel_error" in results(r)]
    before = (run / "results.json").read_bytes()
    said = succeeded(warmed().call("fmvae.verify", "--allow", "mystudy", str(run), cwd=reader.folder))
    assert "pixel_error" in said
    assert "equal bit for bit" in said
    evaluate = next(c for c in DOORS["measure"].commands if "evaluate.py" in c[1])
    again = [argument.replace("fmvae/outputs/<run>", str(run)) for argument in evaluate]
    succeeded(reader.run(again))
    assert (run / "results.json").read_bytes() == before


# --- the tracker ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("done")
def test_the_tracker_got_each_epoch_and_the_final_numbers(reader):
    from fmvae.runs.recorder import by_tag
    from fmvae.runs.results import flat_scalars

    told = [json.loads(line) for line in (reader.folder / "tracked.jsonl").read_text().splitlines()]
    (run,) = [r for r in reader.runs("outputs/base-") if r.name == told[0]["run"]]
    assert told[0]["settings"]["model"] == "base"
    assert [{k: v for k, v in row.items() if k not in ("run", "epoch")} for row in told[1:-1]] == [
        *map(by_tag, rows(run)),
        flat_scalars(results(run)),
    ]
    assert told[-1] == {"run": run.name, "state": "complete"}


# --- without leave --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", [*DOORS])
def test_negative_control_without_leave_none_of_it_is_built(door, reader):
    command = next(c for c in DOORS[door].commands if "train.py" in c[1] and "-m" not in c)
    refused(reader.run([a for a in command if not a.startswith("allow=")], "seed=7"), "allow=mystudy")


def test_negative_control_a_page_that_edits_the_package_is_noticed():
    text = PAGE.read_text(encoding="utf-8").replace("# mystudy/measures.py", "# fmvae/evaluation/mine.py")
    files: Mapping[str, str] = sections(text)["measure"].files
    assert any(name.startswith("fmvae/") for name in files)

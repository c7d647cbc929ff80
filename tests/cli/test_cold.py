"""Each program, started cold once: it says and writes what it does when it is started warm, as in most tests."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.process import ROOT, Finished, Study, call, succeeded
from tests.cli.test_exactness import COMPARED
from tests.faults.warmed import warmed

BITS = [name for name in COMPARED if name != "fid.json"]  # which is not measured


def said(finished: Finished, folder: Path) -> tuple[str, ...]:
    """All that a process said, but for times, phases (a short one has no line) and where it worked."""
    times, phase = re.compile(r"\d+\.\d s, \d+ s left"), re.compile(r"  .+: \d+\.\d s")
    lines = (finished.stdout + finished.stderr).splitlines()
    return tuple(times.sub("", line).replace(str(folder), "") for line in lines if not phase.fullmatch(line))


def bits(study: Study, name: str = "base-*") -> list[bytes]:
    return [(study.run(name) / file).read_bytes() for file in BITS]


def test_train_py(study, finished, tmp_path):
    """Trained cold, the run has the bits and the lines of one that was trained warm."""
    ours = replace(study, outputs=tmp_path)
    cold = call(str(ROOT / "train.py"), *ours.settings)
    succeeded(cold)
    assert said(cold, tmp_path) == said(finished["base-b1-z2-s0-"], study.outputs)
    assert bits(ours) == bits(study)


def test_negative_control_a_warm_start_that_draws_other_numbers_is_noticed(study, tmp_path):
    ours = replace(study, outputs=tmp_path)
    other = "import fmvae.rng as r\nold = r.stream\nr.stream = lambda seed, *a, **k: old(seed + 1, *a, **k)"
    succeeded(warmed().call("train.py", *ours.settings, prelude=other))
    assert bits(ours) != bits(study)


@pytest.mark.slow
def test_evaluate_py(study, tmp_path):
    ours = study.copied_to(tmp_path / "outputs")
    (ours.run("base-*") / "results.json").unlink()
    text = succeeded(call(str(ROOT / "evaluate.py"), *ours.quick, f"run={ours.run('base-*')}"))
    assert "best checkpoint, epoch 1" in text
    assert bits(ours) == bits(study)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("fmvae.report", ["status", "{outputs}"]), ("fmvae.verify", ["{run}"]), ("fmvae.data", ["--help"])],
)
@pytest.mark.one_in(3)
def test_a_module(study, tmp_path, module, arguments):
    outputs = tmp_path / "outputs"
    shutil.copytree(study.outputs, outputs)
    given = [text.format(run=study.run("base-*"), outputs=outputs) for text in arguments]
    cold, warm = call("-m", module, *given), warmed().call(module, *given)
    succeeded(cold)
    assert said(cold, outputs) == said(warm, outputs)

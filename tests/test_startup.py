"""What a process that trains leaves out, each in a process of its own."""

import shutil
import subprocess
import sys

import pytest

from fmvae.weights import SHIPPED
from tests.idx import write_idx_dataset

TRAINING = """
import sys, torch
from torch import nn, optim
if {light}:
    from fmvae.common.torch_setup import without_compiler
    without_compiler()
for kind in (optim.Adam, optim.SGD):
    model = nn.Linear(3, 1)
    optimizer = kind(model.parameters(), lr=0.1, fused=True)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
print(sum(name.startswith("torch._dynamo.") for name in sys.modules))
"""
COMPILING = """
calls = []
def backend(graph, inputs):
    calls.append(graph)
    return graph.forward
compiled = torch.compile(model, backend=backend)
assert torch.equal(compiled(torch.ones(2, 3)), model(torch.ones(2, 3)))
print(len(calls), type(sys.modules["torch._dynamo"]).__name__, type(torch._dynamo).__name__)
"""


def output(program: str) -> list[str]:
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


def test_training_does_not_import_the_compiler_and_compiling_does():
    assert output(TRAINING.format(light=True) + COMPILING) == ["0", "1", "module", "module"]


@pytest.mark.slow
def test_negative_control_optimizers_import_it():
    (modules,) = output(TRAINING.format(light=False))
    assert int(modules) > 10


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
def test_completing_a_word_does_not_import_torch(program):
    found = output(
        "import runpy, sys\n"
        f"sys.argv = ['{program}', '-sc', 'query=bash']\n"
        "import os; os.environ['COMP_LINE'] = 'python train.py mod'; os.environ['COMP_POINT'] = '19'\n"
        f"try: runpy.run_path('{program}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    assert "model=" in found
    assert found[-1] == "False"


FIRST_STEP = """
import os, runpy, sys
def first_step(self, *_, **__):
    late = ("matplotlib", "torchvision", "torch._dynamo.utils", "sklearn", "zuko")
    print("imported:", *(name for name in late if name in sys.modules))
    sys.stdout.flush()
    os._exit(0)
import fmvae.training.loop
fmvae.training.loop.Trainer._end_step = first_step
from fmvae.data import FashionMNISTManager  # so that the shipped weights fit data of our own
FashionMNISTManager.content = property(lambda self: "fashion-mnist", lambda self, content: None)
sys.argv = ["train.py", {arguments}]
runpy.run_path("train.py", run_name="__main__")
"""


def imported_by_the_first_step(tmp_path, *overrides: str) -> set[str]:
    """Of a run with all its figures and an FID, on data of our own."""
    digests = write_idx_dataset(tmp_path / "data", 900, 800)
    sha256 = ",".join(f"{name}:'{digest}'" for name, digest in digests.items())
    arguments = [
        *(f"data.root={tmp_path / 'data'}", f"data.sha256={{{sha256}}}", f"output_root={tmp_path / 'outputs'}"),
        *("data.val_size=50", "evaluation.fid.num_images=800", "device=cpu", *overrides),
    ]
    found = output(FIRST_STEP.format(arguments=", ".join(map(repr, arguments))))
    return set(found[found.index("imported:") + 1 :])


def test_the_first_step_waits_for_no_figure_and_no_measure(tmp_path):
    assert imported_by_the_first_step(tmp_path) == set()


@pytest.mark.slow
def test_negative_control_ones_own_weights_are_read_before_training(tmp_path):
    own = shutil.copy(SHIPPED["sharp"], tmp_path / "own.safetensors")
    assert "torchvision" in imported_by_the_first_step(tmp_path, f"evaluation.extractor.weights={own}")

"""What a process that trains leaves out, each in a process of its own."""

import subprocess
import sys

import pytest

TRAINING = """
import sys, torch
from torch import nn, optim
if {light}:
    from fmvae.startup import without_compiler
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
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()


def test_training_does_not_import_the_compiler_and_compiling_does():
    assert output(TRAINING.format(light=True) + COMPILING) == ["0", "1", "module", "module"]


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

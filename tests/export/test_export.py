"""``python -m fmvae.export``: ONNX equals torch, what differs is not written, and the README's example runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fmvae import verify
from fmvae.config import compose
from fmvae.errors import RunError
from fmvae.experiments import train
from fmvae.export import networks
from fmvae.export.__main__ import main
from fmvae.export.networks import TOLERANCE, Network, check_equal, modules_of, recorded
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.models import VAE
from fmvae.objectives import Bernoulli, ContinuousBernoulli, Gaussian, Laplace, LearnedGaussian, Likelihood
from fmvae.runs import names
from tests.explore.helpers import MODELS, stirred
from tests.idx import write_idx_dataset

onnx = pytest.importorskip("onnx", reason="needs the extra export")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
QUICK = ["evaluation=fast", "evaluation.samplers=[prior]", "evaluation.cache=null", "figures=none"]
LIKELIHOODS: list[Likelihood] = [Bernoulli(), ContinuousBernoulli(), Gaussian(), Laplace(), LearnedGaussian()]
# of each four the first is quick
ORDER = [
    *("conditional_residual", "residual", "residual_group", "gated"),
    *("conv", "beta", "beta_bn_relu", "conditional_conv"),
    *("base_rgb", "base", "conditional"),
]


def labels_of(model: VAE, num: int) -> tuple[torch.Tensor, ...]:
    return (torch.arange(num) % 3,) if model.conditional else ()


def test_no_model_is_forgotten():
    assert sorted(ORDER) == sorted(MODELS)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", ORDER)
def test_onnx_equals_torch_for_every_model(name):
    model = stirred(MODELS[name]()).eval()
    likelihood = LIKELIHOODS[ORDER.index(name) % len(LIKELIHOODS)]
    encoder, decoder = (recorded(module, {}) for module in modules_of(model, likelihood))
    generator = torch.Generator().manual_seed(1)
    for size in (1, 7):
        labels = labels_of(model, size)
        feeds = {"labels": labels[0].numpy()} if labels else {}
        x = torch.rand(size, *model.image_shape, generator=generator)
        z = 2 * torch.randn(size, model.latent_dim, generator=generator)
        with torch.no_grad():  # the model itself, with its own layers
            mu, logvar = model.encode(x, *labels)
            mean = likelihood.mean(model.decode(z, *labels))
        session = onnxruntime.InferenceSession(encoder.content)
        found: Any = session.run(["mu", "logvar"], {"images": x.numpy(), **feeds})
        for theirs, ours in zip(found, (mu, logvar), strict=True):
            assert np.abs(theirs - ours.numpy()).max() < TOLERANCE * max(1, ours.abs().max().item())
            assert np.ptp(ours.numpy()) > 0.01
        (drawn,) = onnxruntime.InferenceSession(decoder.content).run(None, {"z": z.numpy(), **feeds})
        assert np.abs(np.asarray(drawn) - mean.numpy()).max() < TOLERANCE


@pytest.fixture(scope="module")
def exported() -> tuple[VAE, Network]:
    model = stirred(MODELS["conditional"]()).eval()
    return model, recorded(modules_of(model, Bernoulli())[1], {"fmvae.run": "a-run"})


def test_a_changed_weight_is_noticed(exported):
    model, network = exported
    module = modules_of(model, Bernoulli())[1]
    batches = [(torch.randn(size, 4), *labels_of(model, size)) for size in (1, 7)]
    assert 0 <= check_equal(network, module, batches) < TOLERANCE
    proto = onnx.load_from_string(network.content)
    weight = max(proto.graph.initializer, key=lambda tensor: int(np.prod(tensor.dims)))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[5] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    with pytest.raises(RunError, match=r"decoder.onnx: mean of a batch of \d differs from torch's"):
        check_equal(network._replace(content=proto.SerializeToString()), module, batches)


def test_nan_is_a_difference(exported):
    _, network = exported
    other = MODELS["conditional"]()
    with torch.no_grad():
        next(other.parameters()).fill_(float("nan"))
        for parameter in other.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(RunError, match="differs from torch's by inf"):
        check_equal(network, modules_of(other, Bernoulli())[1], [(torch.randn(2, 4), torch.arange(2))])


def test_the_file_says_whose_it_is_and_not_where_it_was_made(exported):
    _, network = exported
    proto = onnx.load_from_string(network.content)
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"fmvae.run": "a-run"}
    for path in (Path(__file__).parents[2], Path(torch.__file__).parents[1], Path.home()):
        assert str(path).encode() not in network.content
    assert [axis.dim_param for axis in proto.graph.input[0].type.tensor_type.shape.dim] == ["batch", ""]


class Undecided(VAE):
    """A model that no exporter can follow: which layer comes next depends on the images."""

    def __init__(self):
        super().__init__(2, (1, 4, 4))
        self.layer = nn.Linear(16, 4)

    def encode(self, x, labels=None):
        found = self.layer(x.flatten(1)).chunk(2, 1)
        return (found[0], found[1]) if x.sum().item() > 3 else (found[1], found[0])

    def decode(self, z, labels=None):
        return z.sum(1)[:, None, None, None].expand(-1, 1, 4, 4)


def test_a_model_that_cannot_be_recorded_is_refused_in_a_line():
    with pytest.raises(RunError) as refused:
        recorded(modules_of(Undecided(), Bernoulli())[0], {})
    assert str(refused.value).startswith("Undecided: torch cannot export its encoder to ONNX (")
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The directory of a conditional run of one epoch with a learned density for p(z)."""
    root = tmp_path_factory.mktemp("exported")
    sha256 = write_idx_dataset(root / "data", 300, 60)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    data = [f"data.root={root}/data", f"data.sha256={{{digests}}}", "data.download=false", "data.val_size=50"]
    model = ["model=conditional", "model.hidden_dim=16", "prior=mixture", "prior.num_components=3"]
    train(compose([*data, *model, *QUICK, "trainer.epochs=1", "device=cpu", f"output_root={root}/outputs"]))
    return next((root / "outputs").glob("conditional-*"))


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / trained.name))


def code_of(folder: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_the_command_writes_a_folder_whose_example_runs_without_fmvae(run, capsys):
    assert main([str(run)]) == 0
    folder = run / "export"
    assert "equal to torch up to" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "decoder.onnx", "encoder.onnx", "prior_draws.npy")
    ]
    code = "import sys\nsys.modules |= dict.fromkeys(('torch', 'fmvae'))\n" + code_of(folder)
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "(7, 1, 28, 28) (7, 1, 28, 28)"), done.stderr
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "$" not in text
    assert "`labels` (batch,) int64 from 0 to 9" in text
    draws = np.load(folder / "prior_draws.npy")
    assert draws.dtype == np.float32
    assert draws.shape == (10_000, 2)


def test_commands_take_short_names(run, capsys, monkeypatch):
    monkeypatch.setattr(names, "OUTPUTS", run.parent)
    for name in ("conditional-mix-b1", "last"):
        assert verify.main(["--files", name]) == 0
        assert run.name in capsys.readouterr().out
        settings = compose([f"run={name}", f"output_root={run.parent}", *QUICK, "device=cpu"], "evaluate")
        (results,) = evaluate_runs(settings)
        assert results["run"] == run.name
    assert verify.main(["--files", "condtional"]) == 1
    assert f"did you mean {run.name}?" in capsys.readouterr().err


def refusal(capsys, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("fmvae: error: ")
    return line


def test_damaged_and_foreign_runs_and_a_missing_library_are_refused_in_a_line(run, tmp_path, capsys, monkeypatch):
    assert "no such directory" in refusal(capsys, tmp_path / "nothing")
    best = run / "checkpoints" / "best.safetensors"
    content = bytearray(best.read_bytes())
    content[-9] ^= 1
    best.write_bytes(content)
    assert "best.safetensors" in refusal(capsys, run)
    (run / "config.yaml").write_text("a: 1\n", encoding="utf-8")
    assert "config.yaml" in refusal(capsys, run)
    (run / "config.yaml").write_text("trainer: {}\n", encoding="utf-8")
    assert "classifier" in refusal(capsys, run)
    monkeypatch.setattr(networks, "find_spec", lambda name: None if name == "onnxruntime" else 1)
    assert "needs onnxruntime, not installed; install it" in refusal(capsys, run)
    assert not (run / "export").exists()


def test_nothing_is_written_if_the_networks_differ(run, capsys, monkeypatch):
    monkeypatch.setattr(networks, "TOLERANCE", -1.0)  # a negative control: nothing is within it
    assert "encoder.onnx: mu of a batch of 1 differs from torch's" in refusal(capsys, run)
    assert not (run / "export").exists()

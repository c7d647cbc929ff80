"""The bits that training gives, to compare two checkouts on one machine: ``python -m tests.golden.bits FOLDER``.

Every model, trained three epochs on small data: alone, in a stack, and as on a GPU but without capturing. The
SHA-256 of each checkpoint file goes to FOLDER/bits.json; bits differ between machines, so none are kept here::

    python -m tests.golden.bits /tmp/new                       # in this checkout
    (cd ../other && python -m tests.golden.bits /tmp/old)      # in the other one
    python -m tests.golden.bits --compare /tmp/old /tmp/new    # which differ, and by how much
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors.numpy import load_file

from tests.idx import write_idx_dataset

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("base", "conv", "beta", "conditional", "conditional_conv", "residual", "conditional_residual")
FILES = ("best", "last")
# on a GPU steps are taken by CUDAGraph; without capturing it works anywhere
RESIDENT = """
import runpy, sys
from fmvae.experiments.vae import VAEExperiment
from fmvae.training.engines.cuda_graph import CUDAGraph
make = VAEExperiment.__init__
def resident(self, config, device):
    make(self, config, device)
    self.trainer.engine = CUDAGraph(self.trainer, capture=False)
VAEExperiment.__init__ = resident
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""
MODES = {
    "plain": (["train.py"], ["seed=0"]),
    "stacked": (["train.py"], ["-m", "seed=0", "latent_dim=2,3", "hydra/launcher=stacked"]),
    "resident": (["-c", RESIDENT], ["seed=0"]),
}


def train(folder: Path) -> dict[str, str]:
    """Train everything into a folder; the digests of its checkpoints."""
    sha256 = write_idx_dataset(folder / "data", 700, 600)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    settings = [f"data.root={folder / 'data'}", f"data.sha256={{{digests}}}", "data.val_size=64", "threads=1"]
    settings += ["trainer.epochs=3", "evaluation=fast", "figures=none", "beta=warmup", "scheduler=cosine"]
    for mode, (program, overrides) in MODES.items():
        for model in MODELS:
            where = [f"output_root={folder / mode}", f"sweep_name={model}", f"model={model}"]
            environment = {**os.environ, "GIT_DIR": os.devnull, "PYTHONPATH": str(ROOT)}
            command = [sys.executable, *program, *settings, *where, *overrides]
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    paths = sorted(path for name in FILES for path in folder.glob(f"*/*/*/checkpoints/{name}.safetensors"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def compare(old: Path, new: Path) -> int:
    """Print what differs, with the largest relative difference of a weight; 0 if nothing does."""
    before, after = (json.loads((folder / "bits.json").read_text(encoding="utf-8")) for folder in (old, new))
    differ = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    for name in differ:
        if not (name in before and name in after):
            print(f"{name}: only in one")
            continue
        tensors, others = load_file(old / name), load_file(new / name)
        worst = max(abs(tensors[key] - others[key]).max() / (abs(tensors[key]).max() or 1) for key in tensors)
        print(f"{name}: differs by {worst:.1e} of the largest weight")
    both = before.keys() & after.keys()
    print(f"{len(both.difference(differ))} of {len(both)} checkpoints are equal")
    return int(bool(differ))


def main(arguments: list[str]) -> int:
    if arguments[0] == "--compare":
        return compare(Path(arguments[1]), Path(arguments[2]))
    folder = Path(arguments[0]).absolute()
    digests = train(folder)
    (folder / "bits.json").write_text(json.dumps(digests, indent=1), encoding="utf-8")
    print(f"{len(digests)} checkpoints")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

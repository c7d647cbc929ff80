"""Train a few steps in this process, and print what that took and gave, as JSON. A program for tests.

    python -m tests.steps DATA_FOLDER MODEL [left out ...]

Trains two epochs with two threads; measures the page faults of the second. What is left out is a function that
``set_up_torch`` calls: ``keep_freed_memory``, ``load_constants`` or ``watch``. With ``sleepers``, OpenMP's waiting
threads sleep, as they do on busy cores.
"""

import hashlib
import json
import resource
import sys
from pathlib import Path

from fmvae.common import contention, torch_setup
from fmvae.config import compose
from fmvae.data.sources import FILES
from fmvae.experiments.vae import VAEExperiment


def main(root: str, model: str, *options: str) -> None:
    left_out = set(options) - {"sleepers"}
    for name in left_out:
        place = contention if name == "watch" else torch_setup
        setattr(place, name, lambda: None)
    import torch

    sha256 = {name: hashlib.sha256(Path(root, name).read_bytes()).hexdigest() for name in FILES}
    settings = compose(
        [
            *(f"model={model}", "latent_dim=10", "data.batch_size=128", "device=cpu", "threads=2"),
            *(
                f"data.root={root}",
                "trainer.progress=false",
                "evaluation=fast",
                "figures=none",
                "data.val_size=100",
            ),
        ]
    )
    settings["data"]["sha256"] = sha256
    trainer = VAEExperiment(settings, torch_setup.set_up_torch(settings)).trainer
    sleepers = contention.Sleepers(2, 2) if "sleepers" in options else None
    rows = [trainer._train_epoch(1)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    rows.append(trainer._train_epoch(2))
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    content = hashlib.sha256(json.dumps(rows).encode())
    for parameter in trainer.model.parameters():
        content.update(parameter.detach().numpy().tobytes())
    told = {
        "sha256": content.hexdigest(),
        "faults_per_step": faults / trainer.num_steps,
        "threads": torch.get_num_threads(),
        "sleepers": sleepers.number if sleepers else 0,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Recompute the measures and figures of trained runs from their checkpoints. See `python evaluate.py --help`."""

import hydra
from omegaconf import DictConfig

from fmvae.cli.main import job, launch


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Measure one run, several runs, or all runs in a folder."""

    def evaluate(config: dict, overrides: list[str]) -> None:
        # imports torch, which tab completion and --help don't need
        from fmvae.measurement.evaluate import evaluate_runs

        evaluate_runs(config)

    job(evaluate, composed)


if __name__ == "__main__":
    launch(main)

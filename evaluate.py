"""Recompute the measures and figures of trained runs from their checkpoints. See `python evaluate.py --help`."""

import hydra
from omegaconf import DictConfig

from fmvae.cli.main import job, launch


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Measure one run, several runs, or all runs in a folder, and make their reports anew."""

    def evaluate(config: dict, overrides: list[str]) -> None:
        # imports torch, which tab completion and --help don't need
        from fmvae.errors import RunError
        from fmvae.measurement.evaluate import evaluate_runs
        from fmvae.report.following import follow
        from fmvae.runs.names import run_paths

        config["run"] = run_paths(config["run"], config["output_root"])
        try:
            evaluate_runs(config)
        except RunError:  # some runs could not be measured; the others have new numbers
            follow(config["run"])
            raise
        follow(config["run"])

    job(evaluate, composed)


if __name__ == "__main__":
    launch(main)

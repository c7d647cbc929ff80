"""``python -m fmvae.udr outputs/<sweep>``: compare the latents of runs that differ in their seeds (UDR)."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmvae.common.command import run_command, say
from fmvae.common.text import short
from fmvae.config.own_code import names_in, taken_out
from fmvae.errors import FmvaeError, RunError
from fmvae.runs.names import run_path

if TYPE_CHECKING:
    from fmvae.report.settings import Setting

NUM_IMAGES = 5000
FEWEST_IMAGES = 100  # whose ranks correlate by 0.08 where nothing does
MIN_KL = 0.01  # nats per image: dimensions with less are not informative (Duan et al. 2020)
FORMAT = 1  # increase it when the numbers of equal runs change


def main(arguments: list[str] | None = None) -> int:
    """Compare the runs of each setting, write ``udr.json`` into the folder, and print the scores."""
    parser = argparse.ArgumentParser(prog="python -m fmvae.udr", description=__doc__)
    parser.add_argument("folder", type=run_path, help="of the sweep's runs")
    parser.add_argument("--num-images", type=int, default=NUM_IMAGES, help="test images to encode")
    parser.add_argument("--device", default="auto", help="where to encode; auto, cpu, cuda, ...")
    parser.add_argument("--allow", type=names_in, default=[], help="packages of yours, as mymodels,b.c")
    arguments = sys.argv[1:] if arguments is None else arguments

    def compare() -> int:
        names, rest = taken_out(arguments)
        given = parser.parse_args(rest)
        for line in compare_seeds(given.folder, given.num_images, given.device, [*names, *given.allow]):
            say(line)
        return 0

    return run_command(compare)


def compare_seeds(
    folder: Path, num_images: int, device: str = "auto", allow: list[str] | None = None
) -> Iterator[str]:
    """Compute UDR for each setting with three seeds or more; yield a line for each, and one for the file.

    A line holds the mean over runs, beside it the level of rotated latents with as many informative dimensions.

    ``udr.json`` in ``folder`` is written after each setting, and settings in it whose checkpoints are the same are
    not computed again. The report of the sweep reads it. A setting with a run that cannot be used is left out, and
    what was known of it stays in the file.

    Raises:
        FmvaeError: ``num_images`` is too small, there are no runs, or no setting has three seeds. At the end: some
            settings could not be compared.
    """
    from fmvae.evaluation.disentanglement.udr import FEWEST
    from fmvae.report.collect import collect, states
    from fmvae.report.matching import FILE, compared, dimensions, levels
    from fmvae.report.naming import Names, count
    from fmvae.report.settings import settings_of
    from fmvae.runs.files import write_record
    from fmvae.runs.results import read_results

    if num_images < FEWEST_IMAGES:
        way_out = f"give {FEWEST_IMAGES} or more; ranks of 5000 are reliable"
        raise FmvaeError("--num-images", f"{num_images}", way_out)
    found = collect([folder])
    settings = settings_of(found)
    enough = [setting for setting in settings if len(setting.runs) >= FEWEST]
    if not enough:
        most = max((len(setting.runs) for setting in settings), default=0)
        problem = f"no setting has {FEWEST} complete runs that differ only in their seeds (at most {most}; "
        problem += f"{states(found)})"
        raise RunError(folder, problem, "train more seeds, as seed=0,1,2")
    names = Names(settings)
    entries = {frozenset(entry["scores"]): entry for entry in compared(folder)}
    asked = [frozenset(run.name for run in setting.runs) for setting in enough]
    failed = []
    for setting, runs in zip(enough, asked, strict=True):
        checkpoints = {
            run.name: read_results(run.directory.results)["checkpoint"]["sha256"] for run in setting.runs
        }
        key = {"format": FORMAT, "num_images": num_images, "checkpoints": checkpoints}
        if entries.get(runs, {}).get("key") != key:
            try:
                entries[runs] = {"key": key, **_compare(setting, num_images, device, allow or [])}
            except FmvaeError as error:
                failed.append(setting)
                yield f"{names.of(setting)}: not compared: {error}"
                continue
            write_record(folder / FILE, {"settings": list(entries.values())})
        entry = entries[runs]
        scores, beside, found = list(entry["scores"].values()), levels(entry), dimensions(entry)
        said = f"UDR {sum(scores) / len(scores):.3f}"
        said += f" (lowest and highest run: {min(scores):.3f} and {max(scores):.3f})"
        said += f"; rotated latents {sum(beside) / len(beside):.3f}"
        yield f"{names.of(setting)}: {said}, {found} informative dimension{'' if found == '1' else 's'}"
    # without those that have more seeds by now, and those of runs that are gone
    kept = [
        entry
        for runs, entry in entries.items()
        if len(runs) >= FEWEST
        and not any(runs < others for others in asked)
        and all((folder / name).is_dir() for name in runs)
    ]
    if not kept:
        raise RunError(folder, "no setting could be compared", "see the lines above")
    write_record(folder / FILE, {"settings": kept})
    if left := len(settings) - len(enough):
        yield f"{count(left, 'setting')} with fewer than {FEWEST} complete runs are left out"
    report = shlex.join(["python", "-m", "fmvae.report", short(folder)])
    yield f"written to {short(folder / FILE)}; {report} shows them"
    if failed:
        problem = f"{count(len(failed), 'setting')} could not be compared ({names.some(failed)})"
        raise RunError(folder, problem, "mend their runs, as the lines above say, and repeat the command")


def _compare(setting: Setting, num_images: int, device: str, allow: list[str]) -> Mapping[str, Any]:
    """Return the scores of a setting's runs by name, those of pairs, and the similarities of the first pair."""
    import torch

    from fmvae import rng
    from fmvae.evaluation.disentanglement import udr
    from fmvae.evaluation.latent import ACTIVE_VARIANCE
    from fmvae.measurement.load import load_run
    from fmvae.models import encode_split
    from fmvae.visualization.latent import mean_kl

    images, codes, informative = None, [], []
    for run in setting.runs:
        loaded = load_run(run.directory.path, device=device, allow=allow)
        if images is None:  # the first run's test images for all, as another seed may hold out others
            test = loaded.parts.data.test
            order = torch.randperm(len(test), generator=rng.stream(0, "evaluation"))[:num_images].to(
                test.labels.device
            )
            images = test.take(order)
        found = encode_split(loaded.parts.model, images)
        if not torch.isfinite(found.mu).all():
            problem = "its encoder's latents are not finite"
            raise RunError(run.directory.path, problem, "train it anew with restart=true, or move it away")
        codes.append(found.mu.cpu())
        standard = loaded.parts.model.prior_density().is_standard
        # no other prior has a KL for each dimension alone
        active = found.mu.cpu().double().var(0, correction=0).numpy() > ACTIVE_VARIANCE
        informative.append(mean_kl(found) > MIN_KL if standard else active)
    measured = udr(codes, informative)
    return {
        "scores": {run.name: float(score) for run, score in zip(setting.runs, measured.scores, strict=True)},
        "seeds": [run.config.get("seed") for run in setting.runs],
        "pairs": measured.pairs.tolist(),
        "informative": [one.tolist() for one in informative],
        "similarity": measured.similarity[0, 1].tolist(),
        "num_images": len(codes[0]),
    }


if __name__ == "__main__":
    sys.exit(main())

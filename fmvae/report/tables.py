"""Markdown tables of runs, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from fmvae.runs import RunDirectory


class Row(NamedTuple):
    """A run that the page shows: its title, the command that makes it, and its results if it is complete."""

    title: str
    command: str
    run: RunDirectory
    results: dict[str, Any] | None

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self.run.config.read_text())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def with_error(block: Mapping[str, Any], digits: int) -> str:
    """The distance of generated images and its standard error."""
    return f"{block['generation']:.{digits}f} ± {block['generation_se']:.{digits}f}"


def likelihood_table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    header = ["experiment", "model", "z", "β", "epochs"]
    header += [f"{name} {whose}" for name in ("objective", "recon", "KL") for whose in ("theirs", "ours", "at μ")][
        :-1
    ]
    header += ["−ELBO", "IWAE 64"]
    body = []
    for row in rows:
        theirs = published.get(row.title, {})
        if row.results is None:
            body.append([row.title, f"not run yet: `{row.command}`", *[""] * (len(header) - 2)])
            continue
        config, test = row.config, row.results["test"]
        note = f" ({theirs['note']})" if "note" in theirs else ""
        body.append(
            [
                link(row),
                config["model"]["_name_"],
                str(config["latent_dim"]["value"]),
                f"{config['beta']['value']:g}",
                f"{row.results['checkpoint']['epoch']} of {config['trainer']['epochs']}",
                *(
                    number(theirs.get("objective")) + note,
                    number(test["objective"]),
                    number(test["objective_at_mean"]),
                ),
                *(number(theirs.get("recon")), number(test["recon"]), number(test["recon_at_mean"])),
                *(number(theirs.get("kl")), number(test["kl"])),
                number(test["neg_elbo"]),
                number(row.results.get("iwae", {}).get("iwae_64")),
            ]
        )
    return table(header, body)


def fid_table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    header = ["experiment", "theirs (their extractor)"]
    header += ["resnet18", "recon.", "floor", "KID ×10³", "precision", "recall", "density", "coverage"]
    header += ["pixels", "recon.", "floor"]
    body = []
    for row in rows:
        fid = (row.results or {}).get("fid", {})
        ours, pixels = fid.get("resnet18"), fid.get("pixels")
        cells = [link(row), number(published.get(row.title, {}).get("fid"))]
        if ours:
            cells.append(with_error(ours, 3))
            cells += [number(ours[name], 3) for name in ("reconstruction", "floor")]
            cells.append(number(1000 * ours["kid"], 3))
            cells += [number(ours[name], 3) for name in ("precision", "recall", "density", "coverage")]
        else:
            cells += [""] * 8
        if pixels:
            cells.append(with_error(pixels, 2))
            cells += [number(pixels[name], 2) for name in ("reconstruction", "floor")]
        else:
            cells += [""] * 3
        body.append(cells)
    return table(header, body)


def latent_table(rows: Sequence[Row]) -> str:
    header = [
        "experiment",
        "active units",
        "aggregate KL",
        "‖mean‖",
        "‖cov − I‖",
        "total correlation",
        "linear probe",
    ]
    body = []
    for row in rows:
        if not (latent := (row.results or {}).get("latent")):
            continue
        names = ("aggregate_kl", "aggregate_mean_norm", "aggregate_covariance_gap", "total_correlation")
        body.append(
            [
                link(row),
                f"{latent['active_units']} of {len(latent['kl_per_dimension'])}",
                *(number(latent[name], 3) for name in names),
                percent(latent["linear_probe_accuracy"]),
            ]
        )
    return table(header, body)


def accuracy_table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    rows = [row for row in rows if (row.results or {}).get("accuracy")]
    if not rows:
        return "No conditional model has been measured yet."
    first = rows[0].results
    assert first
    real = first["accuracy"]["real"]
    header = ["", "theirs", "overall", *real["per_class"], "in `sharp`'s eyes", "FID resnet18"]
    body = []
    for row in rows:
        assert row.results
        made = row.results["accuracy"]["generated"]
        theirs = published.get(row.title, {}).get("accuracy")
        fid = row.results.get("fid", {}).get("resnet18", {})
        body.append(
            [
                link(row),
                percent(theirs),
                *_shares(made),
                percent(fid.get("as_asked")),
                number(fid.get("generation"), 3),
            ]
        )
    body.append(["the classifier on the real test images", "", *_shares(real), "", ""])
    return table(header, body)


def _shares(block: Mapping[str, Any]) -> list[str]:
    shares = block["per_class"].values()
    return [percent(block["overall"]), *("" if share is None else f"{share:.1%}" for share in shares)]


def link(row: Row) -> str:
    return f"[{row.title}](results/{row.run.path.name}/results.json)" if row.results else row.title


def provenance_table(rows: Sequence[Row]) -> str:
    header = ["run", "config", "commit", "data", "checkpoint", "extractor"]
    body = []
    for row in rows:
        if not row.results:
            continue
        results, name = row.results, row.run.path.name
        training = results["provenance"]["training"]["git"]
        commit = f"`{(training['commit'] or 'none')[:10]}`" + (" (edited)" if training["dirty"] else "")
        data = results["provenance"]["data_sha256"]
        images = data.get("t10k-images-idx3-ubyte", next(iter(data.values()), ""))
        extractor = results.get("fid", {}).get("resnet18", {}).get("settings", {}).get("extractor_sha256", "")
        body.append(
            [
                f"{row.title}: `{row.command}`",
                f"[{results['config_sha256'][:10]}](results/{name}/config.yaml)",
                commit,
                f"`{images[:10]}`",
                f"`{results['checkpoint']['sha256'][:10]}`",
                f"`{extractor[:10]}`" if extractor else "",
            ]
        )
    return table(header, body)

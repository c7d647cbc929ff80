"""The tables of docs/results.md and of its pages in docs/results/; none has more than nine columns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fmvae.evaluation.columns import NEG_ELBO
from fmvae.report.tables import Row, model_of, number, percent, table, table_and_missing

RESNET, PIXELS = "fid/resnet18", "fid/pixels"
CLASSES_PER_TABLE = 8
CLASSIFIER = "the classifier on the real test images"


def likelihood_table(rows: Sequence[Row]) -> str:
    header = ["experiment", "model", "z", "β", "seeds", NEG_ELBO, "recon", "KL", "IWAE 64"]
    paths = ("test/neg_elbo", "test/recon", "test/kl", "iwae/iwae_64")
    body = [
        [row.link, model_of(config), *_z_and_beta(config), str(len(row.found)), *map(row.cell, paths)]
        for row in rows
        if row.found and (config := row.config)
    ]
    return table_and_missing(header, body, rows)


def published_table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    """Return published objectives and their parts beside ours; empty if there is no row with both."""
    header = [
        "experiment",
        "objective, theirs",
        "ours",
        "at μ",
        "recon, theirs",
        "ours",
        "at μ",
        "KL, theirs",
        "ours",
    ]
    body = []
    for row in rows:
        theirs = published.get(row.title, {})
        if not row.found or "objective" not in theirs:
            continue
        note = f" ({theirs['note']})" if "note" in theirs else ""
        body.append(
            [
                row.link,
                number(theirs["objective"]) + note,
                *(row.cell(f"test/{name}") for name in ("objective", "objective_at_mean")),
                number(theirs.get("recon")),
                *(row.cell(f"test/{name}") for name in ("recon", "recon_at_mean")),
                number(theirs.get("kl")),
                row.cell("test/kl"),
            ]
        )
    return table(header, body) if body else ""


def fid_table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    header = ["experiment", "theirs (their extractor)", "resnet18", "recon.", "floor", "pixels", "recon.", "floor"]
    body = [
        [
            row.link,
            _published_fid(published.get(row.title, {})),
            *_distances(row, RESNET, 3),
            *_distances(row, PIXELS),
        ]
        for row in rows
        if any(row.values(f"{features}/generation") for features in (RESNET, PIXELS))
    ]
    return table(header, body)


def _published_fid(theirs: Mapping[str, Any]) -> str:
    """Return a published distance, or what is said of it instead."""
    return number(theirs.get("fid")) or (theirs.get("note", "") if "objective" not in theirs else "")


def _distances(row: Row, features: str, digits: int = 2) -> list[str]:
    own = row.cell(f"{features}/generation", digits, error=f"{features}/generation_se")
    return [own, *(row.cell(f"{features}/{name}", digits) for name in ("reconstruction", "floor"))]


def companions_table(rows: Sequence[Row]) -> str:
    """Return what is measured beside FID in the same features; empty if no run has it."""
    names = ("precision", "recall", "density", "coverage")
    body = [
        [row.link, row.cell(f"{RESNET}/kid", 3, scale=1000), *(row.cell(f"{RESNET}/{name}", 3) for name in names)]
        for row in rows
        if row.values(f"{RESNET}/kid")
    ]
    return table(["experiment", "KID ×10³", *names], body) if body else ""


def latent_table(rows: Sequence[Row]) -> str:
    """Return the measures of the latents; empty if no run has them."""
    header = ["experiment", "active units", "aggregate KL", "‖mean‖", "‖cov − I‖", "Gaussian TC", "linear probe"]
    names = ("aggregate_kl", "aggregate_mean_norm", "aggregate_covariance_gap", "gaussian_total_correlation")
    body = [
        [
            row.link,
            f"{row.cell('latent/active_units', int(len(row.found) > 1))} of {row.config['latent_dim']['value']}",
            *(row.cell(f"latent/{name}", 3) for name in names),
            row.share("latent/linear_probe_accuracy"),
        ]
        for row in rows
        if row.values("latent/active_units")
    ]
    return table(header, body) if body else ""


def judged(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose generated images were classified."""
    return [row for row in rows if row.values("accuracy/generated/overall")]


def accuracy_table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    """Return the shares of images that show the class asked for, of rows of ``judged``, and of the test images."""
    header = ["experiment", "theirs", "shown as asked", "lowest class", "its share", "by FID's network", "FID"]

    def cells(row: Row, whose: str) -> list[str]:
        shares = {name: statistics.fmean(row.values(_share_of(whose, name))) for name in _classes(row)}
        lowest = min(shares, key=shares.__getitem__)
        return [row.share(f"accuracy/{whose}/overall"), lowest, row.share(_share_of(whose, lowest), 1)]

    body = [
        [
            row.link,
            percent(published.get(row.title, {}).get("accuracy")),
            *cells(row, "generated"),
            row.share(f"{RESNET}/as_asked"),
            row.cell(f"{RESNET}/generation", 3, error=f"{RESNET}/generation_se"),
        ]
        for row in rows
    ]
    body.append([CLASSIFIER, "", *cells(_measured(rows[0]), "real"), "", ""])
    return table(header, body)


def grid_table(rows: Sequence[Row]) -> str:
    """Return the shares of ``accuracy_table`` with a column for each β; empty without rows."""
    cells: dict[tuple[str, str], dict[float, str]] = {}
    for row in rows:
        z, _ = _z_and_beta(row.config)
        cells.setdefault((model_of(row.config), z), {})[row.config["beta"]["value"]] = row.share(
            "accuracy/generated/overall"
        )
    betas = sorted({beta for shares in cells.values() for beta in shares})
    body = [[*which, *(shares.get(beta, "") for beta in betas)] for which, shares in cells.items()]
    return table(["model", "z", *(f"β = {beta:g}" for beta in betas)], body) if body else ""


def classes_tables(rows: Sequence[Row], prefix: str) -> str:
    """Return the shares of each class, of rows of ``judged``, in tables of a few classes each."""
    classes = _classes(rows[0])
    parts = -(-len(classes) // CLASSES_PER_TABLE)
    size = -(-len(classes) // parts)
    shown: list[tuple[str, Row, str]] = [(row.linked(prefix), row, "generated") for row in rows]
    shown.append((CLASSIFIER, _measured(rows[0]), "real"))
    tables = []
    for names in (classes[i : i + size] for i in range(0, len(classes), size)):
        body = [[title, *(row.share(_share_of(whose, name), 1) for name in names)] for title, row, whose in shown]
        tables.append(table(["experiment", *names], body))
    return "\n\n".join(tables)


def _share_of(whose: str, name: str) -> tuple[str, ...]:
    return "accuracy", whose, "per_class", name


def _classes(row: Row) -> list[str]:
    return list(_measured(row).found[0].at("accuracy/real/per_class"))


def _measured(row: Row) -> Row:
    """Return the row with its first run alone that has accuracies."""
    return row._replace(found=(next(one for one in row.found if one.at("accuracy")),))


def provenance_table(rows: Sequence[Row], prefix: str) -> str:
    """Return a table with a row for each run.

    Args:
        prefix: of links to the copies of runs, from the page that the table is on.
    """
    header = ["run", "config", "best epoch", "commit", "data", "checkpoint", "extractor", "judge"]
    body = []
    for row in rows:
        for found in row.found:
            results = found.results
            training = results["provenance"]["training"]["git"]
            data = results["provenance"]["data_sha256"]
            body.append(
                [
                    f"{row.title}: `{found.command}`",
                    f"[{results['config_sha256'][:10]}]({prefix}{found.run.path.name}/config.yaml)",
                    f"{results['checkpoint']['epoch']} of {row.config['trainer']['epochs']}",
                    _short(training["commit"] or "none") + (" (edited)" if training["dirty"] else ""),
                    _short(data.get("t10k-images-idx3-ubyte", next(iter(data.values()), ""))),
                    _short(results["checkpoint"]["sha256"]),
                    *(_short(found.at(f"{name}/settings/extractor_sha256")) for name in (RESNET, "accuracy")),
                ]
            )
    return table(header, body)


def gallery(pictures: Sequence[tuple[str, str]], width: int) -> str:
    """Return pictures (path, caption) in two columns, each above its caption."""
    lines = ["| | |", "| --- | --- |"]
    for i in range(0, len(pictures), 2):
        pair = [*pictures[i : i + 2], ("", "")][:2]
        images = (path and f'<img src="{path}" width="{width}" alt="{caption}">' for path, caption in pair)
        lines += [
            f"| {' | '.join(images)} |",
            f"| {' | '.join(caption and f'*{caption}*' for _, caption in pair)} |",
        ]
    return "\n".join(lines)


def _z_and_beta(config: Mapping[str, Any]) -> tuple[str, str]:
    return str(config["latent_dim"]["value"]), f"{config['beta']['value']:g}"


def _short(digest: str | None) -> str:
    return f"`{digest[:10]}`" if digest else ""


def columns(published: Mapping[str, Any]) -> dict[str, Callable[[Row], str]]:
    """Return the numbers that the findings of the page may name, as functions of a row."""

    def theirs(name: str, shown: Callable[[float | None], str] = number) -> Callable[[Row], str]:
        return lambda row: shown(published.get(row.title, {}).get(name))

    return {
        "objective": lambda row: row.cell("test/objective"),
        "objective theirs": theirs("objective"),
        NEG_ELBO: lambda row: row.cell("test/neg_elbo"),
        "recon": lambda row: row.cell("test/recon"),
        "KL": lambda row: row.cell("test/kl"),
        "IWAE 64": lambda row: row.cell("iwae/iwae_64"),
        "IWAE 5000": lambda row: row.cell("iwae/iwae_5000"),
        "IWAE 5000 theirs": theirs("iwae"),
        "FID": lambda row: row.cell(f"{RESNET}/generation", 3, error=f"{RESNET}/generation_se"),
        "FID theirs": theirs("fid"),
        "FID of reconstructions": lambda row: row.cell(f"{RESNET}/reconstruction", 3),
        "floor": lambda row: row.cell(f"{RESNET}/floor", 3),
        "recall": lambda row: row.cell(f"{RESNET}/recall", 3),
        "shown as asked": lambda row: row.share("accuracy/generated/overall"),
        "shown as asked theirs": theirs("accuracy", percent),
        "active units": lambda row: row.cell("latent/active_units", 1),
    }

"""Markdown tables of docs/results.md. A row is a config; its cells are means over the seeds of its runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from fmvae.runs.directory import RunDirectory


class Found(NamedTuple):
    """A complete run, the command that trains it, and its results."""

    command: str
    run: RunDirectory
    results: dict[str, Any]

    def at(self, path: str | Sequence[str]) -> Any:
        """Return the value at ``path`` in the results, ``a/b`` or ``("a", "b")``; None if there is none."""
        node: Any = self.results
        for name in path.split("/") if isinstance(path, str) else path:
            node = node.get(name) if isinstance(node, Mapping) else None
        return node


class Row(NamedTuple):
    """A config on the page: its title, the command that trains it, and its complete runs by seed."""

    title: str
    command: str
    found: tuple[Found, ...]

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self.found[0].run.config.read_text(encoding="utf-8"))

    @property
    def link(self) -> str:
        return f"[{self.title}](results/{self.found[0].run.path.name}/results.json)" if self.found else self.title

    def values(self, path: str | Sequence[str]) -> list[float]:
        """Return the number at ``path`` of each run that has it."""
        return [value for one in self.found if (value := one.at(path)) is not None]

    def cell(
        self, path: str | Sequence[str], digits: int = 2, *, scale: float = 1, error: str | None = None
    ) -> str:
        """Return mean ± standard deviation over seeds as text; empty if no run has the number.

        With one seed, it is the number ± its standard error, the number at ``error``. If not all runs of the row
        have the number, the text gives how many do.
        """
        values = [scale * value for value in self.values(path)]
        if not values:
            return ""
        one = len(self.found) == 1
        spread = [statistics.stdev(values)] if len(values) > 1 else self.values(error) if error and one else []
        text = " ± ".join(number(value, digits) for value in (statistics.fmean(values), *spread))
        return text if len(values) == len(self.found) else f"{text} (n = {len(values)})"

    def share(self, path: str | Sequence[str], digits: int = 2) -> str:
        """Return ``cell`` in per cent."""
        value, n, few = self.cell(path, digits, scale=100).partition(" (n = ")
        return value and f"{value} %{n}{few}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is aligned left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def model_of(config: Mapping[str, Any]) -> str:
    """Return the model's name, with ``learned prior`` if it has one."""
    model = config["model"]
    return model["_name_"] + (", learned prior" if model.get("prior") == "learned" else "")


def number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def likelihood_table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    header = ["experiment", "model", "z", "β", "epochs", "seeds"]
    header += ["objective theirs", "objective ours", "objective at μ", "recon theirs", "recon ours", "recon at μ"]
    header += ["KL theirs", "KL ours", "−ELBO", "IWAE 64"]
    body = []
    for row in rows:
        theirs = published.get(row.title, {})
        if not row.found:
            body.append([row.title, f"not run yet: `{row.command}`", *[""] * (len(header) - 2)])
            continue
        config = row.config
        note = f" ({theirs['note']})" if "note" in theirs else ""
        body.append(
            [
                row.link,
                model_of(config),
                str(config["latent_dim"]["value"]),
                f"{config['beta']['value']:g}",
                _epochs(row),
                str(len(row.found)),
                number(theirs.get("objective")) + note,
                *(row.cell(f"test/{name}") for name in ("objective", "objective_at_mean")),
                number(theirs.get("recon")),
                *(row.cell(f"test/{name}") for name in ("recon", "recon_at_mean")),
                number(theirs.get("kl")),
                *(row.cell(path) for path in ("test/kl", "test/neg_elbo", "iwae/iwae_64")),
            ]
        )
    return table(header, body)


def _epochs(row: Row) -> str:
    """Return the best epoch of each run, and the number of epochs."""
    best = [int(epoch) for epoch in row.values("checkpoint/epoch")]
    return f"{', '.join(str(epoch) for epoch in best)} of {row.config['trainer']['epochs']}"


def fid_table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    header = ["experiment", "theirs (their extractor)"]
    header += ["resnet18", "recon.", "floor", "KID ×10³", "precision", "recall", "density", "coverage"]
    header += ["pixels", "recon.", "floor"]
    body = []
    resnet, pixels = "fid/resnet18", "fid/pixels"
    for row in rows:
        if not any(row.values(f"{features}/generation") for features in (resnet, pixels)):
            continue
        body.append(
            [
                row.link,
                number(published.get(row.title, {}).get("fid")),
                row.cell(f"{resnet}/generation", 3, error=f"{resnet}/generation_se"),
                *(row.cell(f"{resnet}/{name}", 3) for name in ("reconstruction", "floor")),
                row.cell(f"{resnet}/kid", 3, scale=1000),
                *(row.cell(f"{resnet}/{name}", 3) for name in ("precision", "recall", "density", "coverage")),
                row.cell(f"{pixels}/generation", error=f"{pixels}/generation_se"),
                *(row.cell(f"{pixels}/{name}") for name in ("reconstruction", "floor")),
            ]
        )
    return table(header, body)


def latent_table(rows: Sequence[Row]) -> str:
    header = [
        "experiment",
        "active units",
        "aggregate KL",
        "‖mean‖",
        "‖cov − I‖",
        "total correlation of the Gaussian",
        "linear probe",
    ]
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
    return table(header, body)


def accuracy_table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    rows = [row for row in rows if row.values("accuracy/generated/overall")]
    if not rows:
        return "No conditional model has been measured yet."
    measured = next(one for one in rows[0].found if one.at("accuracy"))
    classes = list(measured.at("accuracy/real/per_class"))

    def shares(row: Row, whose: str) -> list[str]:
        per_class = (row.share(("accuracy", whose, "per_class", name), 1) for name in classes)
        return [row.share(f"accuracy/{whose}/overall"), *per_class]

    header = ["", "theirs", "overall", *classes, "overall, by FID's network", "FID resnet18"]
    body = [
        [
            row.link,
            percent(published.get(row.title, {}).get("accuracy")),
            *shares(row, "generated"),
            row.share("fid/resnet18/as_asked"),
            row.cell("fid/resnet18/generation", 3, error="fid/resnet18/generation_se"),
        ]
        for row in rows
    ]
    one = rows[0]._replace(found=(measured,))
    body.append(["the classifier on the real test images", "", *shares(one, "real"), "", ""])
    return table(header, body)


def provenance_table(rows: Sequence[Row]) -> str:
    """Return a table with a row for each run."""
    header = ["run", "config", "commit", "data", "checkpoint", "extractor", "judge"]
    body = []
    for row in rows:
        for found in row.found:
            results = found.results
            training = results["provenance"]["training"]["git"]
            data = results["provenance"]["data_sha256"]
            config = f"[{results['config_sha256'][:10]}](results/{found.run.path.name}/config.yaml)"
            body.append(
                [
                    f"{row.title}: `{found.command}`",
                    config,
                    _short(training["commit"] or "none") + (" (edited)" if training["dirty"] else ""),
                    _short(data.get("t10k-images-idx3-ubyte", next(iter(data.values()), ""))),
                    _short(results["checkpoint"]["sha256"]),
                    *(
                        _short(found.at(f"{name}/settings/extractor_sha256"))
                        for name in ("fid/resnet18", "accuracy")
                    ),
                ]
            )
    return table(header, body)


def _short(digest: str | None) -> str:
    return f"`{digest[:10]}`" if digest else ""

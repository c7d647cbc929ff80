"""The section of docs/results.md on likelihoods of black and white images, beside those of papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmvae.errors import RunError
from fmvae.evaluation.columns import NEG_ELBO
from fmvae.report import keeping
from fmvae.report.tables import Row, model_of, number, table_and_missing

NUM_SAMPLES = 5000  # draws of the published bounds
HEADING = "Likelihoods that compare with papers"
SECTION = """Black and white test images, nats per image; of several seeds the mean ± standard deviation.
*theirs* and *ours* are importance-weighted bounds of {draws} draws, on {images} test images; {theirs},
± as printed there. The protocol: pixels are drawn black or white by their grey values, for
each epoch anew; 50,000 images are for training; two gated layers of 300 each way, z = 40; at most 2,000 epochs,
with early stopping (*short* and *300*: 150 and 300 epochs, and a learning rate that falls to 0;
[more](objectives.md#likelihoods-as-papers-report-them)). Grey values as probabilities, as in the first table, are
another scale.

{table}"""


def is_of_the_literature(theirs: Mapping[str, Any]) -> bool:
    """Whether a row of docs/published.yaml belongs to this section: it has a key for a bound."""
    return "iwae" in theirs


def section(rows: Sequence[Row], published: Mapping[str, Any], kept: Path) -> str:
    """Return the section as Markdown; empty if none of the runs is there. Copies its runs into ``kept``."""
    found = [row for row in rows if row.found]
    if not found:
        return ""
    for row in found:
        for one in row.found:
            list(keeping.keep(one, kept, ()))
    sources: dict[str, list[str]] = {}
    for row in rows:
        if published[row.title]["iwae"] is None:  # our own, for comparison
            continue
        sources.setdefault(_source(row.title, published[row.title]), []).append(f"`{row.title}`")
    told = "; ".join(f"{source} for {' and '.join(names)}" for source, names in sources.items())
    images = sorted({value for row in found for value in row.values("iwae/num_images")})
    return SECTION.format(
        draws=f"{NUM_SAMPLES:,}",
        theirs=f"theirs are from {told}",
        images=" or ".join(f"{value:,}" for value in images) or "no",
        table=_table(rows, published),
    )


def _source(title: str, theirs: Mapping[str, Any]) -> str:
    """Return where a published bound is from.

    Raises:
        RunError: its row does not say.
    """
    if not theirs.get("source"):
        raise RunError("docs/published.yaml", f"{title} has a bound without its source", 'add source: "<paper>"')
    return theirs["source"]


def _table(rows: Sequence[Row], published: Mapping[str, Any]) -> str:
    header = ["experiment", "model", "prior", "seeds", "theirs", "ours", NEG_ELBO, "recon", "KL"]
    body = []
    for row in rows:
        theirs = published[row.title]
        told = number(theirs["iwae"]) + (f" ± {number(theirs['iwae_se'])}" if "iwae_se" in theirs else "")
        if not row.found:
            body.append([row.title, "", "", "", told, *[""] * 4])
            continue
        config = row.config
        body.append(
            [
                row.link,
                model_of(config),
                config.get("prior", {}).get("_name_", "N(0, 1)"),
                str(len(row.found)),
                told,
                row.cell(f"iwae/iwae_{NUM_SAMPLES}"),
                *(row.cell(f"test/{name}") for name in ("neg_elbo", "recon", "kl")),
            ]
        )
    return table_and_missing(header, body, rows)

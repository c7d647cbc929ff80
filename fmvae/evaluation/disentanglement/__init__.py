"""Scores of disentanglement: pure functions of codes (N, D) and known factors (N, K); UDR needs no factors.

What each score measures, its range and its chance level: docs/measures.md.
"""

from fmvae.evaluation.disentanglement.fitted import DCI, dci, explicitness, sap
from fmvae.evaluation.disentanglement.informed import infoc, infom, mig, modularity
from fmvae.evaluation.disentanglement.points import mutual_information
from fmvae.evaluation.disentanglement.rendered import beta_vae_score, factor_vae_score
from fmvae.evaluation.disentanglement.udr import UDR, matched, rotated_level, udr

__all__ = [
    "DCI",
    "UDR",
    "beta_vae_score",
    "dci",
    "explicitness",
    "factor_vae_score",
    "infoc",
    "infom",
    "matched",
    "mig",
    "modularity",
    "mutual_information",
    "rotated_level",
    "sap",
    "udr",
]

"""The named sweeps with sections of their own in docs/results.md."""

from __future__ import annotations

from fmvae.config.project import PROJECT_ROOT
from fmvae.evaluation.columns import NEG_ELBO
from fmvae.report.study import Topic

FINDINGS = PROJECT_ROOT / "docs" / "findings"  # written by hand
MI_TC = {
    "MI": ("decomposition/mi", 2, "decomposition/mi_se"),
    "TC": ("decomposition/tc", 3, "decomposition/tc_se"),
}
FAMILY = Topic(
    sweep="family",
    heading="What each objective presses on",
    text="""The runs of `python train.py sweep={sweep}`: {shown} of its {planned} runs are shown, of z = {z},
{epochs} epochs.
Each objective was trained at several strengths. For `elbo` and `tc` the strength is β; for the others it is the
named weight, and β = 1. recon, KL and −ELBO are those of the test set, in nats per image. MI, TC and
dimension-wise KL add up to the KL of the training images; they are estimated with
{draws} draws and all posteriors of {images} images. ± is the standard deviation over seeds, or, for a single seed,
the standard error of the draws.

{parts}""",
    finding=FINDINGS / "family.md",
    drawn=("rate_distortion", "tc_recon", "mi_kl"),
    columns={
        "recon": ("test/recon", 2, None),
        "KL": ("test/kl", 2, None),
        **MI_TC,
        "dimension-wise KL": ("decomposition/dimension_wise", 3, "decomposition/dimension_wise_se"),
        NEG_ELBO: ("test/neg_elbo", 2, None),
    },
)
DISENTANGLEMENT = Topic(
    sweep="disentanglement",
    heading="Do latents follow known factors?",
    text="""The runs of `python train.py sweep={sweep}`: {shown} of its {planned} runs are shown, of z = {z},
{epochs} epochs. `beta` was trained on `data=sprites` and `conv` on `data=fashion_factors`, so numbers of the two
do not compare. For `elbo` and `tc` the strength is β; for the others it is the named weight, and β = 1. The scores
are [explained with the measures](measures.md#disentanglement). Two levels stand below those of each model, as no
score is to be compared with 0: those of its encoder before training, and those with shuffled factors. UDR has a
level of its own in each row, `UDR, rotated`: latents rotated at random, with as many informative dimensions. recon
and −ELBO are those of the test set, in nats per image; MI and TC are estimated with {draws} draws. ± is the
standard deviation over seeds.

{parts}""",
    finding=FINDINGS / "disentanglement.md",
    drawn=("scores", "score_correlations", "udr"),
    columns={
        "MIG": ("disentanglement/mig", 3, None),
        "SAP": ("disentanglement/sap", 3, None),
        "DCI disentanglement": ("disentanglement/dci_disentanglement", 3, None),
        "DCI completeness": ("disentanglement/dci_completeness", 3, None),
        "modularity": ("disentanglement/modularity", 3, None),
        "FactorVAE score": ("disentanglement/factor_vae", 3, None),
        "beta-VAE score": ("disentanglement/beta_vae", 3, None),
        "informative": ("udr/informative", 1, None),
        "UDR": ("udr/score", 3, None),
        "UDR, rotated": ("udr/rotated", 3, None),
        "recon": ("test/recon", 2, None),
        NEG_ELBO: ("test/neg_elbo", 2, None),
        **MI_TC,
    },
    ruled=True,
)
TOPICS = (FAMILY, DISENTANGLEMENT)

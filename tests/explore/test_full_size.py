"""28 x 28 pixels in Chromium against torch for every model, and draws against those of the samplers they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fmvae.models import VAE, BaseVAE, BetaVAE, ConditionalVAE, ConvVAE, GatedVAE, ResidualVAE
from tests.browser import Tab
from tests.explore.helpers import stirred, subject, written
from tests.explore.test_page import PROMISED, difference

pytestmark = pytest.mark.slow

FULL = (1, 28, 28)
WIDE = 256  # of residual models in conf/ their decoder takes long enough in a page for 1,000 images to be too many
MODELS = {
    "base": (lambda: BaseVAE(10), 1000),
    "beta_bn_relu": (lambda: BetaVAE(10, "bn_relu"), 1000),
    "gated": (lambda: GatedVAE(40), 1000),
    "conv": (lambda: ConvVAE(10), 1000),
    "residual_batch": (lambda: ResidualVAE(10, 32, 2, "batch", FULL), 100),
    "residual_group": (lambda: ResidualVAE(10, 32, 2, "group", FULL), 100),
    "residual_none": (lambda: ResidualVAE(10, 32, 1, "none", FULL), 100),
    "conditional_mlp": (lambda: ConditionalVAE(8, 3, "mlp"), 1000),
    "conditional_conv": (lambda: ConditionalVAE(8, 3, "conv"), 1000),
    "conditional_residual_batch": (lambda: ConditionalVAE(8, 3, "residual", width=32, norm="batch"), 100),
    "conditional_residual_group": (lambda: ConditionalVAE(8, 3, "residual", width=32, norm="group"), 100),
}

"""Where benchmarks write their results: ``benchmarks/results``, or the folder that an environment variable names.

Apart from the other helpers, as these import torch.
"""

import os
from pathlib import Path

VARIABLE = "FMVAE_BENCHMARKS"
RESULTS = Path(os.environ.get(VARIABLE) or Path(__file__).parent / "results")

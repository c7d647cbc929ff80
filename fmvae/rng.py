"""Named random streams without global state: every draw depends on ``(seed, role, epoch)`` only.

Each stream starts from its own seed. A run resumed at the start of an epoch therefore draws the same numbers as an
uninterrupted run, and evaluation or plotting cannot change the draws of training.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, get_args

import torch

Role = Literal[
    "init",
    "split",
    "shuffle",
    "noise",
    "augmentation",
    "evaluation",
    "sampling",
    "samplers",
    "binarize",
    "binarize_held_out",
]
ROLES: tuple[Role, ...] = get_args(Role)


def stream_seed(seed: int, role: Role, epoch: int = 0) -> int:
    """Return the seed of a stream, in [0, 2**32): the first four bytes of the SHA-256 of ``seed/role/epoch``."""
    if role not in ROLES:
        raise ValueError(f"unknown random stream {role!r}; one of {', '.join(ROLES)}")
    digest = hashlib.sha256(f"{seed}/{role}/{epoch}".encode()).digest()
    # 32 bits, as the CPU's Mersenne twister ignores all bits of a seed but the low 32
    return int.from_bytes(digest[:4], "big")


def stream(seed: int, role: Role, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Create a generator on ``device`` at the start of the stream ``(seed, role, epoch)``."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, role, epoch))


@contextmanager
def seeded(seed: int, role: Role, epoch: int = 0) -> Iterator[None]:
    """Seed torch's global CPU generator with the stream ``(seed, role, epoch)`` inside; restore it afterwards.

    For code that can only draw from the global generator: layers of ``torch.nn``, torchvision's transforms.
    """
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would also reseed the global generator of every accelerator
        torch.default_generator.manual_seed(stream_seed(seed, role, epoch))
        yield


def seeded_init(seed: int) -> AbstractContextManager[None]:
    """Initialise layers that are created inside from the stream ``init``."""
    return seeded(seed, "init")

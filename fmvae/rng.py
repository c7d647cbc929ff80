"""Named, stateless random streams: every draw depends on ``(seed, role, epoch)`` and on nothing else.

Because no stream remembers how often it was used, a run that resumes at an epoch boundary draws what the
undisturbed run would have drawn, and evaluation or plotting cannot shift what training draws.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, get_args

import torch

Role = Literal["init", "split", "shuffle", "noise", "augmentation", "evaluation", "sampling"]
ROLES: tuple[Role, ...] = get_args(Role)


def stream_seed(seed: int, role: Role, epoch: int = 0) -> int:
    """The seed of one stream, in [0, 2**32): the first four bytes of SHA-256 over ``seed/role/epoch``."""
    if role not in ROLES:
        raise ValueError(f"unknown random stream {role!r}; one of {', '.join(ROLES)}")
    digest = hashlib.sha256(f"{seed}/{role}/{epoch}".encode()).digest()
    # 32 bits, as the CPU's Mersenne twister is seeded with its low 32 and would ignore the others
    return int.from_bytes(digest[:4], "big")


def stream(seed: int, role: Role, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on ``device`` at the start of the stream ``(seed, role, epoch)``."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, role, epoch))


@contextmanager
def seeded(seed: int, role: Role, epoch: int = 0) -> Iterator[None]:
    """Give torch's global CPU generator the stream ``(seed, role, epoch)`` inside, and back as it was after.

    For what draws from the global generator and takes no other: layers of ``torch.nn``, torchvision's transforms.
    """
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would also reseed the global generator of every accelerator
        torch.default_generator.manual_seed(stream_seed(seed, role, epoch))
        yield


def seeded_init(seed: int) -> AbstractContextManager[None]:
    """Initialise layers inside from the ``init`` stream."""
    return seeded(seed, "init")

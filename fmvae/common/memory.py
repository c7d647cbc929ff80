"""Keep freed memory in the process, so that a training step causes no page faults."""

from __future__ import annotations

import ctypes
import os

# parameters of mallopt, from glibc's malloc.h, and the variables with the same effect, which take precedence
_TRIM, _MMAP = -1, -3
_MMAP_SIZES = (2**30, 2**25)  # bytes; older versions of glibc refuse more than the second
_TRIM_SIZE = 2**31 - 1  # bytes; mallopt takes an int
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have glibc's malloc keep freed memory for the next allocation, instead of giving it back to the system.

    By default it gives large blocks back, and takes new ones at the next step: the kernel then has to clear every
    page (4 KiB) again, which takes up to a third of the time of a convolutional step on a CPU
    (``python -m benchmarks.memory``). The process keeps the most memory that it ever used; no result changes.

    Affects allocations from now on, in this process. Does nothing if a variable of glibc's malloc is set, or if
    another C library or allocator (such as a preloaded jemalloc or tcmalloc) is in use.

    Returns:
        whether the settings were accepted.
    """
    if any(name in os.environ for name in VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library: musl, macOS; TypeError: Windows
        return False
    # any call ends glibc's own adaptation of the threshold for mmap, so trimming is changed only after that
    return any(mallopt(_MMAP, size) == 1 for size in _MMAP_SIZES) and mallopt(_TRIM, _TRIM_SIZE) == 1

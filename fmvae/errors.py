"""The errors that a user can act on. Each has a message of one line: the subject, the problem and the way out."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

# what torch says of memory: too little of it, and sizes that exceed what any machine has
OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate",
    "Storage size calculation overflowed",
    "std::bad_alloc",
)

# a full or failing disk, one that is mounted for reading, too many open files
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE, errno.ENFILE)


class FmvaeError(Exception):
    """A problem the user can act on.

    Args:
        subject: the config key or the file at fault, as the user would write it.
        problem: what is wrong with it, naming the value.
        way_out: what to do about it.

    ``str(error)`` is ``"<subject>: <problem>; <way_out>"``, always one line.
    """

    def __init__(self, subject: object, problem: str, way_out: str):
        self.subject, self.problem, self.way_out = str(subject), problem, way_out
        super().__init__(" ".join(f"{subject}: {problem}; {way_out}".split()))

    def __reduce__(self):  # exceptions are pickled by their message, which is not what __init__ takes
        return type(self), (self.subject, self.problem, self.way_out)


class ConfigError(FmvaeError):
    """A config key is unknown, or its value is of the wrong type or out of range."""


class ObjectiveError(ConfigError):
    """The objective of a search is not among the numbers that its runs measure."""


class DataError(FmvaeError):
    """The dataset is missing, damaged, or not the one that was asked for."""


class RunError(FmvaeError):
    """A run directory is damaged, held by another process, or belongs to another config."""


class UnmeasuredError(RunError):
    """A complete run lacks the number that a search asks for, or has it by other settings."""


class LockError(RunError):
    """The file system does not support locks, so two processes could write the same files."""


class HeldError(RunError):
    """A run directory is locked by another process, which may still complete the run."""


class LostError(RunError):
    """A run directory, or its lock file, was removed or moved while this process was writing to it."""


class Pruned(FmvaeError):
    """A search ended a training run early, since it fell behind. It is no failure, and can be finished later."""


class NumericsError(FmvaeError):
    """A loss or a gradient is no longer finite."""


def of_the_machine(error: BaseException) -> FmvaeError | None:
    """Return an error of a file, a connection or memory as an ``FmvaeError``; None for any other error."""
    if isinstance(error, ConnectionError) and not isinstance(error, BrokenPipeError):  # an OSError without a file
        return FmvaeError("connection", str(error), "check that the server runs and accepts your connection")
    if isinstance(error, OSError):
        where, problem = error.filename or "output", error.strerror or str(error)
        return FmvaeError(where, problem, "check the path, its permissions and the free space")
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # pathlib's, of Python 3.11
        return FmvaeError("path", str(error), "correct the symbolic link, which points to itself")
    # torch's errors, recognized by name and message: this module must not import torch
    of_torch = type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in OF_MEMORY)
    if isinstance(error, MemoryError) or of_torch:
        problem = str(error).rpartition("DefaultCPUAllocator: ")[2]  # before it, a line of torch's code
        way_out = "lower data.batch_size, or train a smaller model, as by latent_dim or model.hidden_dim"
        return FmvaeError("memory", problem or "exhausted", way_out)
    return None


def may_pass(error: BaseException) -> bool:
    """Return whether an error tells of the machine's state alone: the same call may succeed at another time."""
    return isinstance(error, ConnectionError) or (isinstance(error, OSError) and error.errno in PASSING)


@contextmanager
def of_a_run() -> Iterator[None]:
    """Mark every error raised inside as raised by a run: if it is not a foreseen error, it is a bug.

    Unmarked errors come from reading the command line or a config. The mark is an attribute of the error, so it
    survives pickling from a launcher's worker process.
    """
    try:
        yield
    except BaseException as error:
        error._of_a_run = True  # type: ignore[attr-defined]
        raise


def is_of_a_run(error: BaseException | None) -> bool:
    """Return whether ``of_a_run`` marked an error, or one of its causes (``__cause__``)."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if getattr(error, "_of_a_run", False):
            return True
        seen.add(id(error))
        error = error.__cause__
    return False


def exited(error: BaseException) -> FmvaeError | None:
    """Explain a ``sys.exit`` in code that a run called, as a user's class may do; None for any other error."""
    if not isinstance(error, SystemExit) or isinstance(error, Terminated):
        return None
    way_out = "raise an error in its place, which says what is wrong"
    return RunError("run", f"code that it called ended the program (sys.exit({error.code!r}))", way_out)


def interruption(error: BaseException | None) -> BaseException | None:
    """Return the ``KeyboardInterrupt`` or ``Terminated`` in an error's chain of causes, or None.

    Interrupted code may raise another error while it handles the interruption.
    """
    seen: set[int] = set()  # the chain can be circular: an error raised again while its own wrapper is handled
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt | Terminated):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


class Terminated(SystemExit):
    """SIGTERM or SIGHUP was received. Unlike another ``SystemExit``, this end was requested from outside."""

"""What can go wrong for a user, said in one line: what, why, and the way out."""

from collections.abc import Iterator
from contextlib import contextmanager


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

    def __reduce__(self):  # three arguments, one message: the default pickling of exceptions loses two
        return type(self), (self.subject, self.problem, self.way_out)


class ConfigError(FmvaeError):
    """A config key is unknown, or its value is of the wrong type or out of range."""


class ObjectiveError(ConfigError):
    """What a search goes by is not among what its runs measure."""


class DataError(FmvaeError):
    """The dataset is missing, damaged, or not the one that was asked for."""


class RunError(FmvaeError):
    """A run directory is damaged, held by another process, or belongs to another config."""


class LockError(RunError):
    """A file system takes no locks, so that nothing keeps two processes from writing the same files."""


class HeldError(RunError):
    """A run directory is held by another process, which may well bring it to its end."""


class LostError(RunError):
    """A run directory, or the lock on it, went away while it was written."""


class NumericsError(FmvaeError):
    """A loss or gradient stopped being finite."""


def of_the_machine(error: BaseException) -> FmvaeError | None:
    """A disk or memory that failed, in our words; None if it was something else."""
    if isinstance(error, ConnectionError) and not isinstance(error, BrokenPipeError):  # OSErrors, but of no file
        return FmvaeError("connection", str(error), "check that what answers there is running, and lets you in")
    if isinstance(error, OSError):
        where, problem = error.filename or "output", error.strerror or str(error)
        return FmvaeError(where, problem, "check the path, its permissions and the free space")
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # pathlib's, of Python 3.11
        return FmvaeError("path", str(error), "mend the symbolic link, which leads to itself")
    # torch's, by name and by words, as nothing here imports it
    of_torch = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: can't allocate" in str(error)
    if isinstance(error, MemoryError) or of_torch:
        return FmvaeError("memory", str(error) or "exhausted", "lower data.batch_size, or train a smaller model")
    return None


@contextmanager
def of_a_run() -> Iterator[None]:
    """What is raised inside comes from the work of a run: what nobody foresaw of it is a bug, not a wrong command.

    The mark is an attribute of the error, which it keeps on its way from a launcher's worker.
    """
    try:
        yield
    except BaseException as error:
        error._of_a_run = True  # type: ignore[attr-defined]
        raise


def is_of_a_run(error: BaseException | None) -> bool:
    """Whether ``of_a_run`` saw an error, or one that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if getattr(error, "_of_a_run", False):
            return True
        seen.add(id(error))
        error = error.__cause__
    return False


def interruption(error: BaseException | None) -> BaseException | None:
    """The Ctrl-C or signal in an error's chain of causes, or None: interrupted code may raise another error."""
    seen: set[int] = set()  # a chain may be a ring: an error raised again while its own wrapper is handled
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt | Terminated):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


class Terminated(SystemExit):
    """SIGTERM came: an end that is asked for from outside, unlike a ``sys.exit`` in someone's code."""

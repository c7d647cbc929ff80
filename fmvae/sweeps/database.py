"""The database of a search (study.db): opened under a lock, and converted if an earlier Optuna wrote it."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fmvae.common.text import one_line, short
from fmvae.errors import FmvaeError, HeldError, RunError
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import link, make_directory

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

DATABASE = "study.db"
BEGIN_ANEW = "move it away, and repeat the command to begin a new study"
BEFORE = "study-optuna2.db"  # a study of an earlier version, as it was
log = logging.getLogger("fmvae")


@contextmanager
def opened(folder: Path) -> Iterator[RDBStorage]:
    """Open the database of a search's folder, and hold a lock on it inside.

    A database of Optuna 2 is converted; the original is kept beside it.

    Raises:
        HeldError: another process holds the lock.
        RunError: the file is not a database of Optuna, or one of a later version; or, from what is done inside, it
            can't be read or written.
    """
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    make_directory(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(RunDirectory(folder / DATABASE).held())
        except HeldError:
            holder = RunDirectory(folder / DATABASE).holder()
            raise HeldError(short(folder), f"this search is held by {holder}", "wait until it has ended") from None
        storage = database(folder)
        try:
            yield storage
        except (SQLAlchemyError, StorageInternalError) as error:
            raise _explained(folder / DATABASE, error) from error


def database(folder: Path) -> RDBStorage:
    """Open the database of a search's folder without a lock; for the jobs of a search that is held."""
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    if (folder / DATABASE).is_dir():
        raise RunError(short(folder / DATABASE), "a folder, where a search has its database", "move it away")
    path = folder / DATABASE
    try:
        with quiet():
            found = RDBStorage(_url(path), skip_compatibility_check=True)
            version = found.get_current_version()
            if version == found.get_head_version():
                return found
            if version not in found.get_all_versions():
                raise RunError(short(path), f"of a later version of Optuna (its tables are {version})", BEGIN_ANEW)
        return _converted(path)
    except (SQLAlchemyError, StorageInternalError, AssertionError) as error:
        raise _explained(path, error) from None


@contextmanager
def of_what_is_stored(storage: RDBStorage) -> Iterator[None]:
    """Raise a RunError in place of errors of code that reads a study, whose tables hold what nobody wrote."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (FmvaeError, SQLAlchemyError, StorageInternalError):
        raise
    except Exception as error:
        problem = f"damaged ({type(error).__name__}: {one_line(str(error))})"
        raise RunError(short(Path(str(storage.engine.url.database))), problem, BEGIN_ANEW) from error


def _explained(path: Path, error: BaseException) -> RunError:
    """Return what SQLite says of a database. One that is locked, or has no space, is not to be moved away."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason, *_ = str(error).splitlines() or ["its tables are not Optuna's"]
    if "locked" in reason:
        problem, way_out = f"in use by another program ({reason})", "close that program, and repeat the command"
    elif any(word in reason for word in ("full", "I/O", "readonly", "unable to open")):
        problem, way_out = reason, "check its permissions and the free space, and repeat the command"
    else:
        problem, way_out = f"not a study's database ({reason})", BEGIN_ANEW
    return RunError(short(path), problem, way_out)


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


def _converted(path: Path) -> RDBStorage:
    """Convert a copy of an earlier Optuna's database, and put it in the place of the original, which is kept."""
    from optuna.storages import RDBStorage

    copy, kept = path.with_name(f"{path.name}.converting"), path.with_name(BEFORE)
    copy.unlink(missing_ok=True)
    shutil.copy2(path, copy)
    with quiet():
        storage = RDBStorage(_url(copy), skip_compatibility_check=True)
        storage.upgrade()
        storage.engine.dispose()
    if not kept.exists():
        link(path, kept)
    copy.replace(path)
    log.info("%s: converted for today's Optuna; %s is as it was", short(path), short(kept))
    with quiet():
        return RDBStorage(_url(path))


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress what Optuna warns of: experimental parts, and the names of old distributions in old databases."""
    alembic = logging.getLogger("alembic")
    level = alembic.level
    alembic.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", module="optuna")
        yield
    alembic.setLevel(level)

"""Shared by all tests: one thread each, as several run at once, and a small dataset that is quick to learn."""

import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import zlib

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for child processes too

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.browser import Tab, launched, opened_tab
from tests.idx import write_idx_dataset
from tests.tiers import ASKED, Counts, put_into_tiers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from fmvae.data import FashionMNISTManager

# a busy machine is no failure
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# a disk in memory, if it has so many free bytes: on another, tests wait until it has synced
MEMORY, ROOM = Path("/dev/shm"), 8 * 2**30
COUNTS = pytest.StashKey[Counts]()
CACHE = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config: pytest.Config) -> None:
    """Heed Ctrl-C also where a shell's background has it ignored: tests and their children send it.

    Caches go into a folder of this session, for child processes too: none of the user's files is read or written.
    Folders of tests are in memory if there is room, unless ``--basetemp`` or PYTEST_DEBUG_TEMPROOT name another.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # xdist's workers have it from the process that started them
        if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
        root = os.environ.get("PYTEST_DEBUG_TEMPROOT")
        folder = config.stash[CACHE] = tempfile.TemporaryDirectory(prefix="fmvae-tests-", dir=root)
        os.environ["XDG_CACHE_HOME"] = folder.name


def pytest_unconfigure(config: pytest.Config) -> None:
    if folder := config.stash.get(CACHE, None):
        folder.cleanup()


@pytest.hookimpl(tryfirst=True)  # before -m and -k leave tests out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    counts = config.stash[COUNTS] = put_into_tiers(items)
    if file := os.environ.get(ASKED):
        Path(file).write_text(json.dumps(counts), encoding="utf-8")


def seed_global_draws(name: str) -> None:
    """Start the global generators anew: what is drawn depends on ``name``, not on the tests that ran before.

    Other values of the variable TESTS_SEED give other draws: a test that passes by luck shows itself.
    """
    seed = zlib.crc32((os.environ.get("TESTS_SEED", "") + name).encode())
    random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    # by name only: a fixture of a module is made for whichever of its tests comes first in this worker
    seed_global_draws(f"{fixturedef.baseid}::{fixturedef.argname}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    seed_global_draws(item.nodeid)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., "FashionMNISTManager"]:
    """A maker of managers over 1,000 training and 800 test images; arguments are the manager's own."""
    root = tmp_path_factory.mktemp("small-data")
    sha256 = write_idx_dataset(root, 1000, 800)

    def make(**arguments) -> "FashionMNISTManager":
        from fmvae.data import FashionMNISTManager

        return FashionMNISTManager(root, **{"sha256": sha256, "download": False, "val_size": 100} | arguments)

    return make


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    """Chromium, started once; tests that ask for it are skipped where it is missing."""
    with launched() as browser:
        yield browser


@pytest.fixture
def tab(chromium) -> Iterator[Tab]:
    """A new tab, 1,280 pixels wide, in light colours."""
    with opened_tab(chromium, viewport={"width": 1280, "height": 900}, color_scheme="light") as own:
        yield own


@pytest.fixture
def monkeypatch(request: pytest.FixtureRequest) -> Iterator[pytest.MonkeyPatch]:
    """pytest's own, but always undone before the test's folder is removed: that takes the real functions of os."""
    if "tmp_path" in request.fixturenames:
        request.getfixturevalue("tmp_path")  # made before, so removed after
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Training in this process flushes them to zero for good, and hypothesis can't work without them."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def shown_bars() -> Iterator[None]:
    """Workers hide progress bars for the rest of their process; a test may do a worker's work in its own."""
    yield
    if streams := sys.modules.get("fmvae.common.streams"):
        vars(streams)["_hidden"] = False


LIBRARIES = {"flows": "zuko", "factors": "h5py", "optuna": "optuna", "mlflow": "mlflow", "wandb": "wandb"}


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Skip a test that was told to install an extra whose library is missing."""
    outcome: Any = yield
    if outcome.excinfo and (extra := missing_extra(str(outcome.excinfo[1]))):
        outcome.force_exception(pytest.skip.Exception(f"needs the extra {extra}"))


def missing_extra(said: str) -> str | None:
    """Return the extra that a message tells to install, if it is known and not installed."""
    named = (extra for extra in LIBRARIES if f"pip install -e '.[{extra}]'" in said)
    return next((extra for extra in named if importlib.util.find_spec(LIBRARIES[extra]) is None), None)

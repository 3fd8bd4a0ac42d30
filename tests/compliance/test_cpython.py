"""CPython's own tests of its thread pool and its futures, run against ours.

The standard's test modules are imported anew while `ThreadPoolExecutor` is RecyclePool, so that
their helpers, their constants and the scripts that they run in a child process come along. The
classes that make futures by hand run twice: with the standard's Future, so that ours meet foreign
ones, and, under names that end in `WithOurFutures`, with ours.

Some builds of Python come without these tests. CPYTHON_TESTS may then name a directory that holds
`test_concurrent_futures`, as it is in the sources of that version.
"""

import importlib
import os
import sys
import unittest
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import _base
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from recyclepool import RecyclePool
from recyclepool._future import Future

test = pytest.importorskip("test", reason="this Python comes without the package `test`")
support = pytest.importorskip("test.support", reason="this Python comes without `test.support`")
script_helper = pytest.importorskip("test.support.script_helper")

if "CPYTHON_TESTS" in os.environ:
    test.__path__.append(os.environ["CPYTHON_TESTS"])
PACKAGE = "test.test_concurrent_futures"
standard = pytest.importorskip(PACKAGE, reason=f"this Python comes without {PACKAGE}")

LEFT_OUT = {
    "ThreadPoolShutdownTest.test_submit_after_interpreter_shutdown": (
        "it reads `RuntimeError: ` off a traceback, where ours has the name of a subclass"
    ),
    "ThreadPoolShutdownTest.test_thread_names_default": (
        "a worker's thread bears the name of its pool, not the standard's number"
    ),
}

pytestmark = pytest.mark.filterwarnings(
    r"ignore:.*use of fork\(\) may lead to deadlocks:DeprecationWarning"
)


class Futures:
    """`concurrent.futures` as the tests see it."""

    ThreadPoolExecutor = RecyclePool

    def __getattr__(self, name: str) -> Any:
        return getattr(futures, name)


def assert_python_ok(flag: str, script: str, **options: Any) -> Any:
    """Run a script of the tests in a child that finds what is found here, and our pool."""
    ours = script.replace("from concurrent.futures import", "from recyclepool import")
    assert ours != script, "the swap does not reach the executor of this script"
    tests = list(test.__path__)
    paths = f"import sys, test; sys.path[:] = {sys.path}; test.__path__[:] = {tests}\n"
    return script_helper.assert_python_ok(flag, paths + ours, **options)


def import_anew(future: type[_base.Future]) -> list[ModuleType]:
    """The test modules, imported while RecyclePool and `future` bear the standard's names."""
    names = [PACKAGE]  # one module before 3.11.6
    if hasattr(standard, "__path__"):
        parts = ("thread_pool", "shutdown", "init", "wait", "as_completed", "future")
        names = [f"{PACKAGE}.test_{part}" for part in parts]
    for name in names:  # whatever they import is there before the swap, and keeps its own classes
        importlib.import_module(name)
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(PACKAGE)}
    try:
        with (
            mock.patch.object(futures, "ThreadPoolExecutor", RecyclePool),
            mock.patch.object(_base, "Future", future),
        ):
            modules = [importlib.import_module(name) for name in names]
    finally:
        sys.modules.update(before)
    for module in modules:
        vars(module).update(futures=Futures(), assert_python_ok=assert_python_ok)
    return modules


def cases(future: type[_base.Future]) -> dict[str, type[unittest.TestCase]]:
    return {
        name: value
        for module in import_anew(future)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, unittest.TestCase)
    }


class AsTheirRunner(unittest.TestCase):
    """What their runner sees to: nobody catches the log, no thread and no child stays behind."""

    def setUp(self) -> None:
        self.enterContext(mock.patch.object(_base.LOGGER, "propagate", False))
        self.enterContext(mock.patch.object(support, "environment_altered", False))
        self.addCleanup(self.check_what_stays)
        super().setUp()

    def check_what_stays(self) -> None:
        assert not support.environment_altered, "something stays: see the captured stderr"


def collected(name: str, case: type[unittest.TestCase]) -> type[unittest.TestCase]:
    """A subclass of this module, for pytest to find. What is left out has to fail there."""
    body: dict[str, Any] = {"__module__": __name__}
    for test_id, reason in LEFT_OUT.items():
        owner, method = test_id.split(".")
        if owner == case.__name__:
            body[method] = pytest.mark.xfail(reason=reason, strict=True)(getattr(case, method))
    return type(name, (AsTheirRunner, case), body)


with_pool = {
    name: case
    for name, case in cases(_base.Future).items()
    if getattr(case, "executor_type", None) is RecyclePool  # no processes, no interpreters
}
with_both = {
    f"{name}WithOurFutures": case
    for name, case in cases(Future).items()
    if name in ("FutureTests", "ThreadPoolWaitTests", "ThreadPoolAsCompletedTest")
}
suite = with_pool | with_both
globals().update({name: collected(name, case) for name, case in suite.items()})


def test_no_class_of_theirs_is_missed() -> None:
    assert set(suite) >= {
        "ThreadPoolExecutorTest",
        "ThreadPoolShutdownTest",
        "ThreadPoolInitializerTest",
        "ThreadPoolFailingInitializerTest",
        "ThreadPoolWaitTests",
        "ThreadPoolAsCompletedTest",
        "ThreadPoolWaitTestsWithOurFutures",
        "ThreadPoolAsCompletedTestWithOurFutures",
        "FutureTestsWithOurFutures",
    }


def test_what_is_left_out_is_there_and_little() -> None:
    for test_id in LEFT_OUT:
        owner, method = test_id.split(".")
        assert callable(getattr(suite[owner], method, None)), f"{test_id} is no test of theirs"
    assert len(LEFT_OUT) <= 5


@pytest.fixture(autouse=True, scope="module")
def _as_their_modules() -> Iterator[None]:
    standard_module = sys.modules[with_pool["ThreadPoolWaitTests"].__module__]
    standard_module.setUpModule()
    yield
    unittest.doModuleCleanups()

"""How the reading of owned bytes is compared with the truth: a stage, its cases, and the measure.

A case fills the cache of a `Stage`, and what others hold. The truth is what tracemalloc says is
freed when the cache is cleared and the collector has run.
"""

import gc
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from recyclepool._owned import Pass, Root, largest

N = 2000  # entries: about half a MiB in most cases


class Stage:
    """One worker with its roots, and the rest of the program."""

    def __init__(self) -> None:
        self.cache: dict[Any, Any] = {}
        self.outside: list[Any] = []  # what the program or the caller holds
        self.roots = [Root("cache[{}]", self.cache)]
        self.recycle: list[Callable[[], object]] = [self.cache.clear]
        self.after: list[Callable[[], object]] = []


Build = Callable[[Stage], None]


class Case(NamedTuple):
    name: str
    build: Build
    frees: bool  # False: a recycle frees nothing of it that matters
    tolerance: float  # of what is freed
    needs: str  # a package

    @property
    def possible(self) -> bool:
        return not self.needs or find_spec(self.needs) is not None

    def __repr__(self) -> str:
        return self.name


class Figures(NamedTuple):
    """Bytes."""

    built: int  # by the case, whoever holds it
    freed: int  # by the recycle
    owned: int  # as it was read before
    complete: bool  # and stable
    names: str

    @property
    def error(self) -> float:
        """Relative to what is freed; to what was built where that is next to nothing."""
        nothing = self.freed < 0.02 * self.built
        return (self.owned - self.freed) / (self.built if nothing else self.freed)


def measure(case: Case) -> Figures:
    """Build the case, read, recycle. tracemalloc has to be on."""
    gc.collect()
    gc.freeze()  # what is there already need not be looked through five times
    empty = tracemalloc.get_traced_memory()[0]
    stage = Stage()
    case.build(stage)
    gc.collect()
    built = tracemalloc.get_traced_memory()[0] - empty
    result = Pass(stage.roots).run()
    assert result is not None
    names = "; ".join(map(str, largest(result, 2)))
    owned, complete = result.owned, result.complete and result.stable
    del result
    stage.roots.clear()
    gc.collect()
    full = tracemalloc.get_traced_memory()[0]
    for step in stage.recycle:
        step()
    del step
    gc.collect()
    freed = full - tracemalloc.get_traced_memory()[0]
    for step in stage.after:
        step()
    gc.unfreeze()
    return Figures(built, freed, owned, complete, names)


CASES: list[Case] = []


def case(
    *, frees: bool = True, tolerance: float = 0.05, needs: str = ""
) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        CASES.append(Case(build.__name__, build, frees, tolerance, needs))
        return build

    return add

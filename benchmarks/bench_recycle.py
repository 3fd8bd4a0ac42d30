"""How long until the successor of a worker is ready?"""

from functools import partial
from time import sleep

from pytest_benchmark.fixture import BenchmarkFixture

from recyclepool import RecyclePool

from .restarts import PAUSE, Ready, recycle, start_thread

GROUP = "one worker's successor, one bare thread"

pause = partial(sleep, PAUSE)


def test_recycle(benchmark: BenchmarkFixture) -> None:
    benchmark.group = GROUP
    ready = Ready()
    with RecyclePool(1, min_workers=1, initializer=ready.now) as pool:
        pool.start().result()
        benchmark.pedantic(recycle, (pool, ready), setup=pause, rounds=201, warmup_rounds=10)


def test_bare_thread(benchmark: BenchmarkFixture) -> None:
    benchmark.group = GROUP
    benchmark.pedantic(start_thread, (Ready(),), setup=pause, rounds=201, warmup_rounds=10)

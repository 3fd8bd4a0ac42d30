"""With asyncio: as a loop's default executor, and its futures awaited."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import itertools
import threading
import weakref

import pytest
from staging import WAIT, in_thread, until

from recyclepool import (
    Limits,
    PoolClosedError,
    PoolState,
    QueueFullError,
    RecyclePool,
    TaskAbortedError,
    current_worker,
)


def test_as_the_default_executor(new_pool):
    """asyncio.run shuts its default executor down, for good."""
    pool = new_pool(2)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(pool)
        values = await asyncio.gather(
            *(loop.run_in_executor(None, divmod, n, 3) for n in range(20))
        )
        slot = await asyncio.to_thread(lambda: current_worker().slot)
        return values, slot

    values, slot = asyncio.run(main())
    assert values == [divmod(n, 3) for n in range(20)]
    assert slot in (0, 1)
    assert pool.stats().state is PoolState.SHUTDOWN
    with pytest.raises(PoolClosedError):
        pool.submit(int)


def test_run_in_executor_with_a_pool_of_ones_own(new_pool):
    """That one stays open."""
    pool = new_pool(2, limits=Limits(tasks=3))

    async def main():
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(
            *(loop.run_in_executor(pool, divmod, 9, n) for n in range(5)), return_exceptions=True
        )
        assert isinstance(results[0], ZeroDivisionError)
        return results[1:]

    assert asyncio.run(main()) == [divmod(9, n) for n in range(1, 5)]
    assert pool.stats().state is PoolState.OPEN


def test_wrap_future(new_pool):
    pool = new_pool(1)

    async def main():
        done = await asyncio.wrap_future(pool.submit(divmod, 7, 2))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wrap_future(pool.submit(divmod, 7, 0))
        return done

    assert asyncio.run(main()) == (3, 1)


def test_a_cancelled_await_cancels_what_is_queued(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    running = pool.submit(hold, "ran")
    hold.wait_started()
    queued = pool.submit(int)

    async def main():
        waiting = asyncio.ensure_future(asyncio.wrap_future(queued))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    until(queued.cancelled)
    hold.release()
    assert running.result(WAIT) == "ran"


def test_a_destroyed_pool_tells_the_loop(new_pool, new_spin):
    """A running task's await ends in an error that is no CancelledError: nobody cancelled it."""
    pool, spin = new_pool(1), new_spin()

    async def main():
        running, queued = pool.submit(spin), pool.submit(int)
        waits = [asyncio.wrap_future(future) for future in (running, queued)]
        await asyncio.to_thread(spin.wait_started)
        await asyncio.to_thread(pool.destroy, WAIT)
        with pytest.raises(TaskAbortedError):
            await waits[0]
        with pytest.raises(asyncio.CancelledError):
            await waits[1]

    asyncio.run(main())


def test_the_loop_may_be_closed_before_the_task_ends(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    futures = []

    async def main():
        futures.append(pool.submit(hold, "late"))
        asyncio.wrap_future(futures[0])

    asyncio.run(main())
    hold.release()
    assert futures[0].result(WAIT) == "late"
    assert pool.submit(int).result(WAIT) == 0


def test_a_task_sees_the_variables_of_the_coroutine(new_pool):
    pool = new_pool(1)
    request = contextvars.ContextVar("request")

    async def handle(number):
        request.set(number)
        return await asyncio.get_running_loop().run_in_executor(pool, request.get)

    async def main():
        return await asyncio.gather(*map(handle, range(10)))

    assert asyncio.run(main()) == list(range(10))


def test_waiting_with_futures_of_others(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()
    with concurrent.futures.ThreadPoolExecutor(1) as standard:
        mixed = [pool.submit(hold, "ours"), standard.submit(divmod, 7, 2)]
        done, pending = concurrent.futures.wait(
            mixed, WAIT, return_when=concurrent.futures.FIRST_COMPLETED
        )
        assert (done, pending) == ({mixed[1]}, {mixed[0]})
        hold.release()
        assert set(concurrent.futures.as_completed(mixed, WAIT)) == set(mixed)


def test_callbacks_run_in_the_worker(new_pool, new_hold):
    pool, hold, seen = new_pool(1), new_hold(), []
    future = pool.submit(hold)
    future.add_done_callback(lambda _: seen.append(threading.current_thread()))
    (thread,) = pool._threads
    hold.release()
    future.result(WAIT)
    until(lambda: seen)
    assert seen == [thread]


# ---- await pool.run() ---------------------------------------------------------------------------


def test_run(new_pool):
    pool = new_pool(2)

    async def main():
        assert await pool.run(int, "7", base=8) == 7
        with pytest.raises(ZeroDivisionError):
            await pool.run(divmod, 7, 0)
        return await asyncio.gather(*(pool.run(divmod, n, 3) for n in range(50)))

    assert asyncio.run(main()) == [divmod(n, 3) for n in range(50)]
    assert pool.stats().submitted == 52


def test_run_takes_the_functions_own_keywords(new_pool):
    given = {"fn": 1, "self": 2, "args": 3, "timeout": 4}
    assert asyncio.run(new_pool(1).run(dict, **given)) == given


def test_run_does_nothing_until_it_is_awaited(new_pool):
    pool = new_pool(1)
    coroutine = pool.run(int)
    assert pool.stats().submitted == 0
    assert asyncio.run(coroutine) == 0


def test_the_loop_runs_on_while_a_task_is_awaited(new_pool, new_hold):
    pool, hold = new_pool(1), new_hold()

    async def main():
        running = asyncio.ensure_future(pool.run(hold, "ran"))
        await asyncio.to_thread(hold.wait_started)
        assert not running.done()
        hold.release()
        return await running

    assert asyncio.run(main()) == "ran"


def test_run_sees_the_variables_of_its_coroutine(new_pool):
    pool = new_pool(1)
    request = contextvars.ContextVar("request")

    async def handle(number):
        request.set(number)
        return await pool.run(request.get)

    async def main():
        return await asyncio.gather(*map(handle, range(10)))

    assert asyncio.run(main()) == list(range(10))


def test_a_cancelled_run_cancels_the_queued_task(new_pool, new_hold):
    """Its arguments are free at once, and nobody runs it."""
    pool, hold, ran = new_pool(1), new_hold(), []
    pool.submit(hold)
    hold.wait_started()

    async def main():
        waiting = asyncio.ensure_future(pool.run(ran.append, 1))
        await asyncio.sleep(0)
        (task,) = pool._engine.dispatch.queue
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return task

    assert asyncio.run(main()).cancelled()
    hold.release()
    pool.close()
    assert not ran
    assert pool.stats().cancelled == 1


def test_s14_a_cancelled_run_lets_the_running_task_go_on(new_pool, new_hold, caplog):
    """Its result is dropped, and nothing is told of that."""
    pool, hold, ended = new_pool(1), new_hold(), []

    def task():
        hold()
        ended.append(threading.current_thread())

    async def main():
        waiting = asyncio.ensure_future(pool.run(task))
        await asyncio.to_thread(hold.wait_started)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        hold.release()
        return await pool.run(threading.current_thread)

    assert [asyncio.run(main())] == ended
    assert (pool.stats().completed, pool.stats().cancelled) == (2, 0)
    gc.collect()
    assert not caplog.records


def test_a_running_task_of_a_cancelled_run_is_stopped_by_its_timeout(new_pool, new_spin):
    """The way to have it end: wait_for() ends the await only, the pool ends the task."""
    pool, spin = new_pool(1, limits=Limits(grace=WAIT)), new_spin()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.options(timeout=0.1).run(spin), 0.02)

    asyncio.run(main())
    until(lambda: pool.stats().timed_out == 1)
    assert pool.submit(lambda: current_worker().generation).result(WAIT) == 2


@pytest.mark.parametrize("way", ["run", "run_in_executor", "wrap_future"])
@pytest.mark.parametrize("ending", ["returns", "raises"])
def test_s14_the_loop_is_closed_before_the_task_ends(new_pool, new_hold, caplog, way, ending):
    """Nothing is logged, nothing warned of, and the worker serves on."""
    pool, hold = new_pool(1), new_hold()

    def task():
        hold()
        if ending == "raises":
            raise LookupError

    async def main():
        if way == "run":
            waiting = asyncio.ensure_future(pool.run(task))
        elif way == "run_in_executor":
            waiting = asyncio.get_running_loop().run_in_executor(pool, task)
        else:
            waiting = asyncio.wrap_future(pool.submit(task))
        await asyncio.sleep(0)
        return waiting

    loop = asyncio.new_event_loop()
    waiting = loop.run_until_complete(main())
    hold.wait_started()
    if way == "run":  # a task of the loop: it is to be ended before that is closed
        waiting.cancel()
        loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
    loop.close()
    del waiting, loop
    hold.release()
    assert pool.submit(int).result(WAIT) == 0
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []


def test_s14_asyncio_run_ends_before_the_task_does(new_pool, new_hold, caplog):
    """It cancels what is still awaited."""
    pool, hold = new_pool(1), new_hold()

    async def main():
        asyncio.ensure_future(pool.run(hold))  # noqa: RUF006  # nobody keeps it
        await asyncio.to_thread(hold.wait_started)

    asyncio.run(main())
    hold.release()
    assert pool.submit(int).result(WAIT) == 0
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []


def test_run_from_several_loops(new_pool):
    pool = new_pool(3)

    async def main(seed):
        return await asyncio.gather(*(pool.run(divmod, n, seed) for n in range(200)))

    calls = {seed: in_thread(asyncio.run, main(seed)) for seed in (3, 5, 7)}
    for seed, call in calls.items():
        assert call.result() == [divmod(n, seed) for n in range(200)]
    assert pool.stats().completed == 600


def test_run_with_a_full_queue_waits_and_the_loop_runs_on(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=2), new_hold()

    async def main():
        first = asyncio.ensure_future(pool.run(hold))
        await asyncio.to_thread(hold.wait_started)
        others = [asyncio.ensure_future(pool.run(int, str(n))) for n in range(20)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(pool._engine.dispatch.queue) == 2
        assert not any(other.done() for other in others)
        with pytest.raises(QueueFullError, match=r"await pool\.run"):
            pool.submit(int)  # this thread must not wait
        hold.release()
        await first
        return await asyncio.gather(*others)

    assert asyncio.run(main()) == list(range(20))
    assert pool.stats().rejected_full == 1


def test_a_run_that_waits_for_a_place_may_be_cancelled(new_pool, new_hold):
    """It was never queued; and the place that comes then goes to another."""
    pool, hold, ran = new_pool(1, max_queue=1), new_hold(), []

    async def main():
        first = asyncio.ensure_future(pool.run(hold))
        await asyncio.to_thread(hold.wait_started)
        runs = [asyncio.ensure_future(pool.run(ran.append, n)) for n in range(3)]
        for _ in range(20):
            await asyncio.sleep(0)
        runs[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await runs[1]
        hold.release()
        await asyncio.gather(first, runs[0], runs[2])

    asyncio.run(main())
    assert ran == [0, 2]
    assert not pool._engine.dispatch.waiting


def test_run_with_a_full_queue_that_raises(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=1, on_full="raise"), new_hold()
    pool.submit(hold)
    hold.wait_started()
    pool.submit(int)
    with pytest.raises(QueueFullError):
        asyncio.run(pool.run(int))
    hold.release()


def test_a_run_that_waits_for_a_place_is_told_of_the_end(new_pool, new_hold):
    pool, hold = new_pool(1, max_queue=1), new_hold()

    async def main():
        first = asyncio.ensure_future(pool.run(hold))
        await asyncio.to_thread(hold.wait_started)
        queued, waiting = (asyncio.ensure_future(pool.run(int)) for _ in range(2))
        for _ in range(20):
            await asyncio.sleep(0)
        pool.shutdown(wait=False)
        with pytest.raises(PoolClosedError):
            await waiting
        hold.release()
        return await first, await queued

    assert asyncio.run(main()) == (None, 0)


@pytest.mark.parametrize("verb", ["close", "destroy", "shutdown"])
def test_run_in_a_pool_that_ends(new_pool, verb):
    """Whatever became of each, all have an end."""
    pool, counter = new_pool(2), itertools.count()

    async def main():
        runs = [asyncio.ensure_future(pool.run(next, counter)) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.to_thread(getattr(pool, verb))
        return await asyncio.gather(*runs, return_exceptions=True)

    outcomes = asyncio.run(main())
    good = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert len(set(good)) == len(good)
    others = {type(outcome) for outcome in outcomes} - {int}
    assert others <= ({asyncio.CancelledError, TaskAbortedError} if verb == "destroy" else set())


def test_run_from_an_own_task(new_pool):
    """A loop in a worker, that awaits the pool's other worker."""
    pool = new_pool(2)

    async def inner():
        return await asyncio.gather(*(pool.run(int, str(n)) for n in range(5)))

    assert pool.submit(lambda: asyncio.run(inner())).result(WAIT) == list(range(5))


def test_run_from_an_own_task_with_a_full_queue(new_pool, new_hold):
    """S22: it would wait for itself."""
    pool, hold = new_pool(1, max_queue=1), new_hold()

    def task():
        hold()
        return asyncio.run(pool.run(int))

    future = pool.submit(task)
    hold.wait_started()
    pool.submit(int)
    hold.release()
    assert isinstance(future.exception(WAIT), QueueFullError)


def test_run_of_a_task_that_is_stopped(new_pool, new_spin):
    """By the pool's cancel(): an error, and no CancelledError: nobody cancelled the await."""
    pool, spin = new_pool(1), new_spin()

    async def main():
        running = asyncio.ensure_future(pool.run(spin))
        await asyncio.to_thread(spin.wait_started)
        (worker,) = pool._engine.roster.workers
        assert pool.cancel(worker.gate.task)
        with pytest.raises(TaskAbortedError):
            await running

    asyncio.run(main())


# ---- async with ---------------------------------------------------------------------------------


def test_async_with():
    """As with: what was accepted is finished, and the loop runs on meanwhile."""
    go, ran = threading.Event(), []

    def task():
        assert go.wait(WAIT)
        ran.append(1)

    async def main():
        async with RecyclePool(2) as pool:
            assert isinstance(pool, RecyclePool)
            assert await pool.run(int, "7") == 7
            pool.submit(task)
            asyncio.get_running_loop().call_later(0.01, go.set)  # only a loop that runs on does it
        assert ran == [1]
        return pool

    pool = asyncio.run(main())
    assert pool.stats().state is PoolState.SHUTDOWN
    with pytest.raises(PoolClosedError):
        pool.submit(int)


def test_async_with_lets_errors_through():
    async def main():
        async with RecyclePool(1) as pool:
            made.append(pool)
            await pool.run(divmod, 7, 0)

    made = []
    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert made[0].stats().state is PoolState.SHUTDOWN


def test_async_with_that_is_cancelled_at_its_end(new_hold):
    """Who waits is freed; the pool ends all the same when its task does."""
    hold, made = new_hold(), []

    async def use():
        async with RecyclePool(1) as pool:
            made.append(pool)
            pool.submit(hold)
            await asyncio.to_thread(hold.wait_started)

    async def main():
        using = asyncio.ensure_future(use())
        while not (made and made[0]._shutdown):
            await asyncio.sleep(0.001)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using

    asyncio.run(main())
    assert made[0].stats().state is PoolState.CLOSING
    hold.release()
    until(lambda: made[0].stats().state is PoolState.SHUTDOWN)


def test_async_with_of_a_pool_that_never_worked_or_was_ended_before():
    async def main():
        async with RecyclePool(1):
            pass
        async with RecyclePool(1) as pool:
            await pool.run(int)
            pool.shutdown()

    asyncio.run(asyncio.wait_for(main(), WAIT))


@pytest.mark.parametrize("most", [None, 1])
def test_an_exception_is_not_kept(new_pool, most):
    """As run_in_executor's: no cycle holds what a task raised, and its frames."""

    class Odd(Exception):
        pass

    def fail():
        raise Odd

    async def main():
        for verbs in (pool, pool.options(name="fail")):
            try:
                await verbs.run(fail)
            except Odd as error:
                kept.append(weakref.ref(error))

    pool, kept = new_pool(1, max_queue=most), []
    gc.disable()
    try:
        asyncio.run(main())
        pool.submit(int).result(WAIT)
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()


def test_nothing_runs_that_no_loop_awaits(new_pool):
    ran, pool = [], new_pool(1)
    no_loop = pytest.raises(RuntimeError, match="no running event loop")
    with contextlib.closing(pool.run(ran.append, 1)) as coroutine, no_loop:
        coroutine.send(None)
    pool.submit(int).result(WAIT)
    assert not ran


def test_idle_workers_take_what_finds_the_queue_full(new_pool, new_hold):
    """What is queued has workers of its own that are about to take it: it does not wait."""
    pool, hold = new_pool(8, min_workers=8, max_queue=1, on_full="raise"), new_hold()
    pool.start().result(WAIT)
    until(lambda: len(pool._engine.dispatch.idle) == 8)
    futures = [pool.submit(hold) for _ in range(8)]
    hold.wait_started(8)
    hold.release()
    for future in futures:
        future.result(WAIT)

"""With asyncio: as a loop's default executor, and its futures awaited."""

import asyncio
import concurrent.futures
import contextvars
import threading

import pytest
from staging import WAIT, until

from recyclepool import Limits, PoolClosedError, PoolState, TaskAbortedError, current_worker


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

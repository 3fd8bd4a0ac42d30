"""Calls as somebody writes them who is new here: each is refused in words that say what to write.

Who comes from concurrent.futures, multiprocessing, loky or celery brings their words along.
"""

import re

import pytest
from refusing import co, f, refused
from staging import WAIT

from recyclepool import OutsideWorkerError, UnitError, pools

KNOWN = (
    "max_workers, thread_name_prefix, initializer, initargs, name, backend, limits, schedule, "
    "min_workers, max_queue, on_full, cache, context, finalizer"
)
OF_LIMITS = (
    "tasks, memory, memory_hard, pool_memory, age, idle, task_timeout, hang, memory_samples, "
    "sample_every, min_age, jitter, grace, start_timeout, max_surge, max_abandoned, report_only"
)
NAME_ONLY = "write the function's name, without ()"
NOBODY_AWAITS = "is a coroutine function, which nobody would await: write def instead of async def"
A_DURATION = "write numbers with units (d h m s ms us), such as 1h30m or 500ms"
HOW_MANY = "write how many as an int, such as tasks=10_000, or None"
ITSELF = "it would wait for itself. Call it from another thread, or shutdown(wait=False)"
AT_WORK = "<RecyclePool 'images' open: 1/2 workers (0 idle, 1 busy), 0 queued>"


def of_pool(word, advice):
    return f"RecyclePool() has no parameter {word!r}: {advice}"


def seconds(given, example):
    return f"{given}: write seconds as a number, such as {example}"


KEYWORDS = [
    ("RecyclePool(max_worker=4)", of_pool("max_worker", "did you mean 'max_workers'?")),
    (
        "RecyclePool(workers=4)",
        of_pool("workers", "did you mean 'max_workers' or 'min_workers'?"),
    ),
    ("RecyclePool(processes=4)", of_pool("processes", "did you mean 'max_workers'?")),
    ("RecyclePool(n_jobs=4)", of_pool("n_jobs", "did you mean 'max_workers'?")),
    ("RecyclePool(concurrency=4)", of_pool("concurrency", "did you mean 'max_workers'?")),
    ("RecyclePool(maxsize=100)", of_pool("maxsize", "did you mean 'max_queue'?")),
    ("RecyclePool(init_args=(1,))", of_pool("init_args", "did you mean 'initargs'?")),
    ("RecyclePool(tasks=5)", of_pool("tasks", "write limits=Limits(tasks=...)")),
    ("RecyclePool(task=5)", of_pool("task", "write limits=Limits(tasks=...)")),
    (
        "RecyclePool(maxtasksperchild=5)",
        of_pool("maxtasksperchild", "write limits=Limits(tasks=...)"),
    ),
    (
        "RecyclePool(max_tasks_per_child=5)",
        of_pool("max_tasks_per_child", "write limits=Limits(tasks=...)"),
    ),
    (
        "RecyclePool(task_time_limit=30)",
        of_pool("task_time_limit", "write limits=Limits(task_timeout=...)"),
    ),
    ("RecyclePool(max_surge=2)", of_pool("max_surge", "write limits=Limits(max_surge=...)")),
    ("RecyclePool(timeout=5)", of_pool("timeout", "write pool.options(timeout=...)")),
    (
        "RecyclePool(mp_context='spawn')",
        of_pool("mp_context", "the workers are threads: leave it out"),
    ),
    ("RecyclePool(schedules='@daily')", of_pool("schedules", "did you mean 'schedule'?")),
    ("RecyclePool(zzz=5)", of_pool("zzz", f"known are {KNOWN}")),
    ("Limits(task=5)", "Limits() has no parameter 'task': did you mean 'tasks'?"),
    ("Limits(timeout=5)", "Limits() has no parameter 'timeout': did you mean 'task_timeout'?"),
    (
        "Limits(max_requests=5)",
        "Limits() has no parameter 'max_requests': did you mean 'tasks'?",
    ),
    (
        "Limits(max_workers=5)",
        "Limits() has no parameter 'max_workers': write RecyclePool(max_workers=...)",
    ),
    ("Limits(zzz=5)", f"Limits() has no parameter 'zzz': known are {OF_LIMITS}"),
    ("pool.options(timeouts=3)", "options() has no parameter 'timeouts': did you mean 'timeout'?"),
    ("pool.options(hang=3)", "options() has no parameter 'hang': write Limits(hang=...)"),
    (
        "pool.options(deadline=3)",
        "options() has no parameter 'deadline': known are timeout, key, name, context",
    ),
    (
        "pool.map(f, [1], bufersize=3)",
        "map() has no parameter 'bufersize': did you mean 'buffersize'?",
    ),
    (
        "pool.options(key=1).map(f, [1], time_out=3)",
        "map() has no parameter 'time_out': did you mean 'timeout'?",
    ),
    (
        "pool.map_unordered(f, [1], timeout=3)",
        "map_unordered() has no parameter 'timeout': write pool.map(timeout=...)",
    ),
    (
        "pool.map_unordered(f, [1], chunksize=3)",
        "map_unordered() has no parameter 'chunksize': each task is one call here: leave it out",
    ),
    ("pool.recycle(slots=0)", "recycle() has no parameter 'slots': did you mean 'slot'?"),
    ("pool.resize(workers=3)", "resize() has no parameter 'workers': did you mean 'max_workers'?"),
    (
        "pool.wait_idle(time_out=5)",
        "wait_idle() has no parameter 'time_out': did you mean 'timeout'?",
    ),
    ("pool.close(timout=5)", "close() has no parameter 'timout': did you mean 'timeout'?"),
    ("pool.close(wait=True)", "close() has no parameter 'wait': write pool.shutdown(wait=...)"),
    (
        "pool.destroy(timeout=5)",
        "destroy() has no parameter 'timeout': write pool.close(timeout=...)",
    ),
    (
        "pool.shutdown(cancel_future=True)",
        "shutdown() has no parameter 'cancel_future': did you mean 'cancel_futures'?",
    ),
    (
        "pool.shutdown(timeout=5)",
        "shutdown() has no parameter 'timeout': write pool.close(timeout=...)",
    ),
    (
        "pool.subscribe(call_back=print)",
        "subscribe() has no parameter 'call_back': did you mean 'callback'?",
    ),
]
KEYWORDS = [(call, TypeError, said) for call, said in KEYWORDS]

HOW_MANY_GIVEN = [
    (
        "RecyclePool(4, '', None, (), 'images')",
        (
            "RecyclePool.__init__() takes from 1 to 5 positional arguments but 6 were given: "
            f"write RecyclePool({KNOWN.replace(',', '=...,')}=...)"
        ),
    ),
    (
        "Limits(5, tasks=5)",
        (
            "Limits.__init__() got multiple values for argument 'tasks': "
            f"write Limits({OF_LIMITS.replace(',', '=...,')}=...)"
        ),
    ),
    (
        "pool.options(30)",
        (
            "RecyclePool.options() takes 1 positional argument but 2 were given: "
            "write options(timeout=..., key=..., name=..., context=...)"
        ),
    ),
    (
        "pool.map()",
        (
            "RecyclePool.map() missing 1 required positional argument: 'fn': "
            "write map(fn, *iterables, timeout=..., chunksize=..., buffersize=...)"
        ),
    ),
    (
        "pool.map(fn=f)",
        (
            "RecyclePool.map() got some positional-only arguments passed as keyword arguments: "
            "'fn': write map(fn, *iterables, timeout=..., chunksize=..., buffersize=...)"
        ),
    ),
    (
        "pool.shutdown(True, True)",
        (
            "RecyclePool.shutdown() takes from 1 to 2 positional arguments but 3 were given: "
            "write shutdown(wait=..., cancel_futures=...)"
        ),
    ),
    (
        "pool.recycle()",
        "RecyclePool.recycle() missing 1 required positional argument: 'slot': write recycle(slot)",
    ),
    (
        "per_worker()",
        "per_worker() missing 1 required positional argument: 'factory': write per_worker(factory)",
    ),
]
HOW_MANY_GIVEN = [(call, TypeError, said) for call, said in HOW_MANY_GIVEN]

VALUES = [
    (
        "RecyclePool('4')",
        TypeError,
        "max_workers='4': write a whole number, such as max_workers=4",
    ),
    (
        "RecyclePool(4.0)",
        TypeError,
        "max_workers=4.0: write a whole number, such as max_workers=4",
    ),
    (
        "RecyclePool(4, 100)",
        TypeError,
        "thread_name_prefix=100: write text, such as thread_name_prefix='worker'",
    ),
    (
        "RecyclePool(initializer=f(), initargs=('model',))",
        TypeError,
        f"initializer must be a callable, and is 0: {NAME_ONLY}",
    ),
    ("RecyclePool(initializer=co)", TypeError, f"initializer=co {NOBODY_AWAITS}"),
    ("RecyclePool(finalizer=Service().ask)", TypeError, f"finalizer=ask {NOBODY_AWAITS}"),
    (
        "RecyclePool(finalizer=5)",
        TypeError,
        f"finalizer must be a callable, and is 5: {NAME_ONLY}",
    ),
    (
        "RecyclePool(initializer=f, initargs=5)",
        TypeError,
        "initargs=5: write a tuple, such as initargs=(5,)",
    ),
    (
        "RecyclePool(initializer=f, initargs='model')",
        TypeError,
        "initargs='model': write a tuple, such as initargs=('model',)",
    ),
    (
        "RecyclePool(max_queue='100')",
        TypeError,
        "max_queue='100': write a whole number, such as max_queue=100",
    ),
    (
        "RecyclePool(max_queue=0)",
        ValueError,
        "max_queue=0: write 1 or more, or None for any number",
    ),
    ("RecyclePool(on_full='wait')", ValueError, 'on_full=\'wait\': write "block" or "raise"'),
    (
        "RecyclePool(2, min_workers=3)",
        ValueError,
        "min_workers=3: write 0 to max_workers, which is 2",
    ),
    (
        "RecyclePool(min_workers='2')",
        TypeError,
        "min_workers='2': write a whole number, such as min_workers=2",
    ),
    (
        "RecyclePool(limits={'tasks': 5})",
        TypeError,
        (
            "limits={'tasks': 5}: write limits=Limits(tasks=10_000), with recyclepool's Limits, "
            "or None"
        ),
    ),
    (
        "RecyclePool(schedule='0 25 * * *')",
        ValueError,
        "schedule='0 25 * * *': hour 25 is out of range: write 0 to 23",
    ),
    (
        "RecyclePool(schedule='every 6 hours')",
        ValueError,
        "schedule='every 6 hours': write \"every 6h\"",
    ),
    ("RecyclePool(schedule=3600)", TypeError, "schedule=3600: write Schedule.every(3600)"),
    (
        "RecyclePool(backend='threads')",
        ValueError,
        "backend='threads' is not known: did you mean 'thread'?",
    ),
    (
        "RecyclePool(backend='process')",
        ValueError,
        "backend='process' is to come: known here: 'thread'",
    ),
    ("RecyclePool(name=5)", TypeError, "name=5: write a word, such as name='images'"),
    (
        "RecyclePool(name='images')",
        ValueError,
        (
            "name='images' is taken by <RecyclePool 'images' open: 0/2 workers (0 idle, 0 busy), "
            "0 queued>: names are unique in a process. Choose another name, or shutdown() that pool"
        ),
    ),
    (
        "RecyclePool(cache='64M')",
        UnitError,
        "cache='64M': write 64MiB (powers of 1024) or 64MB (powers of 1000)",
    ),
    (
        "RecyclePool(context='thread')",
        ValueError,
        'context=\'thread\': write "submitter" or "worker", or None',
    ),
    ("Limits(age='6 hours')", UnitError, "age='6 hours': write 6h"),
    ("Limits(age='1 h 30 minutes')", UnitError, "age='1 h 30 minutes': write 1h30m"),
    ("Limits(age='5M')", UnitError, "age='5M': write 5m"),
    ("Limits(age='03:00')", UnitError, f"age='03:00': {A_DURATION}"),
    (
        "Limits(idle='300')",
        UnitError,
        "idle='300': a duration needs its unit; write 300s or the number 300",
    ),
    (
        "Limits(memory='512M')",
        UnitError,
        "memory='512M': write 512MiB (powers of 1024) or 512MB (powers of 1000)",
    ),
    ("Limits(memory=0)", ValueError, "Limits(memory=0): write more than 0, or None for no limit"),
    (
        "Limits(pool_memory='120%')",
        UnitError,
        "pool_memory='120%': write more than 0% and at most 100%, such as 80%",
    ),
    (
        "Limits(memory_hard='2GiB')",
        ValueError,
        (
            "Limits(memory_hard=...) needs workers that can be killed, which this version does "
            'not have: write memory="512MiB", which replaces a worker between two tasks'
        ),
    ),
    (
        "Limits(sample_every=0)",
        ValueError,
        "Limits(sample_every=0): write 0.01 seconds or more, such as sample_every=1.0",
    ),
    ("Limits(memory_samples=0)", ValueError, "Limits(memory_samples=0): write 1 or more"),
    (
        "RecyclePool(memory='512MiB')",
        TypeError,
        of_pool("memory", "write limits=Limits(memory=...)"),
    ),
    ("Limits(tasks='10k')", TypeError, f"Limits(tasks='10k'): {HOW_MANY}"),
    ("Limits('10')", TypeError, f"Limits(tasks='10'): {HOW_MANY}"),
    ("Limits(hang=0)", ValueError, "Limits(hang=0): write more than 0, or None for no limit"),
    (
        "Limits(jitter='10%')",
        TypeError,
        "Limits(jitter='10%'): write a number from 0 to 1, such as 0.1",
    ),
    (
        "Limits(grace=None)",
        TypeError,
        'Limits(grace=None): write a duration, such as grace="5s"',
    ),
    ("pool.options(timeout='30 sec')", UnitError, "timeout='30 sec': write 30s"),
    (
        "pool.options(timeout=0)",
        ValueError,
        "timeout=0: write more than 0, or None for no timeout",
    ),
    (
        "pool.options(key=[1])",
        TypeError,
        "key=[1]: write something that has a hash, such as a str, an int or a tuple",
    ),
    (
        "pool.options(name=5)",
        TypeError,
        "name=5: write a word, such as name='resize image'",
    ),
    (
        "pool.options(context='thread')",
        ValueError,
        'context=\'thread\': write "submitter" or "worker", or None',
    ),
    (
        "pool.map(5, [1])",
        TypeError,
        f"map() takes a function first, and 5 is none: {NAME_ONLY}",
    ),
    (
        "pool.map([1], f)",
        TypeError,
        f"map() takes a function first, and [1] is none: {NAME_ONLY}",
    ),
    (
        "pool.map(f, 5)",
        TypeError,
        "map() takes iterables after the function, and 5 is none: write map(f, [5])",
    ),
    (
        "pool.options(name='a').map_unordered(f, [1], 5)",
        TypeError,
        (
            "map_unordered() takes iterables after the function, and 5 is none: "
            "write map_unordered(f, [5])"
        ),
    ),
    (
        "pool.map_unordered(f(), [1])",
        TypeError,
        f"map_unordered() takes a function first, and 0 is none: {NAME_ONLY}",
    ),
    ("pool.map(f, [1], timeout='5s')", TypeError, seconds("timeout='5s'", "timeout=5.0")),
    ("pool.map(f, [1], buffersize='3')", TypeError, "buffersize must be an integer or None"),
    ("pool.map_unordered(f, [1], buffersize=0)", ValueError, "buffersize must be None or > 0"),
    (
        "pool.cancel('x')",
        TypeError,
        (
            "cancel() takes a future that this pool has made, not 'x': "
            "write cancel(future), with what submit() has returned"
        ),
    ),
    (
        "pool.recycle(99)",
        ValueError,
        "slot=99: the pool has the slots 0 to 1, write one of them",
    ),
    ("pool.recycle('1')", TypeError, "slot='1': write a whole number, such as slot=1"),
    (
        "pool.resize(0)",
        ValueError,
        "max_workers=0: write 1 or more, close() has all workers go",
    ),
    (
        "pool.resize(None)",
        TypeError,
        "max_workers=None: write a whole number, such as max_workers=4",
    ),
    ("pool.wait_idle('5')", TypeError, seconds("timeout='5'", "timeout=5.0")),
    ("pool.close('30s')", TypeError, seconds("timeout='30s'", "timeout=30.0")),
    ("pool.destroy('1s')", TypeError, seconds("grace='1s'", "grace=1.0")),
    (
        "pool.destroy(None)",
        TypeError,
        "grace=None: write how many seconds a task may take to stop, such as 1.0",
    ),
    (
        "pool.subscribe(5)",
        TypeError,
        "subscribe() takes a function that is called with each event, not 5",
    ),
    ("pool.subscribe(co)", TypeError, f"callback=co {NOBODY_AWAITS}"),
    (
        "per_worker(5)",
        TypeError,
        (
            "@per_worker needs a function without arguments, not 5: "
            "write @per_worker alone, above its def"
        ),
    ),
    (
        "per_worker(with_argument)",
        TypeError,
        (
            "@per_worker with_argument() needs path, and is called without arguments: "
            "write a function without, or with a default for each"
        ),
    ),
    (
        "per_worker(with_keyword)",
        TypeError,
        (
            "@per_worker with_keyword() needs path, and is called without arguments: "
            "write a function without, or with a default for each"
        ),
    ),
    ("per_worker(co)", TypeError, f"@per_worker co() {NOBODY_AWAITS}"),
]

MOMENTS = [
    (
        "current_worker()",
        OutsideWorkerError,
        (
            "current_worker() was called outside a worker: it is for tasks, initializers and "
            "finalizers of a RecyclePool. current_worker(None) gives None here instead"
        ),
    ),
    (
        "model()",
        OutsideWorkerError,
        "@per_worker model() was called outside a worker: call it in a task of a RecyclePool",
    ),
    (
        "asyncio.run(pool.run(co))",
        TypeError,
        (
            "run() calls a function in a worker, and co is a coroutine function: "
            "write await co(...) without run(), or def instead of async def"
        ),
    ),
    (
        "asyncio.run(pool.options(name='a').run(functools.partial(Service().ask)))",
        TypeError,
        (
            "run() calls a function in a worker, and ask is a coroutine function: "
            "write await ask(...) without run(), or def instead of async def"
        ),
    ),
    (
        "asyncio.run(pool.run(coroutine))",
        TypeError,
        (
            "run() takes a function and its arguments, and not the coroutine of co(): "
            "write await co(...) without run()"
        ),
    ),
    (
        "asyncio.run(pool.run(f()))",
        TypeError,
        f"run() takes a function first, and 0 is none: {NAME_ONLY}",
    ),
    (
        "copy.copy(pool)",
        TypeError,
        "a RecyclePool cannot be copied or pickled: make another one",
    ),
    (
        "pickle.dumps(pool)",
        TypeError,
        "a RecyclePool cannot be copied or pickled: make another one",
    ),
    (
        "pool.submit(pool.close).result(WAIT)",
        RuntimeError,
        f"close() was called from one of the tasks or callbacks of {AT_WORK}: {ITSELF}",
    ),
    (
        "pool.submit(pool.wait_idle).result(WAIT)",
        RuntimeError,
        f"wait_idle() was called from one of the tasks or callbacks of {AT_WORK}: {ITSELF}",
    ),
    (
        "pool.submit(pool.shutdown).result(WAIT)",
        RuntimeError,
        f"shutdown(wait=True) was called from one of the tasks or callbacks of {AT_WORK}: {ITSELF}",
    ),
    (
        "pool.submit(lambda: current_worker().request_recycle(5)).result(WAIT)",
        TypeError,
        "request_recycle(5): write why in words, or leave it out",
    ),
]

TABLE = KEYWORDS + HOW_MANY_GIVEN + VALUES + MOMENTS
ADVICE = re.compile(
    r"write|did you mean|known (here|are)|leave it out|[cC]all (it|soft_restart)|make another"
    r"|Choose|gives None here instead|takes a function that"
    r"|must be (None or > 0|an integer or None)"
)


@pytest.mark.parametrize(("call", "error", "said"), TABLE, ids=[row[0] for row in TABLE])
def test_what_it_is_told(new_pool, call, error, said):
    """And the pool is as it was."""
    pool, coroutine, before = new_pool(2, name="images"), co(), pools()
    try:
        refused(call, error, said, pool=pool, coroutine=coroutine)
    finally:
        coroutine.close()
    assert pools() == before
    assert pool.submit(f, 1, 2).result(WAIT) == 2


def test_every_message_says_what_to_write():
    assert [said for _, _, said in TABLE if not ADVICE.search(said)] == []
    assert len({call for call, _, _ in TABLE}) == len(TABLE) >= 100

"""A slot is taken away while its worker says that it is ready, and runs a task already.

1. A worker was admitted when it was launched: its slot was empty. It is in its initializer.
2. Another thread carries out orders. The next one is to resize the pool: the slot is no more.
3. The worker is ready. Its order to say so comes behind that; it takes a task at once.
4. The orders are carried out: it is retired, and said to be ready then.
5. The slot comes back. Whoever holds it next has a generation of its own: logs tell them apart.
"""

import threading

from forcing import PATIENCE, until, wait

from recyclepool import current_worker


def test_their_generations_differ(new_pool):
    started, may_open, may_end = [], threading.Event(), threading.Event()

    def initialize():
        started.append(threading.get_ident())
        if len(started) == 2:
            wait(may_open)

    def task():
        here = current_worker()
        return here.slot, here.generation, wait(may_end)

    pool = new_pool(2, initializer=initialize)
    orders = pool._engine._orders
    tasks = [pool.submit(task) for _ in range(2)]
    until(lambda: len(started) == 2 and not orders._orders, "both started")
    with orders._lock:
        pool.resize(1)
        may_open.set()
        until(lambda: all(each.running() for each in tasks), "the task runs")
    pool._engine.look()
    may_end.set()
    held = {each.result(PATIENCE)[:2] for each in tasks}
    assert held == {(0, 1), (1, 1)}
    pool.resize(2)
    barrier = threading.Barrier(2)
    for each in [pool.submit(lambda: (barrier.wait(PATIENCE), task())[1]) for _ in range(2)]:
        held.add(each.result(PATIENCE)[:2])
    assert held == {(0, 1), (1, 1), (1, 2)}

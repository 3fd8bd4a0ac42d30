"""What a pool tells: in order, once, on a thread of its own, and to those only who listen."""

import gc
import logging
import subprocess
import sys
import threading
import weakref
from collections import deque
from types import SimpleNamespace

import pytest

import recyclepool
from recyclepool import Reason, _news, events
from recyclepool._gate import here
from recyclepool._news import LONGEST, MOST, News, text_of
from recyclepool._teller import daemons_allowed

PATIENCE = 20.0
PACKAGE = recyclepool.__path__[0]
SILENT = logging.CRITICAL + 1

logger = logging.getLogger("recyclepool")


class Interrupt(KeyboardInterrupt):
    """Ctrl-C, as put by a test."""


class Boom(Exception):
    """An error that can be referred to weakly."""


class Threads:
    """A factory that counts. Each start does what `at_start` says, or just starts the thread."""

    def __init__(self):
        self.made = []
        self.at_start = threading.Thread.start

    def __call__(self, **options):
        factory = self

        class Thread(threading.Thread):
            def start(self):
                factory.at_start(self)

        self.made.append(Thread(**options))
        return self.made[-1]


class Log(logging.Handler):
    """Keeps its records. Each calls `at_record` first."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.at_record = lambda record: None

    def emit(self, record):
        self.at_record(record)
        self.records.append((record.levelno, record.getMessage()))


@pytest.fixture
def log(monkeypatch):
    """The log of the package, silent until its level is set."""
    log = Log()
    monkeypatch.setattr(logger, "handlers", [log])
    monkeypatch.setattr(logger, "propagate", False)
    before = logger.level
    logger.setLevel(SILENT)
    yield log
    logger.setLevel(before)


@pytest.fixture
def threads():
    return Threads()


@pytest.fixture
def crew():
    return object()


@pytest.fixture
def news(log, threads, crew):
    return News("images", "images", crew, clock=lambda: 7.5, new_thread=threads)


def worker(slot=0, generation=1, reason=None, why="", tasks=3):
    return SimpleNamespace(
        slot=slot, generation=generation, reason=reason, leaving=None, why=why, tasks=tasks
    )


def listen(news):
    """The events that are told from now on."""
    told = []
    news.subscribe(told.append)
    return told


def tell(news):
    news.flush()
    news.join(PATIENCE)
    assert not news._items, "something was left untold"


def wait(event):
    assert event.wait(PATIENCE), "it never came"


def closed(*seconds):
    return [events.PoolClosed("images", 7.5, each) for each in seconds]


ERROR = ValueError("x")
AT = ("images", 7.5, 0, 1)

# A verb of the engine's, and the event that comes of it.
VERBS = [
    (lambda n: n.ready(worker(), 1.5), events.WorkerReady(*AT, 1.5)),
    (
        lambda n: n.due(worker(), Reason.AGE, "old"),
        events.WorkerDue(*AT, Reason.AGE, "old", False),
    ),
    (
        lambda n: n.due(worker(), Reason.AGE, "old", report_only=True),
        events.WorkerDue(*AT, Reason.AGE, "old", True),
    ),
    (
        lambda n: n.retired(worker(reason=Reason.AGE, why="old"), 9.0, 0.5),
        events.WorkerRetired(*AT, Reason.AGE, "old", 3, 9.0, 0.5),
    ),
    (
        lambda n: n.retired(worker(reason=Reason.CLOSE), 9.0, 0.5),
        events.WorkerRetired(*AT, Reason.CLOSE, "", 3, 9.0, 0.5),
    ),
    (lambda n: n.lost(worker(), ERROR), events.WorkerLost(*AT, "ValueError('x')")),
    (lambda n: n.lost(worker(), "a text"), events.WorkerLost(*AT, "a text")),
    (
        lambda n: n.abandoned(worker(reason=Reason.HANG), "task", "stack"),
        events.WorkerAbandoned(*AT, Reason.HANG, "task", "stack"),
    ),
    (
        lambda n: n.abandoned(worker(), None, ""),
        events.WorkerAbandoned(*AT, None, None, ""),
    ),
    (
        lambda n: n.start_failed(worker(), ERROR, 2, 0.5),
        events.WorkerStartFailed(*AT, "ValueError('x')", 2, 0.5),
    ),
    (
        lambda n: n.teardown_failed(worker(), ERROR),
        events.TeardownFailed(*AT, "ValueError('x')"),
    ),
    (
        lambda n: n.timed_out(worker(), "task", Reason.HANG, 2.0),
        events.TaskTimedOut(*AT, "task", Reason.HANG, 2.0, False),
    ),
    (
        lambda n: n.timed_out(worker(), None, Reason.TIMEOUT, 2.0, report_only=True),
        events.TaskTimedOut(*AT, None, Reason.TIMEOUT, 2.0, True),
    ),
    (lambda n: n.closing(), events.PoolClosing("images", 7.5)),
    (lambda n: n.closed(2.5), events.PoolClosed("images", 7.5, 2.5)),
    (lambda n: n.broken(ERROR), events.PoolBroken("images", 7.5, "ValueError('x')")),
    (lambda n: n.watchdog_failed(ERROR), events.WatchdogFailed("images", 7.5, "ValueError('x')")),
]

each_verb = pytest.mark.parametrize(("verb", "event"), VERBS)


# ==== what is told ===============================================================================


@each_verb
def test_each_verb_is_told_to_a_subscriber(news, verb, event):
    told = listen(news)
    verb(news)
    tell(news)
    assert told == [event]


@each_verb
def test_each_verb_is_logged_at_the_level_of_its_event(news, log, verb, event):
    logger.setLevel(event.level)
    verb(news)
    tell(news)
    assert log.records == [(event.level, str(event))]


@each_verb
def test_nothing_is_noted_when_nobody_could_hear_it(news, log, threads, verb, event):
    logger.setLevel(event.level + 1)
    verb(news)
    assert not news._items
    tell(news)
    assert not threads.made


def test_who_switches_the_log_off_hears_nothing(news, log, monkeypatch):
    logger.setLevel(logging.DEBUG)
    monkeypatch.setattr(logging.root.manager, "disable", logging.DEBUG)
    news.closing()
    assert not news._items
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    monkeypatch.setattr(logger, "disabled", True)
    news.closing()
    assert not news._items
    monkeypatch.setattr(logger, "disabled", False)
    news.closing()
    assert len(news._items) == 1
    tell(news)


def test_the_log_comes_before_the_subscribers(news, log):
    logger.setLevel(logging.DEBUG)
    steps = []
    log.at_record = lambda record: steps.append("log")
    news.subscribe(lambda event: steps.append("first"))
    news.subscribe(lambda event: steps.append("second"))
    news.closing()
    news.closing()
    tell(news)
    assert steps == ["log", "first", "second"] * 2


def test_everything_is_told_once_and_in_order_whoever_flushes(news):
    told = listen(news)
    stop = threading.Event()

    def keep_flushing():
        while not stop.is_set():
            news.flush()

    flushers = [threading.Thread(target=keep_flushing) for _ in range(3)]
    for thread in flushers:
        thread.start()
    for n in range(MOST - 10):  # noted by one at a time, as under the engine's lock
        news.closed(float(n))
    stop.set()
    for thread in flushers:
        thread.join()
    news.join(PATIENCE)
    assert told == closed(*map(float, range(MOST - 10)))
    assert news.dropped == 0


def test_what_comes_as_the_role_is_given_up_is_told(news, threads):
    """The news comes after the thread's last look, and who flushes finds the role still taken."""
    told = listen(news)
    role, late = news._role, [1.0, 2.0]

    class Role:
        def __getattr__(self, name):
            return getattr(role, name)

        def release(self):
            if late:
                assert not news._items
                news.closed(late.pop(0))
                news.flush()
            role.release()

    news._role = Role()
    news.closed(0.0)
    news.flush()
    (thread,) = threads.made
    thread.join(PATIENCE)
    assert told == closed(0.0, 1.0, 2.0)
    assert len(threads.made) == 1


def test_of_two_threads_started_at_once_one_tells(news, threads):
    threads.at_start = lambda thread: None
    news.subscribe(lambda event: threads.made[1].run())  # in this thread: within the other's run
    told = listen(news)
    news.closed(0.0)
    news.closed(1.0)
    news.flush()
    news.flush()
    threads.made[0].run()
    here.crew = None
    assert told == closed(0.0, 1.0)
    assert not news._role.locked()


# ==== the telling thread =========================================================================


def test_the_telling_thread(news, threads, crew):
    seen = []
    news.subscribe(lambda event: seen.append((threading.current_thread(), here.crew)))
    news.closing()
    tell(news)
    (thread,) = threads.made
    assert seen == [(thread, crew)]
    assert (thread.name, thread.daemon) == ("images_events", daemons_allowed())
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it stays, with nothing to tell"
    news.closing()
    tell(news)
    assert len(threads.made) == 2


def test_a_slow_subscriber_holds_up_nobody(news, threads):
    begun, go = threading.Event(), threading.Event()
    told = []

    def slow(event):
        begun.set()
        wait(go)
        told.append(event)

    news.subscribe(slow)
    news.closed(0.0)
    news.flush()
    wait(begun)
    for n in range(1, 100):
        news.closed(float(n))
        news.flush()
    assert told == []
    assert len(threads.made) == 1
    go.set()
    news.join(PATIENCE)
    assert told == closed(*map(float, range(100)))


def test_what_finds_no_room_is_dropped_and_counted(news):
    told = listen(news)
    for n in range(MOST + 5):
        news.closed(float(n))
    assert news.dropped == 5
    tell(news)
    assert told == closed(*map(float, range(MOST)))
    news.closed(0.5)
    tell(news)
    assert told[MOST:] == closed(0.5)
    assert news.dropped == 5


def test_without_a_thread_it_stays_for_the_next_flush(news, threads):
    def none_to_be_had(thread):
        raise RuntimeError("can't start new thread")

    told = listen(news)
    threads.at_start = none_to_be_had
    news.closed(0.0)
    news.flush()
    news.join(0.0)
    news.closed(1.0)
    news.flush()
    assert told == []
    threads.at_start = threading.Thread.start
    tell(news)
    assert told == closed(0.0, 1.0)


# ==== join =======================================================================================


@pytest.mark.parametrize("count", [1, 2])
def test_join_waits_for_what_was_noted_before(news, count):
    begun, go, asked = threading.Event(), threading.Event(), threading.Event()
    told, seen = [], []

    class Items(deque):
        def append(self, item):
            super().append(item)
            asked.set()

    def slow(event):
        begun.set()
        wait(go)
        told.append(event)

    def join():
        news.join(PATIENCE)
        seen.extend(told)

    news.subscribe(slow)
    for n in range(count):
        news.closed(float(n))
    news.flush()
    wait(begun)
    news._items = Items(news._items)
    waiter = threading.Thread(target=join)
    waiter.start()
    wait(asked)
    go.set()
    waiter.join()
    assert seen == closed(*map(float, range(count)))


def test_join_keeps_its_timeout(news):
    begun, go = threading.Event(), threading.Event()

    def slow(event):
        begun.set()
        wait(go)

    news.subscribe(slow)
    news.closing()
    news.flush()
    wait(begun)
    news.join(0.0)
    go.set()


def test_join_tells_what_nobody_flushed(news):
    told = listen(news)
    news.closed(0.0)
    news.join(PATIENCE)
    assert told == closed(0.0)


def test_join_starts_no_thread_for_nothing(news, threads):
    listen(news)
    news.join(PATIENCE)
    assert not threads.made


def test_a_callback_does_not_wait_for_itself(news):
    done = threading.Event()

    def callback(event):
        news.join(PATIENCE * 100)
        done.set()

    news.subscribe(callback)
    news.closing()
    news.flush()
    wait(done)


def test_a_task_of_the_pool_does_not_wait(news, crew):
    begun, go = threading.Event(), threading.Event()

    def slow(event):
        begun.set()
        wait(go)

    news.subscribe(slow)
    news.closing()
    news.flush()
    wait(begun)
    here.crew = crew
    try:
        news.join(PATIENCE * 100)
    finally:
        here.crew = None
        go.set()


# ==== fork =======================================================================================


def test_the_child_of_a_fork_begins_anew(news):
    told = listen(news)
    news.closed(0.0)
    news._role.acquire()  # by a thread that the child does not have
    news.begin_anew()
    news.closed(1.0)
    tell(news)
    assert told == closed(1.0)


def test_a_callback_forks(news, threads):
    """Here it stands in for its own child."""
    told, locked = [], []

    def forks(event):
        told.append(event)
        locked.append(news._role.locked())
        if len(told) == 1:
            news.begin_anew()
            here.crew = None
            news.closed(2.0)

    news.subscribe(forks)
    news.closed(0.0)
    news.closed(1.0)
    news.flush()
    (thread,) = threads.made
    thread.join(PATIENCE)
    assert told == closed(0.0, 2.0)
    assert locked == [True, True]
    assert not news._role.locked()


# ==== subscribers ================================================================================


@pytest.mark.parametrize("callback", [None, 1, "print"])
def test_what_cannot_be_called_cannot_subscribe(news, callback):
    with pytest.raises(TypeError) as caught:
        news.subscribe(callback)
    assert str(caught.value) == (
        f"subscribe() takes a function that is called with each event, not {callback!r}"
    )


def test_unsubscribe_may_be_called_again(news):
    first, second = [], []
    leave = news.subscribe(first.append)
    news.subscribe(second.append)
    leave()
    leave()
    news.closing()
    tell(news)
    assert (first, second) == ([], [events.PoolClosing("images", 7.5)])


def test_a_callback_that_subscribed_twice_is_told_twice(news):
    told = []
    leave = news.subscribe(told.append)
    news.subscribe(told.append)
    news.closed(0.0)
    tell(news)
    assert told == closed(0.0, 0.0)
    leave()
    news.closed(1.0)
    tell(news)
    assert told == closed(0.0, 0.0, 1.0)


def test_unsubscribe_within_a_callback(news):
    leave, first, second, third = [], [], [], []

    def ends_both(event):
        first.append(event)
        for unsubscribe in leave:
            unsubscribe()

    leave.append(news.subscribe(ends_both))
    leave.append(news.subscribe(second.append))
    news.subscribe(third.append)
    news.closed(0.0)
    news.closed(1.0)
    tell(news)
    assert first == closed(0.0)
    assert second == [], "it was told after it had left"
    assert third == closed(0.0, 1.0)


def test_when_the_last_has_left_nothing_is_noted(news):
    news.subscribe(print)()
    news.closing()
    assert not news._items


def test_a_subscriber_within_a_callback_hears_what_comes_next(news):
    told = []
    news.subscribe(lambda event: event.seconds or news.subscribe(told.append))
    news.closed(0.0)
    news.closed(1.0)
    tell(news)
    assert told == closed(1.0)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_callback_that_raises_harms_nobody_and_is_logged_once(news, log, error):
    logger.setLevel(logging.ERROR)
    traces = []
    log.at_record = lambda record: traces.append(record.exc_info[0])
    calls = []

    def raises(event):
        calls.append(event)
        raise error

    news.subscribe(raises)
    told = listen(news)
    news.subscribe(raises)
    news.closed(0.0)
    news.closed(1.0)
    tell(news)
    assert calls == closed(0.0, 0.0, 1.0, 1.0)
    assert told == closed(0.0, 1.0)
    assert news.callback_errors == 4
    assert traces == [error] * 2
    line = (
        f"pool 'images': subscriber {raises!r} failed with PoolClosed "
        f"(told once for each subscriber)"
    )
    assert log.records == [(logging.ERROR, line)] * 2


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_log_that_raises_harms_nobody(news, log, error):
    def raises(record):
        raise error

    logger.setLevel(logging.DEBUG)
    log.at_record = raises
    told = listen(news)
    news.subscribe(raises)
    news.closed(0.0)
    news.closed(1.0)
    tell(news)
    assert told == closed(0.0, 1.0)
    assert news.callback_errors == 2


# ==== errors =====================================================================================


def test_an_error_becomes_text_in_the_telling_thread(news, threads):
    class Foreign(Exception):
        def __repr__(self):
            seen.append(threading.current_thread())
            return "Foreign()"

    seen = []
    told = listen(news)
    news.broken(Foreign())
    news.lost(worker(), Foreign())
    assert seen == []
    tell(news)
    assert seen == threads.made * 2
    assert [event.error for event in told] == ["Foreign()"] * 2


def test_an_error_is_let_go_before_the_callbacks_run(news):
    seen = []
    news.subscribe(lambda event: seen.append(reference()))
    error = Boom("x")
    reference = weakref.ref(error)
    news.broken(error)
    del error
    tell(news)
    assert seen == [None]


def test_the_text_of_what_is_foreign():
    class Silent(Exception):
        def __repr__(self):
            raise SystemExit

    class Talkative(Exception):
        def __repr__(self):
            return "one\ntwo\r\nthree"

    assert text_of(ValueError("a", 1)) == "ValueError('a', 1)"
    assert text_of(Silent()).endswith("Silent")
    assert text_of(Talkative()) == "one two three"
    shortened = text_of(ValueError("x" * LONGEST))
    assert len(shortened) == LONGEST
    assert shortened.startswith("ValueError('xxx")
    assert shortened.endswith("xxx...")


# ==== interrupts =================================================================================


def interrupt(n, action):
    """Call it, with an Interrupt before the n-th bytecode of the package. True: it got there."""
    left = [n]

    def trace(frame, happened, _):
        if happened == "call" and not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if happened == "call":
            frame.f_trace_lines = False
            frame.f_trace = trace
            frame.f_trace_opcodes = True
        if happened == "opcode":
            left[0] -= 1
            if left[0] == -1:
                raise Interrupt
        return trace

    gc.disable()  # or the garbage of an earlier test is collected in the middle of this one
    outer, mine = sys.gettrace(), sys._getframe()
    mine.f_trace_opcodes = True  # some versions want it before tracing is switched on
    sys.settrace(trace)
    try:
        action()
    except Interrupt:
        pass
    finally:
        sys.settrace(outer)
        gc.enable()
    return left[0] < 0


def test_flush_is_interrupted_at_each_bytecode(log):
    n = 0
    reached = True
    while reached:
        news = News("images", "images", object(), clock=lambda: 7.5)
        told = listen(news)
        news.closed(0.0)
        news.closed(1.0)
        reached = interrupt(n, news.flush)
        news.closed(2.0)
        tell(news)
        assert told == closed(0.0, 1.0, 2.0), f"interrupted at bytecode {n}"
        assert not news._items
        n += 1
    assert n > 20, f"only {n} bytecodes"


@pytest.mark.parametrize("started", [False, True])
def test_the_start_of_the_thread_is_interrupted(news, threads, started):
    def broken_off(thread):
        if started:
            threading.Thread.start(thread)
        raise Interrupt

    told = listen(news)
    threads.at_start = broken_off
    news.closed(0.0)
    with pytest.raises(Interrupt):
        news.flush()
    threads.at_start = threading.Thread.start
    if started:
        threads.made[0].join(PATIENCE)
        assert told == closed(0.0)
    news.closed(1.0)
    tell(news)
    assert told == closed(0.0, 1.0)


# ==== what it costs ==============================================================================

SCRIPT = """
import sys, types
from recyclepool._news import News
from recyclepool.states import Reason

worker = types.SimpleNamespace(slot=0, generation=1, reason=Reason.AGE, why="", tasks=1)
news = News("images", "images", object())

def happen():
    news.ready(worker, 1.0)
    news.due(worker, Reason.AGE, "")
    news.retired(worker, 1.0, 1.0)
    news.closing()
    news.closed(1.0)
    news.flush()
    news.join(20.0)

happen()
assert "recyclepool.events" not in sys.modules
told = []
news.subscribe(told.append)
happen()
assert "recyclepool.events" in sys.modules
assert len(told) == 5, told
"""


def test_a_pool_to_which_nobody_listens_does_without_events():
    subprocess.run([sys.executable, "-I", "-c", SCRIPT], check=True, timeout=60)


def test_the_names_are_sorted():
    assert _news.__all__ == ["News", "text_of"]

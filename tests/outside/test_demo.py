import io
import os
import pty
import re
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from threading import Lock, Timer
from types import SimpleNamespace

import pytest

from recyclepool import RecyclePool, TaskTimeoutError, current_worker, demo
from recyclepool._demo_memory import Track, memory, one_line, returned, saw_tooth
from recyclepool._demo_view import (
    MOST_NEWS,
    Frame,
    Restart,
    Screen,
    Story,
    about_the_gil,
    details,
    hang,
    line,
    reasons,
    soft_restart,
    table,
)
from recyclepool._gate import GatedLock, here
from recyclepool.cache import WorkerCache
from recyclepool.demo import Outcome, Record, compare, dump, link, read, sources
from recyclepool.events import (
    CacheTrimmed,
    MemoryReturned,
    PoolClosed,
    TaskTimedOut,
    WorkerDue,
    WorkerReady,
    WorkerRetired,
    WorkerStartFailed,
)
from recyclepool.snapshots import Reading
from recyclepool.states import Reason

COLOUR = re.compile("\x1b\\[[0-9]*m")


# -- the picture


MIB = 2**20


def owned(mib, at=0.0, bound=False):
    return Reading("owned", int(mib * MIB), at, bound)


def worker(
    slot, generation=1, state="serving", tasks=0, running=None, due=None, age=7.0, memory=None
):
    return SimpleNamespace(
        slot=slot,
        generation=generation,
        state=state,
        tasks=tasks,
        task_running=running,
        due=due,
        age=age,
        memory=memory,
    )


def frame(*workers, slots=4, now=None, left=None, done=30, total=120, track=None):
    stats = SimpleNamespace(
        max_workers=slots,
        queued=90,
        recycles={"tasks": 3, "close": 4, "lost": 0},
        wait=SimpleNamespace(sum=15.0, count=30),
        workers=workers,
    )
    track = track or Track(4 * MIB)
    return Frame("pass 1 of 2", stats, done, total, 2.0, 40, now or {}, left or {}, track)


BUSY = frame(
    worker(0, 3, tasks=12, running=0.0213, memory=owned(1.25)),
    worker(1, 2, "starting", age=0.312),
    worker(2, 5, "retiring", tasks=40, running=1.5, memory=owned(4.5, bound=True)),
    worker(2, 6, tasks=1),
    now={(0, 3): "asyncio.base_events", (1, 2): "warming up", (2, 5): "json", (2, 6): "re"},
    left={0: ["tasks", "close", "tasks"], 2: ["hang"]},
)
SWAP = frame(
    worker(0, 2, "starting", age=0.1),
    worker(0, 1, tasks=9, running=0.002, due="manual"),
    slots=1,
    now={(0, 1): "json", (0, 2): "warming up"},
    left={0: ["tasks"]},
)


def draw(frame, width=79, height=24, colour=False, blocks=False):
    return table(frame, width, height, colour=colour, blocks=blocks)


def test_a_row_tells_worker_state_tasks_task_and_why_those_before_it_left():
    assert draw(BUSY, 119)[4] == (
        "   0.3  serving        12/40    1.2 MiB  "
        "asyncio.base_events                  21 ms  tasks, close, tasks"
    )


def test_where_room_is_short_a_name_keeps_its_end_and_the_past_its_latest():
    assert draw(BUSY)[4].split()[5:] == ["...base_events", "21", "ms", "tasks,", "close"]


def test_one_that_starts_tells_since_when():
    assert draw(BUSY)[5].split() == ["1.2", "starting", "0/40", "warming", "up", "312", "ms"]


def test_of_a_slot_with_two_workers_both_are_shown_and_its_past_once():
    assert [row.split() for row in draw(BUSY)[6:8]] == [
        ["2.5", "retiring", "40/40", ">4.5", "MiB", "json", "1500", "ms", "hang"],
        ["2.6", "serving", "1/40"],
    ]


def test_a_worker_that_is_due_serves_while_its_successor_warms_up():
    assert [" ".join(row.split()) for row in draw(SWAP)[4:]] == [
        "0.1 due: manual 9/40 json 2 ms tasks",
        "0.2 starting 0/40 warming up 100 ms",
    ]
    assert "\x1b[33mdue: manual" in draw(SWAP, colour=True)[4]


def test_an_empty_slot_keeps_its_row_and_its_past():
    assert draw(frame(left={1: ["close"]}))[5].split() == ["1.-", "-", "close"]


def test_the_past_stands_in_one_column():
    rows = draw(
        frame(
            worker(0),
            worker(1, 12, "starting"),
            left={0: ["age"], 1: ["age"], 2: ["age"], 3: ["age"]},
        )
    )
    assert len({row.index("age") for row in rows[4:]}) == 1
    assert rows[3].index("why") == rows[4].index("age")


def test_a_state_that_the_view_does_not_know_is_shown_as_it_is():
    assert "stopped" in draw(frame(worker(0, state="stopped")))[4]


def test_progress_throughput_wait_and_queue():
    assert "####" in draw(BUSY)[1]
    assert draw(BUSY)[1].endswith(" 25%   30/120   15/s  waited 0.50 s  queued  90")
    assert draw(BUSY)[2] == "left so far: 3 tasks, 4 close"


def test_the_bar_is_empty_at_first_and_full_in_the_end():
    assert "█" not in draw(frame(done=0), blocks=True)[1]
    assert "░" not in draw(frame(done=120), blocks=True)[1]
    assert "100%" in draw(frame(done=0, total=0))[1]


@pytest.mark.parametrize("width", [1, 20, 40, 79, 119, 300])
@pytest.mark.parametrize("colour", [False, True])
def test_no_line_is_wider_than_the_terminal(width, colour):
    many = [f"{number}tasks" for number in range(100)]
    lines = draw(replace(BUSY, left=dict.fromkeys(range(4), many)), width, colour=colour)
    assert max(len(COLOUR.sub("", text)) for text in lines) <= width
    assert all(text.count("\x1b[0m") * 2 == text.count("\x1b[") for text in lines)


def test_more_slots_than_lines():
    assert " and 33 more" in draw(frame(slots=50), height=24)
    for height in range(2, 60):
        assert len(draw(frame(slots=50), height=height)) < height


def test_colour_only_where_it_is_wanted():
    assert "\x1b[32mserving" in draw(BUSY, colour=True)[4]
    assert "\x1b" not in "".join(draw(BUSY))


def test_one_line_says_it_too():
    assert line(BUSY) == (
        "pass 1 of 2: 30/120, 15/s, waited 0.50 s, queued 90, workers 2/4, "
        "owned 1.2 MiB to 4.5 MiB, left: 3 tasks, 4 close"
    )


def test_nothing_yet():
    assert reasons({"tasks": 0}) == "none"
    stats = SimpleNamespace(**{**vars(BUSY.stats), "wait": SimpleNamespace(sum=0.0, count=0)})
    assert "0/s, waited 0.00 s" in line(replace(BUSY, stats=stats, seconds=0.0))


def test_details_are_few():
    wrong = {"lost": [], "twice": ["a"], "failed": list("bcdefgh")}
    assert details(wrong) == "twice: a\nfailed: b, c, d, e, f ...\n"


@pytest.mark.parametrize("enabled", [True, False])
def test_it_claims_no_more_than_the_gil_allows(enabled, monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: enabled, raising=False)
    assert ("not speed-up" in about_the_gil()) is enabled


# -- memory


def seen(*moments, limit=4 * MIB, slots=1):
    """A track of what workers owned, each moment a second after the other."""
    track = Track(limit)
    for second, workers in enumerate(moments):
        track.note(SimpleNamespace(max_workers=slots, workers=workers), float(second))
    return track


SAW = seen(
    [worker(0, 1)],
    [worker(0, 1, memory=owned(1, at=1.0))],
    [worker(0, 1, memory=owned(3, at=2.0))],
    [worker(0, 1, memory=owned(5, at=3.0)), worker(0, 2, "starting")],
    [worker(0, 1, "retiring", memory=owned(5, at=3.0)), worker(0, 2, memory=owned(0.5, at=4.0))],
)


def test_what_a_worker_owns_is_followed_by_what_its_successor_does():
    sizes = [0.0, 1.0, 2.0, 3.0, 4.0], [None, 1 * MIB, 3 * MIB, 5 * MIB, MIB // 2]
    assert SAW.slots == {0: [*zip(*sizes, strict=True)]}
    assert SAW.most == 5 * MIB


def test_the_saw_tooth_is_full_at_the_limit_and_empty_where_nothing_was_read():
    assert saw_tooth(SAW.slots[0], 4 * MIB, 5, blocks=True) == " ▂▆█▁"
    assert saw_tooth(SAW.slots[0], 4 * MIB, 5, blocks=False) == " :*#."


def test_the_saw_tooth_keeps_its_peaks_and_stays_where_nobody_looked():
    points = [(0.0, 0), (1.0, MIB), (1.1, 0), (3.9, None), (10.0, MIB)]
    assert saw_tooth(points, MIB, 10, blocks=True) == "▁█" + "█" + " " * 6 + "█"
    assert saw_tooth(points, MIB, 1, blocks=True) == "█"
    assert saw_tooth([], MIB, 3, blocks=True) == "   "
    assert saw_tooth([(0.0, None)], MIB, 3, blocks=True) == "   "


def test_a_slot_that_is_empty_was_not_read():
    track = seen([], [worker(0, 2, memory=owned(1))], slots=2)
    assert track.slots == {0: [(0.0, None), (1.0, MIB)], 1: [(0.0, None), (1.0, None)]}


def test_the_table_shows_the_saw_tooth_of_each_slot():
    rows = draw(frame(worker(0, 2), slots=1, track=SAW))
    assert rows[5] == "owned over time; full: 4 MiB or more"
    assert re.fullmatch(r" +0 +:+\*+#+\.", rows[6])
    assert len(rows) == 7


@pytest.mark.parametrize("height", range(2, 20))
def test_the_saw_tooth_makes_way_where_lines_are_few(height):
    rows = draw(frame(slots=4, track=seen([], slots=4)), height=height)
    assert len(rows) < height
    shown = sum(row.startswith("owned") for row in rows)
    assert shown == (height >= 4 + 6 + 5)
    assert not shown or len(rows) == 13


def test_the_span_of_what_is_owned():
    one, two = worker(0, memory=owned(1.5)), worker(1, memory=owned(2))
    stats = SimpleNamespace(workers=[one])
    assert one_line(stats) == ", owned 1.5 MiB"
    assert one_line(SimpleNamespace(workers=[one, worker(2), two])) == ", owned 1.5 MiB to 2 MiB"
    assert one_line(SimpleNamespace(workers=[worker(0)])) == ""


def back(slot, generation, mib, delta, *largest):
    shares = tuple((name, int(size * MIB)) for name, size in largest)
    size, change = int(mib * MIB), int(delta * MIB)
    return MemoryReturned("demo", 0.0, slot, generation, size, shares, change, MIB // 2, None)


LARGEST = ("@per_worker dumps", 1.5), ("cache['os']", 0.1)


def test_a_recycle_is_told_with_its_largest_root():
    assert returned(back(0, 3, 2, -1.8, *LARGEST)) == (
        "worker 0.3 owned 2 MiB, largest @per_worker dumps 1.5 MiB; process -1.8 MiB"
    )
    assert returned(back(0, 3, 2, 0.25)).endswith("largest not known; process +256 KiB")


@pytest.mark.parametrize("mib", [1.999, -1010.3 / 1024], ids=["MiB", "KiB"])
def test_a_long_root_is_cut_to_the_line(mib):
    event = back(123, 12, 1010.3 / 1024, mib, ("cache['" + "long" * 30 + "']", 1010.3 / 1024))
    assert len(returned(event)) == 80
    told = memory(SAW, [retired(123, 12, Reason.MEMORY), event], blocks=True).splitlines()
    assert max(map(len, told)) <= 80


def test_the_summary_of_what_memory_did():
    events = [
        CacheTrimmed("demo", 0.0, 2, 1, 6 * MIB, 3 * MIB),
        retired(0, 1, Reason.MEMORY),
        retired(1, 1, Reason.TASKS),
        retired(1, 12, Reason.MEMORY),
        back(0, 1, 4.5, -4.25, ("cache['" + "long" * 9 + "']", 4)),
    ]
    lines = memory(SAW, events, blocks=True).splitlines()
    assert lines[0] == "memory    4 MiB is what a worker may own; the most that was read: 6 MiB"
    assert re.fullmatch("  slot 0  +▂+▆+█+▁", lines[1])
    assert lines[2:] == [
        "trims     1, half of the cache was enough:",
        "          2.1 6 MiB -> 3 MiB",
        "recycles  2 for memory. Below the noise a change of the process says nothing:",
        "  worker  tasks       owned  largest root                    process       noise",
        "    0.1      31     4.5 MiB  cache['longlonglon.. 4 MiB     -4.2 MiB     512 KiB",
        "    1.12     31  what came back was not measured before the end",
    ]


def test_what_did_not_happen_is_not_shown():
    assert memory(seen([]), [retired(0, 1, Reason.TASKS)], blocks=True).splitlines() == [
        "memory    4 MiB is what a worker may own; nobody was looked at",
        "trims     none",
        "recycles  none for memory",
    ]


def test_of_many_recycles_some_are_told():
    events = [retired(0, number, Reason.MEMORY) for number in range(20)]
    lines = memory(SAW, events, blocks=True).splitlines()
    assert lines[-1] == "          and 12 more"
    assert sum("not measured" in line for line in lines) == 8
    assert max(map(len, lines)) <= 80


# -- the screen


class Terminal(io.StringIO):
    encoding = "utf-8"

    def __init__(self):
        super().__init__()
        self.writes = []

    def isatty(self):
        return True

    def write(self, text):
        self.writes.append(text)
        return len(text)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_each_write_is_a_whole_picture_and_leaves_the_cursor_shown(terminal):
    screen = Screen(terminal)
    for _ in range(3):
        screen.show(BUSY)
    screen.say("done")
    assert len(terminal.writes) == 4
    assert all(text.startswith("\x1b[?25l") for text in terminal.writes)
    assert all(text.endswith("\x1b[?25h") for text in terminal.writes)


def test_a_frame_is_drawn_over_the_one_before(terminal):
    screen = Screen(terminal)
    screen.show(BUSY)
    screen.show(BUSY)
    first, second = terminal.writes
    assert f"\x1b[{first.count(chr(10))}F" in second
    assert "F" not in COLOUR.sub("", first)[: len("\x1b[?25l") + 4]


def test_what_is_said_takes_the_place_of_the_frame_and_stays(terminal):
    screen = Screen(terminal)
    screen.show(BUSY)
    screen.say("done")
    screen.show(BUSY)
    _, said, after = terminal.writes
    assert said.startswith("\x1b[?25l\x1b[9F\x1b[Jdone\n")
    assert "F" not in after[:10]


def test_a_new_width_begins_afresh(terminal, monkeypatch):
    screen = Screen(terminal)
    screen.show(BUSY)
    monkeypatch.setenv("COLUMNS", "60")
    screen.show(BUSY)
    assert not terminal.writes[1].startswith("\x1b[?25l\x1b[9F")


def test_no_color_is_respected(terminal, monkeypatch):
    Screen(terminal).show(BUSY)
    assert COLOUR.search(terminal.writes[0])
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(terminal).show(BUSY)
    assert not COLOUR.search(terminal.writes[1])


def test_what_is_no_terminal_gets_a_plain_line_now_and_then(terminal, monkeypatch):
    out = io.StringIO()
    times = [10.0, 10.5, 11.9, 12.0, 13.5, 14.1]
    screen = Screen(out, iter(times).__next__)
    for _ in times:
        screen.show(BUSY)
    assert out.getvalue() == f"{line(BUSY)}\n" * 3
    monkeypatch.setenv("TERM", "dumb")
    assert not Screen(terminal).live


# -- the story


def story(*events):
    told = Story("demo")
    for event in events:
        told.add(event)
    return told


def ready(slot, generation, at=0.0):
    return WorkerReady("demo", at, slot, generation, 0.1)


def retired(slot, generation, reason, why=""):
    return WorkerRetired("demo", 0.0, slot, generation, reason, why, 31, 2.0, 0.01)


def due(slot, generation, reason=Reason.MANUAL):
    return WorkerDue("demo", 0.0, slot, generation, reason, "soft_restart()")


def timed_out(slot, generation, reason=Reason.HANG, at=10.0):
    return TaskTimedOut("demo", at, slot, generation, "Crew.spin", reason, 2.01)


def test_news_are_told_once_and_in_order():
    told = story(timed_out(0, 1), retired(0, 1, Reason.HANG, "it gave no sign of life"))
    assert told.news() == [
        "worker 0.1: task 'Crew.spin' hangs: no sign of life for 2 s",
        "worker 0.1 retired: hang: it gave no sign of life; 31 tasks",
    ]
    told.add(WorkerStartFailed("demo", 0.0, 1, 2, "OSError()", 1, None))
    assert told.news() == ["worker 1.2 could not be started: OSError(); no other try"]
    assert told.news() == []


def test_that_workers_come_and_go_is_no_news():
    routine = [ready(0, 1), retired(0, 1, Reason.TASKS), retired(0, 2, Reason.CLOSE)]
    assert story(*routine, due(1, 1), PoolClosed("demo", 0.0, 0.1)).news() == []


def test_that_one_goes_that_was_to_be_replaced_is_news():
    told = story(due(2, 3), due(1, 1), retired(2, 3, Reason.MANUAL, "soft_restart()"))
    told.add(retired(1, 1, Reason.TASKS, "anything"))
    assert told.news() == [
        "worker 2.3 retired: manual: soft_restart(); 31 tasks",
        "worker 1.1 retired: tasks: before its successor was ready; 31 tasks",
    ]


def test_a_recycle_for_memory_is_news_when_it_was_measured():
    told = story(due(0, 1, Reason.MEMORY), retired(0, 1, Reason.MEMORY, "memory: 2 MiB owned"))
    assert told.news() == []
    told.add(back(0, 1, 2, -1.8, *LARGEST))
    assert told.news() == [returned(back(0, 1, 2, -1.8, *LARGEST))]


def test_news_are_few():
    told = story(*(retired(slot, 1, Reason.MANUAL, "soft_restart()") for slot in range(99)))
    assert len(told.news()) == MOST_NEWS
    told.add(timed_out(0, 1))
    assert told.news() == []


def test_who_left_a_slot_the_latest_first():
    told = story(retired(0, 1, Reason.TASKS), retired(1, 1, Reason.HANG), ready(0, 2))
    told.add(retired(0, 2, Reason.CLOSE))
    assert told.left() == {0: ["close", "tasks"], 1: ["hang"]}


def test_it_waits_for_the_end_of_each_epoch():
    told = story(PoolClosed("demo", 0.0, 0.1))
    told.wait_closed()
    late = Timer(0.05, told.add, [PoolClosed("demo", 0.0, 0.1)])
    late.start()
    told.wait_closed()
    assert not late.is_alive() or late.finished.is_set()
    late.join()


# -- what was planted


def ended(error=None, result=None):
    future = Future()
    future.set_exception(error) if error else future.set_result(result)
    return future


TIMED_OUT = ended(TaskTimeoutError("Crew.spin gave no sign of life for 2 s"))


def test_the_hang_went_well():
    told = story(timed_out(0, 1), ready(1, 2), ready(0, 2, 10.25))
    text, fine = hang(TIMED_OUT, (0, 1), told)
    assert fine
    assert " ".join(text.split()) == (
        "TaskTimeoutError after 2.01 s in worker 0.1; worker 0.2 followed, ready 0.250 s later"
    )


def test_the_follower_of_a_worker_at_its_last_task_is_ready_before():
    text, fine = hang(TIMED_OUT, (0, 1), story(ready(0, 2, 8.5), timed_out(0, 1)))
    assert text.endswith("ready 1.500 s before")
    assert fine


@pytest.mark.parametrize(
    ("planted", "spun_in", "events", "said"),
    [
        (None, None, [], "did not start"),
        (TIMED_OUT, None, [timed_out(0, 1)], "did not tell"),
        (ended(result=3), (0, 1), [], "did not time out: it returned 3"),
        (ended(OSError("gone")), (0, 1), [timed_out(0, 1), ready(0, 2)], "OSError('gone')"),
        (TIMED_OUT, (0, 1), [], "did not tell"),
        (TIMED_OUT, (0, 1), [timed_out(1, 1), ready(1, 2)], "did not tell"),
        (TIMED_OUT, (0, 1), [timed_out(0, 1), ready(0, 1), ready(1, 2)], "nobody followed"),
        (TIMED_OUT, (0, 1), [timed_out(0, 1, Reason.TIMEOUT), ready(0, 2)], "TaskTimeoutError"),
    ],
)
def test_a_hang_that_went_wrong(planted, spun_in, events, said):
    text, fine = hang(planted, spun_in, story(*events))
    assert said in text
    assert not fine


COUNTERS = ("completed", "failed", "cancelled", "timed_out", "lost", "aborted")


def restart(answer=2, **more):
    before = SimpleNamespace(**dict.fromkeys(COUNTERS, 5))
    after = SimpleNamespace(**{**vars(before), "completed": 45, **more})
    return Restart(answer, 1.5, before, after)


SWAPPED = [
    *(due(slot, 1) for slot in range(2)),
    *(ready(slot, 2) for slot in range(2)),
    retired(0, 1, Reason.MANUAL, "soft_restart()"),
    retired(1, 1, Reason.TASKS),
]


def test_the_soft_restart_went_well():
    text, fine = soft_restart(restart(), story(*SWAPPED))
    assert fine
    assert " ".join(text.split()) == (
        "2 of 2 workers replaced in 1.50 s (1 manual, 1 tasks); "
        "meanwhile 40 tasks were completed, 0 failed"
    )


def test_one_that_was_to_go_for_its_memory_is_no_fault_of_the_soft_restart():
    outgrown = due(2, 1, Reason.MEMORY)
    text, fine = soft_restart(restart(3), story(outgrown, *SWAPPED))
    assert fine
    assert "(1 manual, 1 tasks);\n          1 more for memory; meanwhile " in text


@pytest.mark.parametrize(
    ("result", "events", "said"),
    [
        (None, SWAPPED, "there was none"),
        (restart("WorkerStartError()"), SWAPPED, "WorkerStartError()"),
        (restart(0), [], "0 of 0"),
        (restart(1), SWAPPED, "2 of 2"),
        (restart(3), SWAPPED, "2 of 2"),
        (restart(), SWAPPED[:-1], "1 of 2"),
        (restart(), [*SWAPPED[:3], *SWAPPED[4:]], "1 of 2"),
        *((restart(**{name: 6}), SWAPPED, ", 1 failed") for name in COUNTERS[1:]),
    ],
)
def test_a_soft_restart_that_went_wrong(result, events, said):
    text, fine = soft_restart(result, story(*events))
    assert said in text
    assert not fine


# -- the job


@pytest.fixture
def library(tmp_path):
    """A small standard library."""
    for name, text in {
        "os.py": "def getcwd(): ...\nif 1:\n    sep = '/'\n",
        "user.py": "import os, sys\nfrom os import sep, nothing\nprint(os.getcwd, sys.path)\n",
        "_private.py": "",
        "huge.py": "#" * (demo.LARGEST + 1),
        "json/__init__.py": "from . import decoder\nfrom .decoder import Decoder\n",
        "json/decoder.py": "from os import *\nclass Decoder:\n    def go(self): ...\n",
        "json/deep/user.py": "from .. import decoder\nfrom ..decoder import gone\n",
        "json/tests/test_it.py": "",
        "idlelib/idle.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere.py")
    return tmp_path


def test_the_files_are_always_the_same_ones_in_the_same_order(library):
    assert list(sources(library)) == ["json", "json.decoder", "json.deep.user", "os", "user"]


def test_reading_counts_what_is_there(library):
    identifiers = Counter()
    record = read(sources(library)["json.decoder"], identifiers)
    assert (record.task, record.facts[:3]) == ("read json.decoder", (3, 1, 1))
    read(sources(library)["user"], identifiers)
    assert identifiers == {"os": 1, "sys": 1, "print": 1}


def test_linking_finds_where_names_come_from(library):
    files = sources(library)
    facts = {module: dict(link(files[module], files, {}, dump).facts) for module in files}
    assert facts["user"] == {"defined": 2, "missing": 1, "elsewhere": 1}
    assert facts["json"] == {"defined": 2}
    assert facts["json.deep.user"] == {"defined": 1, "dynamic": 1}


def test_linking_uses_what_the_worker_remembers(library):
    files = sources(library)
    cache = {}
    first = link(files["user"], files, cache, dump)
    (library / "os.py").unlink()
    assert link(files["user"], files, cache, dump) == first
    assert set(cache) == {"os"}


def test_what_a_worker_remembers_counts_with_its_text(library):
    files, cache = sources(library), WorkerCache("1MiB")
    link(files["user"], files, cache, dump)
    assert (set(cache), cache.currsize) == ({"os"}, files["os"].path.stat().st_size)


def test_the_leak_keeps_a_dump_of_each_file_that_was_linked_in_its_worker(library):
    crew = demo.Crew(sources(library))

    def kept():
        return [*demo.dumps()]

    with RecyclePool(1) as pool:
        for module in ("user", "os", "user"):
            pool.submit(crew.link, module).result()
        first, other, again = pool.submit(kept).result()
        pool.close()
        assert pool.submit(kept).result() == []
    assert first == again != other
    assert "'getcwd'" in other
    assert "lineno=1" in other


def test_a_long_task_says_that_it_is_alive(monkeypatch):
    signs = []
    monkeypatch.setattr(demo, "_alive", lambda: signs.append(1))
    tree = demo._tree(b"x\n" * demo.STEPS)
    signs.clear()
    assert sum(1 for _ in demo._nodes(tree)) > 3 * demo.STEPS
    assert len(signs) >= 4


def test_a_task_that_waits_for_the_parser_says_that_it_is_alive(monkeypatch):
    signs, parser = [], Lock()

    def alive():
        signs.append(1)
        if len(signs) == 3:
            parser.release()

    monkeypatch.setattr(demo, "PARSING", GatedLock(parser))
    monkeypatch.setattr(demo, "REDRAW_EVERY", 0.01)
    monkeypatch.setattr(demo, "_alive", alive)
    parser.acquire()
    assert demo._tree(b"x = 1").body
    assert len(signs) == 3
    assert not parser.locked()


def test_the_sign_of_life_reaches_the_worker():
    def task():
        before = here.worker.heartbeat
        demo._alive()
        return here.worker.heartbeat - before

    demo._alive()  # outside a worker: nobody to tell
    with RecyclePool(1) as pool:
        assert pool.submit(task).result() > 0


def test_a_worker_warms_up_for_what_it_is_to_do(library):
    crew = demo.Crew(sources(library))

    def known():
        return set(current_worker().cache)

    with RecyclePool(1, initializer=crew.warm_up) as pool:
        assert pool.submit(known).result() == set()
        crew.links = True
        pool.close()
        assert pool.submit(known).result() == {"os"}


def test_without_sources_it_says_so_and_exits_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo.sysconfig, "get_path", lambda name: str(tmp_path / "python.zip"))
    assert demo.run(workers=1, tasks_per_worker=1) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "found 0 of its files" in err


# -- the comparison

A, B = Record("read a", (1,)), Record("read b", (2,))
EXPECTED = Outcome([A, B], identifiers=Counter(x=2))


@pytest.mark.parametrize(
    ("got", "wrong"),
    [
        (Outcome([B, A], ["read a", "read b"], Counter(x=2)), {}),
        (Outcome([B], ["read a", "read b"], Counter(x=2)), {"lost": ["read a"]}),
        (Outcome([A, B], ["read b"], Counter(x=2)), {"lost": ["read a"]}),
        (Outcome([A, B, A], ["read a", "read b"], Counter(x=2)), {"twice": ["read a"]}),
        (Outcome([A, B], ["read a", "read b", "read b"], Counter(x=2)), {"twice": ["read b"]}),
        (
            Outcome([A, Record("read b", (3,))], ["read a", "read b"], Counter(x=2)),
            {"different": ["read b"]},
        ),
        (Outcome([A, B], ["read a", "read b"], Counter(x=1)), {"miscounted": ["x"]}),
        (Outcome([A, B], ["read a", "read b"], Counter(x=2, y=1)), {"miscounted": ["y"]}),
        (Outcome([A, B], ["read a", "read b"], Counter(x=2), ["oh"]), {"failed": ["oh"]}),
    ],
)
def test_what_is_wrong_is_found(got, wrong):
    assert {what: which for what, which in compare(EXPECTED, got).items() if which} == wrong


# -- the whole

SMALL = """
import sys
from recyclepool import cli, demo
demo.LARGEST = 4000
{}
sys.exit(cli.main(["demo", "--tasks-per-worker", "10"]))
"""


def small(sabotage=""):
    """A run of the demo over few files, with a change to it."""
    return [sys.executable, "-c", SMALL.format(sabotage)]


def finish(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_the_demo():
    done = finish([sys.executable, "-m", "recyclepool", "demo"])
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    assert "0 lost, 0 twice, 0 different" in done.stdout
    assert "OK: the same as the sequential run, nothing lost, nothing twice." in done.stdout
    assert re.search(r"came and went: .*\btasks\b", done.stdout)
    assert re.search(r"came and went: .*\b[1-9]\d* memory\b", done.stdout)
    assert re.search(r"\n +\d\.\d+ +\d+ +[\d.]+ MiB  @per_worker dumps [\d.]+ ", done.stdout)
    assert re.search(r"cache +[1-9][0-9]* hits", done.stdout)
    assert "\x1b" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if not line.startswith("pass")]
    assert [line for line in lines if len(line) > 80] == []


def test_what_is_planted_is_told_as_it_happens_and_summed_up():
    done = finish(small("sys.exit(cli.main(['demo', '--tasks-per-worker', '1000']))"))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    happened = re.compile(
        r"""planted: .*
(?:pass.*
)*worker (\d)\.1: task 'Crew.spin' hangs: no sign of life for 2 s
worker \1\.1 retired: hang: Crew.spin gave no sign of life for 2 s; \d+ tasks?
(?:.*
)*half of pass 2 is done: soft_restart\(\)
(?:.*
)*worker \d\.\d+ retired: manual: soft_restart\(\); \d+ tasks?
(?:.*
)*workers   \d+ came and went: .*\b1 hang\b.*
hang      TaskTimeoutError after 2\.\d\d s in worker \1\.1;
          worker \1\.2 followed, ready \d\.\d\d\d s later
restart   (\d) of \2 workers replaced in \d+\.\d\d s \(\2 manual\);
          meanwhile \d+ tasks were completed, 0 failed
"""
    )
    assert happened.search(done.stdout), done.stdout


@pytest.mark.parametrize(
    ("sabotage", "said"),
    [
        (
            "(_ for _ in ()).throw(OSError('gone')) if module == 'this' else real(self, module)",
            "1 lost",
        ),
        ("real(self, 'tty' if module == 'this' else module)", "1 lost, 1 twice"),
        ("[real(self, module) for _ in range(1 + (module == 'this'))][0]", "0 lost, 1 twice"),
    ],
)
def test_a_wrong_result_is_told_and_exits_1(sabotage, said):
    change = f"real = demo.Crew.read\ndemo.Crew.read = lambda self, module: {sabotage}"
    done = finish(small(change))
    assert said in done.stdout
    assert "NOT the same as the sequential run" in done.stdout
    assert (done.returncode, done.stderr) == (1, "")


PATIENT = "demo.HANG, demo.PATIENCE = 60, 1"
NO_RESTART = """
done = demo.Future()
done.set_result({})
demo.RecyclePool.soft_restart = lambda self: done
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("demo.Crew.spin = lambda self: 3", "did not time out: it returned 3"),
        (PATIENT, "did not time out: TaskAbortedError"),
        (NO_RESTART.format(4), "0 of 0 workers replaced"),
    ],
)
def test_what_was_planted_and_went_wrong_is_told_and_exits_1(change, said):
    done = finish(small(change))
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    assert said in done.stdout
    assert "0 lost, 0 twice, 0 different" in done.stdout
    assert done.stdout.endswith(
        "NOT OK: the same as the sequential run, but what was planted went wrong.\n"
    )
    assert "\nOK" not in done.stdout


SLOWLY = """
link, warm_up = demo.link, demo.Crew.warm_up
demo.link = lambda *args: demo.current_worker(None) and demo.time.sleep(0.03) or link(*args)
demo.Crew.warm_up = lambda self: warm_up(self) or demo.time.sleep(0.3 * self.links)
sys.exit(cli.main(["demo", "--workers", "1", "--tasks-per-worker", "1000"]))
"""


def test_a_terminal_shows_a_worker_that_serves_while_its_successor_warms_up():
    ours, process = on_a_terminal(SLOWLY)
    with process:
        seen = COLOUR.sub("", rest(ours).decode())
        assert process.wait(60) == 0
    swap = (
        r"(?s)0\.3  due: manual [^\n]*\n   0\.4  starting  [^\n]* warming up "
        r".* 0\.4  serving  [^\n]* manual, close"
    )
    assert re.search(swap, seen), seen
    assert "planted: spins" in seen


# -- Ctrl-C

ENDLESS = """
def endless(*_):
    while True:
        demo.time.sleep(0.01)
demo.read = endless
"""
STUCK = "demo.read = lambda *_: demo.time.sleep(60)"
SLOW_TO_END = """
import threading
def destroy(self):
    print("ending", flush=True)
    threading.Event().wait()
demo.RecyclePool.destroy = destroy
"""


def until(text, read):
    """Read until `text` came: "pass 1" says that the pool runs."""
    seen = b""
    while text not in seen:
        more = read()
        assert more, seen
        seen += more
    return seen


@pytest.mark.parametrize("tasks", [ENDLESS, STUCK], ids=["endless", "stuck"])
def test_ctrl_c_ends_it_cleanly_where_there_is_no_terminal(tasks):
    with subprocess.Popen(small(tasks), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        until(b"pass 1", process.stdout.readline)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert b"interrupted: 0 tasks done" in process.stdout.read()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("sabotage", "moment"),
    [("demo.HANG = 60", b"queued 0,"), (SLOWLY, b"soft_restart()")],
    ids=["while it hangs", "while it restarts"],
)
def test_ctrl_c_ends_what_is_planted_too(sabotage, moment):
    with subprocess.Popen(
        small(sabotage), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        until(moment, process.stdout.readline)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert b"interrupted: " in process.stdout.read()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_leaves_a_terminal_in_order(signum):
    ours, process = on_a_terminal(ENDLESS)
    with process:
        seen = until(b"pass 1", lambda: os.read(ours, 4096))
        process.send_signal(signum)
        seen += rest(ours)
        assert process.wait(20) == 128 + signum
    assert b"interrupted: 0 tasks done" in seen
    assert b"Traceback" not in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")


def test_a_second_ctrl_c_ends_it_at_once():
    ours, process = on_a_terminal(ENDLESS + SLOW_TO_END)
    with process:
        seen = until(b"pass 1", lambda: os.read(ours, 4096))
        process.send_signal(signal.SIGINT)
        seen += until(b"ending", lambda: os.read(ours, 4096))
        process.send_signal(signal.SIGINT)
        seen += rest(ours)
        assert process.wait(20) == 130
    assert b"Traceback" not in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")


def on_a_terminal(sabotage):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(
        small(sabotage), stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    return ours, process


def rest(descriptor):
    """What comes until the other side is closed."""
    seen = b""
    try:
        while more := os.read(descriptor, 4096):
            seen += more
    except OSError:  # how a pseudo-terminal tells its end
        pass
    os.close(descriptor)
    return seen

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from recyclepool import _host_memory
from recyclepool._host_memory import (
    begin_anew,
    container_limit,
    limit_in_bytes,
    process_rss,
    release_free_memory,
)
from recyclepool.errors import UnitError

MIB = 2**20
GIB = 2**30
HOST = 16 * GIB
NO_LIMIT_V1 = 0x7FFF_FFFF_FFFF_F000
OF_HOST = (HOST, "the host's memory")

V2 = "30 23 0:26 {root} {point} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 {root} {point} rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
V1_CPU = "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
OTHERS = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n23 22 0:21 / /sys rw - sysfs sysfs rw\n"

on_linux = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="there is no statm")


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    begin_anew()
    yield
    begin_anew()


# ==== the resident bytes =========================================================================


GROW = """\
from recyclepool._host_memory import process_rss
before = process_rss()
block = bytearray(b"x") * (64 << 20)
grown = process_rss()
del block
print(grown - before, grown - process_rss())
"""


def test_grows_by_what_is_allocated_and_shrinks_when_it_is_freed() -> None:
    """In a process of its own: nobody else takes or frees anything there."""
    done = subprocess.run([sys.executable, "-c", GROW], capture_output=True, check=True, timeout=60)
    grown, shrunk = map(int, done.stdout.split())
    assert 48 * MIB < grown < 96 * MIB
    assert shrunk > 48 * MIB  # not a peak


def test_is_what_psutil_says() -> None:
    psutil = pytest.importorskip("psutil")
    assert process_rss() == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


@on_linux
def test_one_descriptor_is_kept_and_no_program_inherits_it() -> None:
    process_rss()
    kept = descriptor()
    for _ in range(200):  # more than once, it looks whether that is still its own
        assert process_rss() > MIB
    assert descriptor() == kept
    assert not os.get_inheritable(kept)


@on_linux
def test_reads_on_when_foreign_code_closed_its_descriptor() -> None:
    process_rss()
    os.close(descriptor())
    assert process_rss() > MIB


@on_linux
@pytest.mark.parametrize(
    "content",
    [b"", b"text\n", b"765 418\n", b"1 2 3 4 5 6 seven\n", b"9 1 9 987654 0 9 0\n", b"\xff" * 300],
)
def test_reads_on_when_its_number_belongs_to_another_file(tmp_path: Path, content: bytes) -> None:
    process_rss()
    (tmp_path / "file").write_bytes(content)
    number = taken_over(os.open(tmp_path / "file", os.O_RDONLY))
    try:
        assert process_rss() > MIB
        assert descriptor() != number
        begin_anew()
        assert os.pread(number, 300, 0) == content  # it was not closed
    finally:
        os.close(number)


@on_linux
def test_reads_on_when_its_number_belongs_to_a_pipe() -> None:
    process_rss()
    reader, writer = os.pipe()
    os.write(writer, b"1 2 3 4 5 6 7\n")
    number = taken_over(reader)
    try:
        assert process_rss() > MIB
        assert os.read(number, 99) == b"1 2 3 4 5 6 7\n"  # nothing was taken from it
    finally:
        os.close(number)
        os.close(writer)


@on_linux
def test_a_file_that_looks_like_it_is_told_by_its_inode(tmp_path: Path) -> None:
    process_rss()
    fields = Path("/proc/self/statm").read_text().split()
    (tmp_path / "file").write_text(" ".join([fields[0], "77", *fields[2:]]))
    number = taken_over(os.open(tmp_path / "file", os.O_RDONLY))
    try:
        readings = [process_rss() for _ in range(_host_memory.LOOKED_AT_EVERY + 1)]
        assert readings[-1] > MIB
        assert descriptor() != number
    finally:
        os.close(number)


@on_linux
def test_no_descriptor_is_lost_however_often_it_is_closed() -> None:
    process_rss()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(20):
        os.close(descriptor())
        process_rss()
    begin_anew()
    process_rss()
    assert sorted(os.listdir("/proc/self/fd")) == before


@on_linux
def test_what_cannot_be_read_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    known = process_rss()
    os.close(descriptor())
    monkeypatch.setattr(_host_memory.os, "open", refuse)
    assert process_rss() == known
    begin_anew()
    assert process_rss() == 0


def test_without_proc_psutil_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    monkeypatch.setattr(_host_memory, "STATM", "/there/is/none")
    assert process_rss() > MIB
    assert process_rss() > MIB
    monkeypatch.delattr(os, "pread")
    assert process_rss() > MIB


@on_linux
def test_many_threads_read_and_one_closes() -> None:
    readings: list[int] = []
    threads = [
        threading.Thread(target=lambda: readings.extend(process_rss() for _ in range(500)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for _ in range(50):
        process_rss()
        with suppress(OSError):  # closed before, and nobody has read since
            os.close(descriptor())
    for thread in threads:
        thread.join()
    assert len(readings) == 2000
    assert min(readings) > MIB
    assert process_rss() > MIB


FORK = """
import mmap, os, sys
from recyclepool import _host_memory
from recyclepool._host_memory import begin_anew, process_rss
block = bytearray(b"x") * (64 << 20)
parent = process_rss()
inherited = _host_memory._statm.descriptor
pid = os.fork()
if pid:
    del block
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
if sys.argv[1] == "anew":
    begin_anew()
    try:
        os.fstat(inherited)
        os._exit(3)
    except OSError:
        pass
more = bytearray(b"x") * (256 << 20)
grown = process_rss()
os._exit(0 if grown > parent + (128 << 20) else 4)
"""


@on_linux
@pytest.mark.parametrize("way", ["anew", "as it is"])
def test_the_child_of_a_fork_reads_its_own(way: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, way], timeout=60, check=False)
    assert done.returncode == 0


def descriptor() -> int:
    statm = _host_memory._statm
    assert statm is not None
    return statm.descriptor


def taken_over(other: int) -> int:
    """Have the kept number belong to another file, as after a close and an open elsewhere."""
    number = descriptor()
    os.dup2(other, number)
    os.close(other)
    return number


def refuse(*_: Any) -> int:
    raise OSError("too many open files")


# ==== what the host allows =======================================================================


class Host:
    """The files of a host, or what a container sees of it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def set_up(self, groups: str, mounts: str, *, memory: int | None = HOST) -> None:
        self.write("/proc/self/cgroup", groups)
        self.write("/proc/self/mountinfo", OTHERS + mounts)
        if memory is not None:
            self.write("/proc/meminfo", f"MemTotal:       {memory // 1024} kB\nMemFree: 1 kB\n")

    def limit(self) -> tuple[int, str]:
        return container_limit(self.root)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def v2(root: str = "/", point: str = "/sys/fs/cgroup") -> str:
    return V2.format(root=root, point=point)


def v1(root: str = "/", point: str = "/sys/fs/cgroup/memory") -> str:
    return V1_CPU + V1.format(root=root, point=point)


def test_v2_of_the_own_group(host: Host) -> None:
    host.set_up("0::/app.slice/web.service\n", v2())
    host.write("/sys/fs/cgroup/app.slice/web.service/memory.max", f"{GIB}\n")
    assert host.limit() == (GIB, "cgroup v2 memory.max (/sys/fs/cgroup/app.slice/web.service)")


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("max", str(GIB), (GIB, "cgroup v2 memory.max (/sys/fs/cgroup/a)")),
        (str(2 * GIB), str(GIB), (GIB, "cgroup v2 memory.max (/sys/fs/cgroup/a)")),
        (str(GIB), str(2 * GIB), (GIB, "cgroup v2 memory.max (/sys/fs/cgroup/a/b/c)")),
        (str(GIB), str(GIB), (GIB, "cgroup v2 memory.max (/sys/fs/cgroup/a/b/c)")),
        ("max", "max", OF_HOST),
        (str(HOST), str(HOST * 2), OF_HOST),
    ],
)
def test_v2_the_smallest_up_the_hierarchy(
    host: Host, inner: str, outer: str, expected: tuple[int, str]
) -> None:
    host.set_up("0::/a/b/c\n", v2())
    host.write("/sys/fs/cgroup/a/b/c/memory.max", inner + "\n")
    host.write("/sys/fs/cgroup/a/b/memory.max", "max\n")
    host.write("/sys/fs/cgroup/a/memory.max", outer + "\n")
    assert host.limit() == expected


@pytest.mark.parametrize(
    ("group", "root"),
    [
        ("/", "/"),  # a cgroup namespace
        ("/docker/abc", "/docker/abc"),  # none, but only its own part is mounted
        ("/docker/abc", "/"),  # its path is the host's, and is not there
        ("/docker/abc", "/docker/ab"),
        ("/../../other", "/"),  # outside its namespace
        ("/", "/../.."),
    ],
)
def test_v2_in_a_container_the_mount_point_is_the_group(host: Host, group: str, root: str) -> None:
    host.set_up(f"0::{group}\n", v2(root))
    host.write("/sys/fs/cgroup/memory.max", f"{512 * MIB}\n")
    for outside in ("/sys", "/sys/fs", "/sys/other"):
        host.write(f"{outside}/memory.max", "1\n")
    assert host.limit() == (512 * MIB, "cgroup v2 memory.max (/sys/fs/cgroup)")


def test_v2_below_a_part_that_is_mounted(host: Host) -> None:
    host.set_up("0::/pods/one/app\n", v2("/pods/one"))
    host.write("/sys/fs/cgroup/app/memory.max", f"{GIB}\n")
    assert host.limit() == (GIB, "cgroup v2 memory.max (/sys/fs/cgroup/app)")


def test_a_mount_point_with_a_space(host: Host) -> None:
    host.set_up("0::/a\n", v2(point="/my\\040groups"))
    host.write("/my groups/a/memory.max", f"{GIB}\n")
    assert host.limit() == (GIB, "cgroup v2 memory.max (/my groups/a)")


@pytest.mark.parametrize("controllers", ["memory", "hugetlb,memory"])
def test_v1_the_smallest_up_the_hierarchy(host: Host, controllers: str) -> None:
    groups = f"5:cpu:/x\n4:{controllers}:/docker/abc\n0::/\n"
    host.set_up(groups, v1() + v2(point="/sys/fs/cgroup/unified"))
    host.write("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", f"{NO_LIMIT_V1}\n")
    host.write("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", f"{3 * GIB}\n")
    host.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", f"{NO_LIMIT_V1}\n")
    host.write("/sys/fs/cgroup/cpu/x/memory.limit_in_bytes", "1\n")
    source = "cgroup v1 memory.limit_in_bytes (/sys/fs/cgroup/memory/docker)"
    assert host.limit() == (3 * GIB, source)


def test_v1_an_enormous_number_is_no_limit(host: Host) -> None:
    host.set_up("4:memory:/\n", v1())
    host.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", f"{NO_LIMIT_V1}\n")
    assert host.limit() == OF_HOST


def test_v1_in_a_container(host: Host) -> None:
    host.set_up("4:memory:/docker/abc\n", v1("/docker/abc"))
    host.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", f"{GIB}\n")
    limit = (GIB, "cgroup v1 memory.limit_in_bytes (/sys/fs/cgroup/memory)")
    assert host.limit() == limit


@pytest.mark.parametrize(
    "content", ["", "\n", "none", "-1", "0", "1e9", "1.5", "1 2", "²", "٣", "9" * 40, "\0"]
)
def test_odd_content_is_no_limit(host: Host, content: str) -> None:
    host.set_up("0::/a\n", v2())
    host.write("/sys/fs/cgroup/a/memory.max", content)
    assert host.limit() == OF_HOST
    host.write("/sys/fs/cgroup/memory.max", f"{GIB}\n")
    assert host.limit() == (GIB, "cgroup v2 memory.max (/sys/fs/cgroup)")


@pytest.mark.parametrize(
    ("groups", "mounts"),
    [
        ("", v2()),
        ("0::/\n", ""),
        ("nonsense\n\n0\n::\n1:memory\n", "nonsense\n - cgroup2\n1 2 3 - cgroup2 x rw\n - \n"),
        ("0::/a\0b\n", v2()),
    ],
)
def test_without_a_group_or_a_mount_it_is_the_host(host: Host, groups: str, mounts: str) -> None:
    host.set_up(groups, mounts)
    assert host.limit() == OF_HOST


def test_files_that_cannot_be_read_are_no_limit(host: Host) -> None:
    host.set_up("0::/a\n", v2())
    (host.root / "sys/fs/cgroup/a/memory.max").mkdir(parents=True)  # as unreadable as can be
    assert host.limit() == OF_HOST
    (host.root / "proc/self/mountinfo").write_bytes(b"\xff\xfe\0 \x80\n")
    assert host.limit() == OF_HOST


def test_nothing_there_at_all_then_psutil_knows(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    assert container_limit(tmp_path) == (psutil.virtual_memory().total, "the host's memory")


def test_a_limit_counts_although_the_host_is_unknown(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    host.set_up("0::/a\n", v2(), memory=None)
    assert host.limit() == (0, "the host's memory")
    host.write("/sys/fs/cgroup/a/memory.max", f"{GIB}\n")
    assert host.limit() == (GIB, "cgroup v2 memory.max (/sys/fs/cgroup/a)")


def test_the_limit_of_this_process_makes_sense() -> None:
    size, source = container_limit()
    assert process_rss() < size < 2**60
    assert source


# ==== limits =====================================================================================


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def allow(size: int) -> None:
        monkeypatch.setattr(_host_memory, "container_limit", lambda: (size, "the host's memory"))

    return allow


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("80%", 800_000_000),
        ("12.5 %", 125_000_000),
        ("100%", 10**9),
        ("0.00000000001%", 1),
        ("512MiB", 512 * MIB),
        (4096, 4096),
    ],
)
def test_resolves_a_limit(allowed: Callable[[int], None], value: int | str, expected: int) -> None:
    allowed(10**9)
    assert limit_in_bytes(value, "memory") == expected


def test_refuses_a_limit_by_its_name(allowed: Callable[[int], None]) -> None:
    allowed(10**9)
    for value in ("0%", "101%", "x%", "512", -1, None):
        with pytest.raises(UnitError, match=r"^pool_memory="):
            limit_in_bytes(value, "pool_memory")  # type: ignore[arg-type]


def test_refuses_a_percentage_of_what_is_unknown(allowed: Callable[[int], None]) -> None:
    allowed(0)
    with pytest.raises(UnitError) as refused:
        limit_in_bytes("80%", "memory")
    message = "memory='80%': the host's memory is unknown here; write an amount: 512MiB"
    assert str(refused.value) == message
    assert limit_in_bytes("1MiB", "memory") == MIB


# ==== what the allocator keeps ===================================================================


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_hands_free_memory_back() -> None:
    blocks = [bytearray(b"x") * 1024 for _ in range(64 * 1024)]
    full = process_rss()
    keep = blocks[-1]  # so that the heap's end is in use
    del blocks
    seconds = release_free_memory()
    assert seconds is not None
    assert 0 < seconds < 60
    assert process_rss() < full - 32 * MIB
    assert len(keep) == 1024


def test_says_so_where_the_library_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    for library in (object(), OSError("no library"), TypeError("not on Windows")):
        monkeypatch.setattr(_host_memory, "_trim", None)
        monkeypatch.setattr(ctypes, "CDLL", lambda _, it=library: raised_or(it))
        assert release_free_memory() is None


def raised_or(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value

"""What the process holds, what its host allows it, and how to hand free memory back."""

import os
import re
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

from recyclepool.errors import UnitError
from recyclepool.units import Size, parse_size, percent_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "begin_anew",
    "container_limit",
    "limit_in_bytes",
    "process_rss",
    "release_free_memory",
]

STATM = "/proc/self/statm"
LOOKED_AT_EVERY = 64  # readings after which the descriptor itself is looked at

_ESCAPED = re.compile(r"\\([0-7]{3})")  # a space or a backslash in /proc/self/mountinfo


# -- the resident bytes of this process -----------------------------------------------------------
#
# /proc/self/statm is opened once and read with one pread: about 1.3 us. To open, read and close it
# each time costs three calls that let go of the GIL, and each of them may wait 5 ms for it where
# other threads compute. Never ru_maxrss: that is a peak, and a child inherits it.
#
# A descriptor that is kept has three traps.
# - Fork. /proc/self is resolved when it is opened, so the child would read its parent. Hence the
#   pid in the record: another pid, another record. begin_anew() also closes the parent's.
# - Foreign code closes it (a daemon closes all it does not know), and the number may then belong to
#   another file. A pread takes nothing from that: pipes, sockets and terminals refuse it, and in a
#   file it moves no position. What it returns is believed only if it looks like our statm: seven
#   numbers, and the pages of code, which never change in a process, are those of the first reading.
#   What that cannot tell from ours, another process's statm, is told by the device and the inode,
#   which are looked at every LOOKED_AT_EVERY readings. (An open descriptor keeps its inode, and so
#   nobody else has that number.)
# - To close a number that is no longer ours would close somebody's file. It is closed only if the
#   device and the inode are ours, and else forgotten.
#
# The kernel counts in batches for each thread or CPU, so a reading may be some hundred KiB behind.


class _Statm:
    """An open /proc/self/statm, as it was when it was opened."""

    __slots__ = ("code", "descriptor", "inode", "page", "pid", "readings")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pid = os.getpid()
        self.inode = _inode(descriptor)
        self.page = os.sysconf("SC_PAGE_SIZE")
        self.code = os.pread(descriptor, 256, 0).split()[3]
        self.readings = 0

    def read(self) -> int | None:
        """The resident bytes, or None: the descriptor is no longer ours."""
        self.readings += 1
        if self.readings % LOOKED_AT_EVERY == 0 and not self.is_ours():
            return None
        try:
            fields = os.pread(self.descriptor, 256, 0).split()
            if len(fields) != 7 or fields[3] != self.code:
                return None
            return int(fields[1]) * self.page
        except (OSError, ValueError):
            return None

    def is_ours(self) -> bool:
        try:
            return _inode(self.descriptor) == self.inode
        except OSError:
            return False

    def is_as_good_as(self, other: "_Statm") -> bool:
        """Is it open, too? A number that was closed is the first that an open() hands out again."""
        return self.pid == other.pid and self.descriptor != other.descriptor and self.is_ours()

    def close(self) -> None:
        if self.is_ours():
            os.close(self.descriptor)


_statm: _Statm | None = None
_others: Any = None  # psutil's Process, where there is no statm
_last = 0


def process_rss() -> int:
    """The resident bytes of this process. Any thread; never raises.

    What cannot be read just now (no descriptor is left, no /proc) is as it was when last read; 0:
    it never was.
    """
    global _last
    statm = _statm
    try:
        size = statm.read() if statm is not None and statm.pid == os.getpid() else None
        if size is None:
            size = _read_anew()
    except Exception:  # psutil has errors of its own
        return _last
    _last = size
    return size


def begin_anew() -> None:
    """In the child of a fork: what the parent had open shows the parent."""
    global _statm, _others, _last
    inherited, _statm, _others, _last = _statm, None, None, 0
    if inherited is not None:
        inherited.close()


def _read_anew() -> int:
    global _statm
    opened = _open_statm()
    if opened is None:
        return _rss_elsewhere()
    size, there = opened.read(), _statm
    if size is None or (there is not None and there.is_as_good_as(opened)):
        opened.close()  # it makes no sense, or another thread was faster
    else:
        _statm = opened  # what was there before is not ours to close
    return _rss_elsewhere() if size is None else size


def _open_statm() -> _Statm | None:
    if not hasattr(os, "pread"):
        return None
    try:
        descriptor = os.open(STATM, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _Statm(descriptor)
    except (OSError, IndexError):
        os.close(descriptor)
        return None


def _rss_elsewhere() -> int:
    global _others
    process = _others
    if process is None or process.pid != os.getpid():
        _others = process = _psutil().Process()
    return int(process.memory_info().rss)


def _inode(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


# -- what the host allows -------------------------------------------------------------------------


def limit_in_bytes(value: Size, name: str) -> int:
    """The bytes of a limit: a size, or a percentage of what container_limit() says, at least 1.

    Raises UnitError, which begins with `name`.
    """
    percent = percent_of(value, name=name)
    if percent is None:
        return parse_size(value, name=name)
    whole, source = container_limit()
    if not whole:
        raise UnitError(f"{name}={value!r}: {source} is unknown here; write an amount: 512MiB")
    return max(1, int(whole * percent / 100))


def container_limit(root: "Path | str" = "/") -> tuple[int, str]:
    """The bytes that this process may use at most, and who says so.

    The smallest limit of its cgroup and of those above it, v2 or v1; without one, the host's RAM;
    0 where even that is unknown. Reads files: not for a hot path. Another `root` is for tests.
    """
    host = _host_bytes(root)
    # A limit above the RAM limits nothing. v1 says "none" with the largest number that it has.
    limits = [limit for limit in _cgroup_limits(root) if not host or limit[0] < host]
    return min(limits, default=(host, "the host's memory"), key=lambda limit: limit[0])


def _cgroup_limits(root: "Path | str") -> Iterator[tuple[int, str]]:
    groups = _own_groups(root)
    for kind, mounted, point in _mounts(root):
        group = groups.get(kind)
        if group is None:
            continue
        file = "memory.max" if kind == "v2" else "memory.limit_in_bytes"
        for directory in _upwards(root, point, _below(group, mounted)):
            limit = _limit_in(root, f"{directory}/{file}")
            if limit is not None:
                yield limit, f"cgroup {kind} {file} ({directory})"


def _own_groups(root: "Path | str") -> dict[str, str]:
    """The cgroup of this process in the hierarchies that can limit memory."""
    groups = {}
    for line in _text(root, "/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            groups["v2"] = group
        elif "memory" in controllers.split(","):
            groups["v1"] = group
    return groups


def _mounts(root: "Path | str") -> Iterator[tuple[str, str, str]]:
    """For each such hierarchy that is mounted: v2 or v1, which part of it, and where."""
    for line in _text(root, "/proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        fields, of_system = mount.split(" "), system.split(" ")
        if len(fields) < 5:
            continue
        mounted, point = map(_unescaped, fields[3:5])
        if of_system[0] == "cgroup2":
            yield "v2", mounted, point
        elif of_system[0] == "cgroup" and "memory" in of_system[-1].split(","):
            yield "v1", mounted, point


def _below(group: str, mounted: str) -> list[str]:
    """The directories from the mount point down to the group.

    None of them if the group is not in the part that is mounted: in a container the mount point
    itself is its group.
    """
    mounted = mounted.rstrip("/")
    inside = group == mounted or group.startswith(mounted + "/")
    parts = group[len(mounted) :].split("/") if inside else []
    return [] if ".." in parts else [part for part in parts if part]


def _upwards(root: "Path | str", point: str, parts: list[str]) -> Iterator[str]:
    """The directories of the group and of those above it; the mount point if it is not there."""
    point = point.rstrip("/")
    lowest = "/".join([point, *parts])
    if not os.path.isdir(_under(root, lowest)):
        parts = []
    for depth in range(len(parts), -1, -1):
        yield "/".join([point, *parts[:depth]])


def _limit_in(root: "Path | str", path: str) -> int | None:
    """None for "max", for what is not there or cannot be read, and for what makes no sense."""
    text = _text(root, path).strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 30):
        return None
    return int(text) or None


def _host_bytes(root: "Path | str") -> int:
    total = re.search(r"^MemTotal: +([0-9]{1,18}) kB$", _text(root, "/proc/meminfo"), re.MULTILINE)
    if total is not None:
        return int(total[1]) * 1024
    try:
        return int(_psutil().virtual_memory().total)
    except Exception:  # psutil has errors of its own
        return 0


def _text(root: "Path | str", path: str) -> str:
    """What is in it, or "": not there, not ours to read, or no longer there."""
    try:
        with open(_under(root, path), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return ""


def _under(root: "Path | str", path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _unescaped(field: str) -> str:
    return _ESCAPED.sub(lambda code: chr(int(code[1], 8)), field)


# -- what the allocator keeps ---------------------------------------------------------------------

_trim: Callable[[int], int] | None = None


def release_free_memory() -> float | None:
    """Have the C library hand its free memory back to the host. The seconds that it took.

    None where it cannot: only glibc has malloc_trim(). It needs no GIL, but locks one arena after
    the other, and who allocates there waits: 0.5 ms with nothing to give, 20 ms for 200 MB.
    """
    global _trim
    trim = _trim or _load_trim()
    if trim is None:
        return None
    _trim = trim
    begin = perf_counter()
    trim(0)
    return perf_counter() - begin


def _load_trim() -> Callable[[int], int] | None:
    try:
        import ctypes

        trim = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError, TypeError):  # TypeError: on Windows
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


def _psutil() -> Any:
    import psutil

    return psutil

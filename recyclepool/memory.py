"""What a pool is told about memory that Python cannot see."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from recyclepool import _referents

__all__ = ["register"]

T = TypeVar("T")


def register(kind: type[T], read: Callable[[T], tuple[int, Iterable[object]]]) -> None:
    """Teach ``Limits(memory=)`` a type whose memory or references Python does not show.

    ``read(object)`` returns the bytes that ``sys.getsizeof(object)`` omits, and the objects that it
    refers to, each as often as it holds it: also those that ``gc.get_referents`` shows.
    For a C type that keeps a buffer of its own: ``lambda image: (image.nbytes, ())``. It is called
    in the worker that holds the object, for subclasses of `kind` too, and again and again: it must
    be fast, and change nothing. Where no recycle helps, the largest containers of the program are
    looked for: then on a thread of its own, while others use the object. One that raises is taken
    to have said nothing.

    Raises TypeError if `kind` is no type, or `read` cannot be called. Any thread, at any time.
    """
    if not isinstance(kind, type):
        raise TypeError(
            f"register({kind!r}, ...): write the type itself, such as register(Image, read)"
        )
    if not callable(read):
        raise TypeError(
            f"register({kind.__name__}, {read!r}): write a function that takes one and returns "
            f"(bytes, references), such as lambda image: (image.nbytes, ())"
        )
    _referents.register(kind, read)

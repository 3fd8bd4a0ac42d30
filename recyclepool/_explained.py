"""Calls whose arguments do not fit say what to write instead."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["explained"]

F = TypeVar("F", bound=Callable[..., Any])

_calls: dict[str, Callable[..., Any]] = {}


def explained(function: F) -> F:
    """Have a call of `function` that does not fit name the parameter that was meant.

    Those that fit cost a call more: it is not for what is called for each task.
    """
    *_, owner, verb = f".{function.__qualname__}".split(".")
    verb = owner if verb == "__init__" else verb

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            place = error.__traceback__
            if place is None or place.tb_next is not None:
                raise  # from within: its arguments did fit
            from recyclepool._misfit import misfit

            raise TypeError(misfit(verb, kwargs, str(error), _calls)) from None

    _calls[verb] = function
    return cast(F, call)

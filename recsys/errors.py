"""The one error that a user can mend."""

from __future__ import annotations

import re


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one line: the file, the column or setting, the value, what is allowed and what to
    do. The command line prints it without a traceback and exits with status 2.
    """


def find_input_error(error: BaseException) -> InputError | None:
    """The `InputError` that an error of a Ray task, actor or training worker stands for.

    Ray wraps what a worker raised, sometimes several times, and makes its message a traceback.

    >>> wrapped = RuntimeError("task failed")
    >>> wrapped.__cause__ = InputError("x=1: allowed is 2")
    >>> find_input_error(wrapped)
    InputError('x=1: allowed is 2')
    """
    errors = [inner for inner in unwrapped(error) if isinstance(inner, InputError)]
    if errors:
        return errors[-1]
    # Ray Data keeps the traceback's text alone of what a function raised.
    texts = re.findall(rf"{InputError.__module__}\.InputError: (.+)", str(error))
    return InputError(texts[-1]) if texts else None


def unwrapped(error: BaseException) -> list[BaseException]:
    """The error, and all that it stands for, the outermost first."""
    reached = [error]
    for outer in reached:
        known = {id(other) for other in reached}
        reached += [inner for inner in _inside(outer) if id(inner) not in known]
    return reached


def _inside(error: BaseException) -> list[BaseException]:
    """What an error wraps, by the names that Ray gives it."""
    names = ("cause", "_base_exc", "controller_failure", "__cause__")
    causes = [getattr(error, name, None) for name in names]
    causes += dict(getattr(error, "worker_failures", None) or {}).values()
    return [inner for inner in causes if isinstance(inner, BaseException)]

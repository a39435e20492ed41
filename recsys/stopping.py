"""Stopping a command by a signal: Ctrl-C, or SIGTERM as schedulers and containers send it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

_Handler = Callable[[int, FrameType | None], object] | int | None
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A signal stopped the command.

    Args:
        number: The signal's.
        what: What was stopped, and what the same command does if it is run again.
    """

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} {what}".rstrip())
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells and schedulers know a signal by: 130, 143."""
        return 128 + self.number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Interrupts the block where a signal comes; a second one ends the process at once.

    Raises:
        Stopped: In place of a KeyboardInterrupt, which is what passes through the block: Ray puts
            its own in the place of any exception of ours.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        received.append(number)
        raise KeyboardInterrupt

    try:
        with _kept(lambda handler: handler is not None):
            if _may_handle_signals():
                for each in SIGNALS:
                    signal.signal(each, stop)
            yield
    except KeyboardInterrupt as error:
        what = next(iter(getattr(error, "__notes__", ())), "")
        raise Stopped(received[0] if received else signal.SIGINT, what) from None


def end_process(status: int) -> NoReturn:
    """Ends the process here: Ray, interrupted at its work, may crash at clearing up after itself.

    What it started on this machine ends with the process, and a cluster sees that it is gone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def own_signals() -> contextlib.AbstractContextManager[None]:
    """Gives the signals that the block takes over back to whoever handled them before.

    Ray takes them: on SIGTERM it dumps its stacks, on Ctrl-C it ends with status 0. Where nobody
    handled them that is still better than an end that leaves a local Ray behind.
    """
    return _kept(callable)


@contextlib.contextmanager
def _kept(worth: Callable[[_Handler], bool]) -> Iterator[None]:
    """Gives handlers that are worth it back after the block, unless it was stopped."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    except KeyboardInterrupt:
        raise  # a second signal now ends the process, whatever the clearing up is at
    except BaseException:
        _give_back(before, worth)
        raise
    _give_back(before, worth)


def _give_back(handlers: dict[signal.Signals, _Handler], worth: Callable[[_Handler], bool]) -> None:
    for number, handler in handlers.items():
        if worth(handler) and _may_handle_signals():
            signal.signal(number, handler)


def _may_handle_signals() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Around what can be stopped: says what it was, and what the same command does then.

    >>> try:
    ...     with stoppable(), told("in evaluate"), told("in train"):
    ...         raise KeyboardInterrupt
    ... except Stopped as stop:
    ...     print(stop)
    stopped by SIGINT in train
    """
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note(what)
        raise

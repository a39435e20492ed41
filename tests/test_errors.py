import pytest

from recsys.errors import InputError, find_input_error

WRONG = InputError("x=1: allowed is 2")


class Wrapper(Exception):
    """As Ray's: with what a worker raised in some attribute."""

    def __init__(self, **inside: object) -> None:
        super().__init__("Traceback (most recent call last): …")
        self.__dict__.update(inside)


class DualError(Wrapper, InputError):
    """Ray makes its task error an instance of the cause's class too."""


@pytest.mark.parametrize(
    "error",
    [
        WRONG,
        Wrapper(cause=WRONG),
        DualError(cause=WRONG),
        DualError(cause=Wrapper(cause=WRONG)),
        Wrapper(worker_failures={1: Wrapper(_base_exc=WRONG)}),
        Wrapper(worker_failures={0: KeyError("x"), 1: WRONG}),
        Wrapper(controller_failure=Wrapper(cause=WRONG)),
    ],
)
def test_finds_what_a_worker_raised(error: Exception) -> None:
    assert find_input_error(error) is WRONG


def test_finds_a_cause() -> None:
    try:
        raise RuntimeError("task failed") from WRONG
    except RuntimeError as error:
        assert find_input_error(error) is WRONG


def test_other_errors_are_none() -> None:
    looped = Wrapper()
    looped.cause = looped  # type: ignore[attr-defined]
    for error in (ValueError("x"), Wrapper(cause=ValueError("x")), Wrapper(cause="text"), looped):
        assert find_input_error(error) is None

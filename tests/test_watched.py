"""What benchmarks measure other processes by."""

import sys

import pytest

from tests.benchmarks._memory import Watched


def test_a_command_that_fails_says_what_went_wrong() -> None:
    code = "import sys; print('figures'); sys.exit('no room on the disk')"
    with pytest.raises(SystemExit, match="ended with 1\n(.*\n)*no room on the disk$"):
        Watched([sys.executable, "-c", code]).output()


def test_the_output_of_one_that_does_not_is_kept_apart_from_its_complaints() -> None:
    code = "import sys; print('figures'); print('a warning', file=sys.stderr)"
    assert Watched([sys.executable, "-c", code]).output() == "figures\n"

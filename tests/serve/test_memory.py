"""Memory that is freed, in a process of its own: what it is told counts for all of it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")

KEPT_MB = """
import sys
import numpy as np
from recsys.serve.memory import MAPPED, give_back

def private():
    lines = open("/proc/self/smaps_rollup")
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) / 1024

if sys.argv[1] == "told":
    give_back()
np.ones(2 * MAPPED, np.uint8)  # the first that is freed
before = private()
made = [(np.ones(MAPPED + 1, np.uint8), bytearray(100_000)) for _ in range(20)]
behind = [small for _, small in made]
del made
print(private() - before)
"""


def kept(how: str) -> float:
    command = [sys.executable, "-c", KEPT_MB, how]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_large_arrays_go_back_whatever_lies_behind_them() -> None:
    assert kept("told") < 10
    assert kept("not told") > 50, "or nobody need be told"

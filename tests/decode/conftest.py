from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.decode.contract import Clip, ClipSpec
from recsys.decode.files import LocalFile
from recsys.decode.sandbox import Sandbox

Read = Callable[[Path, ClipSpec], Clip]


@pytest.fixture(scope="session")
def read() -> Iterator[Read]:
    """Reads a clip of a local file in a sandbox; all in one process."""
    sandbox = Sandbox(max_memory_bytes=512 * 2**20)

    def read_clip(path: Path, spec: ClipSpec) -> Clip:
        return sandbox.read(LocalFile(str(path)), spec, name=path.name)

    yield read_clip
    sandbox.close()

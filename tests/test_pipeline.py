from pathlib import Path

import pytest

from recsys import pipeline
from recsys.config.run import load_config
from tests.inputs import write_input


def test_what_an_older_prepare_wrote_is_not_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is what was trained on it."""
    config = load_config(str(write_input(tmp_path)), ())
    stages = [pipeline.BY_NAME[name] for name in ("prepare", "decode", "train")]
    now = [pipeline.fingerprint(config, stage) for stage in stages]
    assert now == [pipeline.fingerprint(config, stage) for stage in stages]
    monkeypatch.setattr(pipeline, "PREPARE_FORMAT", pipeline.PREPARE_FORMAT - 1)
    assert not set(now) & {pipeline.fingerprint(config, stage) for stage in stages}


def test_a_bundle_of_another_format_is_not_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server reads it; what it was made of is as good as before."""
    config = load_config(str(write_input(tmp_path)), ())
    stages = [pipeline.BY_NAME[name] for name in ("train", "publish")]
    train, publish = [pipeline.fingerprint(config, stage) for stage in stages]
    monkeypatch.setattr(pipeline, "FORMAT", pipeline.FORMAT - 1)
    assert pipeline.fingerprint(config, stages[0]) == train
    assert pipeline.fingerprint(config, stages[1]) != publish

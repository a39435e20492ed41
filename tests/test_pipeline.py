from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys import pipeline
from recsys.config.run import RunConfig, load_config
from recsys.data.storage import read_json
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


def test_figures_are_those_of_the_model_that_lies_there(tmp_path: Path) -> None:
    """Trained again by the same settings, with other workers: it is another model."""
    config = load_config(str(write_input(tmp_path, model={"content": {"encoder": "none"}})), ())
    losses = iter([0.5, 0.25])

    def train(config: RunConfig, *_: object) -> dict[str, Any]:
        return {"history": [{"retrieval_loss": next(losses)}]}

    def evaluate(config: RunConfig, *_: object) -> dict[str, Any]:
        trained = read_json(f"{config.run}/train/report.json")
        figures = {"model": {"loss": trained["history"][0]["retrieval_loss"]}}
        return {"evaluation": figures, "trained": pipeline._training(config)}

    of_train = replace(pipeline.BY_NAME["train"], after=(), run=train)
    of_evaluate = replace(pipeline.BY_NAME["evaluate"], after=(), run=evaluate)

    def told(*stages: pipeline.Stage) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
        """What RUN/report.json says of the model, and what a bundle would."""
        whole = pipeline.run_in_order(config, stages, lambda *_: None)
        assert read_json(f"{config.run}/report.json") == whole
        return whole["evaluation"], pipeline._figures(config)  # type: ignore[return-value]

    assert told(of_train) == ({}, None)
    first = {"model": {"loss": 0.5}}
    assert told(of_evaluate) == (first, first)
    assert told(of_train, of_evaluate) == (first, first), "both are skipped"
    (tmp_path / "run" / "train" / "report.json").unlink()
    assert told(of_train) == ({}, None)
    second = {"model": {"loss": 0.25}}
    assert told(of_evaluate) == (second, second), "it is measured anew"

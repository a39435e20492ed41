"""The bundle that is there already, as a baseline of the next model."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle.versions import find_bundle, new_version, newest_other
from recsys.config.run import RunConfig, load_config
from recsys.errors import InputError
from recsys.evaluation.report.files import compare_runs
from recsys.evaluation.stage import evaluate
from recsys.pipeline import BY_NAME, is_current, run_stages
from tests.conftest import TrainedRun


def put(bundles: Path, version: str, trained: str | None) -> str:
    folder = bundles / version
    folder.mkdir(parents=True)
    if trained is not None:
        (folder / "manifest.json").write_text(json.dumps({"trained": trained}))
    return str(folder)


def test_the_newest_of_another_training(tmp_path: Path) -> None:
    assert newest_other(str(tmp_path / "bundles"), "mine") is None
    versions = [new_version() for _ in range(4)]
    put(tmp_path, versions[0], "older")
    expected = put(tmp_path, versions[1], "old")
    put(tmp_path, versions[2], None)  # never finished
    (tmp_path / "CURRENT").write_text(versions[1])
    assert newest_other(str(tmp_path), "mine") == expected
    put(tmp_path, versions[3], "mine")
    assert newest_other(str(tmp_path), "mine") == expected
    assert newest_other(str(tmp_path), "old") == str(tmp_path / versions[3])


@pytest.fixture
def copied(trained_run: TrainedRun, tmp_path: Path) -> RunConfig:
    """The trained run in a folder that a test may change."""
    run = tmp_path / "run"
    shutil.copytree(trained_run.run, run)
    return load_config(trained_run.config_path, [*trained_run.settings, f"run={run}"])


@pytest.mark.ray
def test_a_bundle_of_the_same_model_ranks_alike(copied: RunConfig, trained_run: TrainedRun) -> None:
    report = evaluate(copied, f"{copied.run}/evaluate", find_bundle(str(trained_run.run)))
    ours, theirs = (report["evaluation"][name] for name in ("model", "previous"))
    for part in ("all", "warm", "cold"):
        for metric, value in ours[part].items():
            if metric not in ("users", "ci"):
                assert theirs[part][metric] == pytest.approx(value), (part, metric)
    for task, figures in ours["tasks"].items():
        assert theirs["tasks"][task]["auc"] == pytest.approx(figures["auc"], abs=1e-6)
    metrics = [row["metric"] for row in report["comparisons"]["previous"]]
    assert {"ndcg@10", "auc: watched", "auc: liked"} <= set(metrics)
    findings = " ".join(finding["text"] for finding in report["verdict"]["findings"])
    assert "not shown to be better than the previous bundle" in findings
    page = Path(copied.run, "evaluate", "report.html").read_text()
    assert "previous bundle" in page


@pytest.mark.ray
def test_another_previous_bundle_makes_the_evaluation_stale(copied: RunConfig) -> None:
    stage = BY_NAME["evaluate"]
    assert is_current(copied, stage)
    put(Path(copied.run, "bundles"), new_version(), "another training")
    assert not is_current(copied, stage)


@pytest.mark.ray
def test_a_previous_bundle_that_cannot_be_read(
    copied: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Is left out where nobody named it, and is a mistake where somebody did."""
    folder = put(Path(copied.run, "bundles"), new_version(), "another training")
    with caplog.at_level(logging.WARNING, "recsys"):
        report = run_stages(copied, ["evaluate"])
    assert "previous" not in report["evaluation"]
    assert "the previous bundle is left out" in caplog.text
    update = {"evaluate": copied.evaluate.model_copy(update={"previous": folder})}
    with pytest.raises(InputError, match="publish again"):
        run_stages(copied.model_copy(update=update), ["evaluate"])


@pytest.mark.ray
def test_two_runs_are_compared(copied: RunConfig, trained_run: TrainedRun) -> None:
    run_stages(copied, ["evaluate"])
    rows = compare_runs(copied, str(trained_run.run))
    tested = [row["metric"] for row in rows if row["p_holm"] is not None]
    assert tested[:4] == ["ndcg@10", "hr@10", "recall@10", "mrr@10"]
    assert {"auc: watched", "auc: liked"} <= set(tested) and len(tested) <= 10
    assert len(rows) > 3 * len(tested)
    assert all(row["difference"] == 0 for row in rows)
    auc = next(row for row in rows if row["metric"] == "auc: liked")
    report = json.loads(Path(copied.run, "evaluate", "report.json").read_text())
    assert np.isclose(auc["ours"], report["evaluation"]["model"]["tasks"]["liked"]["auc"])
    assert "which are not tested" in Path(copied.run, "evaluate", "report.html").read_text()

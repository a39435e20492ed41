"""What the cluster's GPUs are used for, as their node says; the GPU here is one of Ray's alone."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import cluster
from recsys.config.data import DecodeConfig
from recsys.decode import stage
from recsys.decode.actor import gpus
from recsys.decode.actor.gpus import GpuUses
from recsys.decode.actor.plan import ActorPlan
from recsys.decode.actor.processes import ProcessSet
from tests.videos import numbered

NOTHING = GpuUses("cpu", encodes=False)
NVDEC, TORCH = GpuUses("pynvvideocodec", encodes=False), GpuUses("cpu", encodes=True)


@pytest.mark.parametrize(
    ("settings", "uses", "usable"),
    [
        ({}, NOTHING, (0.0, 0)),
        ({}, TORCH, (0.0, 0)),  # no frames are encoded
        ({}, NVDEC, (2.0, 8)),
        ({"hardware_processes": 3}, NVDEC, (2.0, 3)),
        ({"features": True}, NOTHING, (0.0, 0)),
        ({"features": True}, TORCH, (2.0, 0)),
        ({"features": True}, NVDEC, (2.0, 8)),
        ({"reader": "decord"}, NVDEC, (0.0, 0)),  # which is asked for no file then
        ({"reader": "decord"}, GpuUses("decord_cuda", encodes=True), (2.0, 8)),
        ({"reader": "pyav", "features": True}, GpuUses("decord_cuda", encodes=True), (2.0, 0)),
    ],
)
def test_gpus_that_are_of_use(
    settings: dict[str, object],
    uses: GpuUses,
    usable: tuple[float, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(gpus, "ask", lambda: uses)
    with caplog.at_level(logging.WARNING):
        assert stage._usable_gpus(2.0, DecodeConfig(**settings)) == usable
    assert ("decode: on CPUs, though there is a GPU: " in caplog.text) == (usable == (0.0, 0))
    is_asked = settings.get("reader") != "decord" or usable[0] > 0
    assert ("pynvvideocodec is not asked (decode.reader=decord)" in caplog.text) != is_asked
    helps = uses.decoder == "cpu" or "features" in settings
    assert ("pip install 'recsys[gpu]'" in caplog.text) == (usable == (0.0, 0) and helps)


@pytest.mark.parametrize(
    ("node", "settings", "asked"),
    [
        ({"CPU": 8.0, "GPU": 1.0}, {}, True),
        ({"CPU": 8.0, "GPU": 1.0}, {"hardware_processes": 0}, False),  # nothing is for a GPU
        ({"CPU": 8.0}, {"features": True}, False),
    ],
)
def test_the_plan_follows_what_the_gpus_node_says(
    node: dict[str, float],
    settings: dict[str, object],
    asked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    answers = [NVDEC]

    monkeypatch.setattr(gpus, "ask", answers.pop)
    monkeypatch.setattr(cluster, "connect", lambda: None)
    monkeypatch.setattr(cluster, "tell_of_gpus", lambda *_: None)
    monkeypatch.setattr(ray, "available_resources", lambda: node)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node}])
    plan = stage._plan(100, DecodeConfig(**settings))
    assert (not answers) == asked
    if asked:
        assert plan == ActorPlan(1, 8.0, 1.0, ProcessSet(8, 8))
    else:
        assert plan == ActorPlan(8, 1.0)


ON_A_GPU = """
import os
import sys
import pyarrow as pa
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from recsys import cluster
from recsys.config.data import DecodeConfig
from recsys.config.run import ContentConfig
from recsys.decode.clips import DecodeClips
from recsys.decode.stage import decode_videos

video, out = sys.argv[1:]
ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
assert cluster.on_a_gpu(cluster.has_gpu, otherwise=False) and not cluster.gpus_compute()
assert cluster.on_a_gpu(lambda: os.abort(), otherwise="died") == "died"
assert cluster.on_a_gpu(lambda: 1 / 0, otherwise="failed") == "failed"
share = PlacementGroupSchedulingStrategy(
    placement_group([{"CPU": 1}]), placement_group_capture_child_tasks=True
)
trial = ray.remote(num_cpus=1, scheduling_strategy=share)(
    lambda: cluster.on_a_gpu(cluster.has_gpu, otherwise=False)
)
assert ray.get(trial.remote()), "as in a trial of Ray Tune, which has no GPU itself"
ray.util.remove_placement_group(share.placement_group)
config = DecodeConfig(frames=4, size=32, features=True, poster_size=0)
content = ContentConfig(encoder="small_cnn")
decode_videos([video], out, config, content=content, report=lambda line: None)
alone = ray.data.from_arrow(pa.table({"uri": [video]})).map_batches(
    DecodeClips,
    fn_constructor_args=[config],
    fn_constructor_kwargs={"content": content},
    compute=ray.data.ActorPoolStrategy(size=1),
    batch_size=1,
    num_gpus=1,
)
assert [row["reason"] for row in alone.take_all()] == [None]
"""


@pytest.mark.ray
def test_a_gpu_that_pytorch_does_not_see_is_left_alone(tmp_path: Path) -> None:
    """As on a machine with a GPU and PyTorch's CPU build."""
    video = numbered(tmp_path / "a.mp4")
    done = subprocess.run(
        [sys.executable, "-c", ON_A_GPU, str(video), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    reasons = "no decoder there uses it, PyTorch does not see it; pip install 'recsys[gpu]'"
    assert reasons in done.stderr
    said = "could not say what it is good for: "
    assert f"{said}The worker died" in done.stderr and f"{said}ZeroDivisionError" in done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())["decode"]
    assert report["ok"] == 1

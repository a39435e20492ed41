"""The script of `make gpu-check`, to its end, on whatever device there is."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.gpu import check, decoding, steps
from tests.gpu.decoding import Scale
from tests.gpu.peaks import peak_flops

ROOT = Path(__file__).parents[2]


def test_it_runs_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    command = [
        sys.executable,
        "tests/gpu/check.py",
        "--device",
        "cpu",
        "--small",
        "--out",
        str(out),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["about"]["device"] == "cpu" and result["seconds"] < 120
    assert result["bars"] == {}  # nothing is claimed for a GPU
    assert result["compiled"]["skipped"] == "no GPU"
    for part in set(check.PARTS) - {"compiled"}:
        assert "failed" not in result[part] and "skipped" not in result[part], result[part]
    assert result["decode"]["cores"]["clips_per_s"] > 0
    assert result["decode"]["hardware"] == {"skipped": "no GPU"}
    assert result["encode"]["small_cnn bfloat16"]["images_per_s"] > 0
    assert result["fused"]["of_the_slower_half"] > 0
    assert result["validate"]["same_as_on_a_cpu"] == 1.0
    assert result["train"]["20000 rows, dim 64, bfloat16, 128 timelines"]["events_per_s"] > 0
    assert result["feed"]["cores"]["events_per_s"] > 0


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["check.py"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch sees no GPU; --device cpu --small"):
        check.make_scale(check.parse(), tmp_path)


def test_a_part_whose_package_is_missing_costs_itself_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    monkeypatch.setitem(check.PARTS, "decode", "decord.here")
    scale = Scale(check.torch.device("cpu"), 1, 0.1, True, tmp_path)
    assert "is not installed" in check.run_part("decode", scale)["skipped"]


def test_a_part_that_takes_too_long_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(decoding, "_steady", lambda *_, **__: threading.Event().wait(60))
    scale = Scale(check.torch.device("cpu"), 1, 0.1, True, tmp_path)
    assert scale.clips()  # are there: what takes too long is the measure
    assert check.run_part("decode", scale, 0.5) == {"failed": "TimeoutError: the time is over"}


WITHOUT_PACKAGES = """
import sys
for name in ("ray", "torchrec", "fbgemm_gpu", "lance"):
    sys.modules[name] = None
from tests.gpu import check
parts = ["encode", "validate", "train"]
settings = ["--device", "cpu", "--small", "--seconds", "0.01", "--out", sys.argv[1]]
sys.argv = ["check.py", *settings, "--parts", *parts]
check.main()
"""


def test_it_runs_where_ray_and_torchrec_are_missing(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    command = [sys.executable, "-c", WITHOUT_PACKAGES, str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["encode"]["small_cnn bfloat16"]["images_per_s"] > 0
    assert result["validate"]["same_as_on_a_cpu"] == 1.0
    assert result["train"]["20000 rows, dim 64, bfloat16, 128 timelines"]["events_per_s"] > 0
    assert result["train"]["sharded"] == {"skipped": "TorchRec or FBGEMM is not installed"}


def test_bars() -> None:
    parts = {
        "decode": {"both": {"clips_per_s": 120.0}, "one_core": {"clips_per_s": 9.0}},
        "encode": {"a": {"share_of_peak": 0.2}, "b": {"share_of_peak": 0.45}, "c": {}},
        "fused": {"of_the_slower_half": 0.89},
        "feed": {"cores": {"events_per_s": 900.0}},
        "train": {
            "10000 rows, dim 64, float32, 128 timelines": {"events_per_s": 1000.0},
            "two cores, dim 64": {"events_per_s": 50.0},
            "10000 rows, dim 256, float32, 128 timelines": {"events_per_s": 630.0},
            "two cores, dim 256": {"events_per_s": 30.0},
        },
    }
    bars = dict(check.bars(parts))
    assert bars["worker_over_one_core"] == {
        "value": pytest.approx(13.333, abs=1e-3),
        "bar": ">= 12.0",
        "holds": True,
    }
    assert bars["encoder_share_of_peak"]["value"] == 0.45
    assert not bars["fused_of_the_slower_half"]["holds"]
    assert bars["training_over_two_cores"] == {"value": 20.0, "bar": ">= 20.0", "holds": True}
    assert bars["training_over_two_cores_at_dim_256"]["holds"]  # 21 ×, more than at 64
    assert bars["steps_made_over_those_learnt"]["value"] == 0.9
    assert bars["gpu_idle_in_training"] == {"value": None, "bar": "<= 0.15", "holds": False}
    assert not any(bar["holds"] for bar in dict(check.bars({})).values())


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("Tesla T4", None),
    ],
)
def test_peaks_by_name(name: str, tflops: float | None) -> None:
    assert peak_flops(name) == (None if tflops is None else tflops * 1e12)


def test_the_card_that_is_measured_is_asked_how_busy_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, asked = iter(["0", "70", "90"]), threading.Event()

    def nvidia_smi(command: list[str], **_: object) -> SimpleNamespace:
        assert command[:2] == ["nvidia-smi", "--id=GPU-1-2-3"]
        answer = next(said, None)
        if answer is None:
            asked.set()
            raise OSError
        return SimpleNamespace(stdout=f"{answer}\n")

    card = SimpleNamespace(uuid="1-2-3")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    monkeypatch.setattr(steps.subprocess, "run", nvidia_smi)
    with steps.gpu_use(Scale(check.torch.device("cuda"), 1, 0.1, True, tmp_path)) as use:
        assert asked.wait(20)
    assert use == {"gpu_idle": pytest.approx(0.2)}  # of 70 and 90: the model is made in the first

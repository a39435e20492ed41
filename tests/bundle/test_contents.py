import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from recsys.bundle.contents import Bundle
from recsys.bundle.stage import publish
from recsys.bundle.versions import find_bundle, new_version
from recsys.errors import InputError
from recsys.features.inputs import ClipShape
from recsys.schema import UNKNOWN_ROW
from tests.bundles import NUM_USERS, NUM_VIDEOS, TinyRun, make_run, trained_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return make_run(tmp_path_factory.mktemp("bundle") / "run", publish={"index": "pq"})


@pytest.fixture
def copy(run: TinyRun, tmp_path: Path) -> Path:
    """One version's folder, free to be damaged."""
    shutil.copytree(run.run / "bundles" / run.version, tmp_path / run.version)
    return tmp_path / run.version


def test_gives_back_what_was_written(run: TinyRun) -> None:
    bundle = Bundle.load(str(run.run))
    assert bundle.version == run.version
    assert bundle.config == run.config
    assert not bundle.recommender.training
    state = bundle.recommender.state_dict()
    for name, value in run.recommender.state_dict().items():
        assert torch.equal(state[name], value), name
    assert set(bundle.vocabs) == {"video", "creator", "category", "context_tab", "user"}
    assert bundle.users is not None
    assert bundle.users.of(["u2", "newcomer", "who"]).tolist() == [[2], [1], [0]]
    assert bundle.vocabs["video"].row("v7") == 7
    assert len(bundle.catalog) == NUM_VIDEOS + 1
    np.testing.assert_array_equal(bundle.vectors, run.vectors)
    assert bundle.num_videos == NUM_VIDEOS
    assert bundle.index is not None
    assert bundle.index.shape == (NUM_VIDEOS + 1, run.recommender.dim)
    assert (bundle.index_facts.kind, bundle.index_facts.recall) == ("pq", 1.0)
    assert bundle.index.margin == bundle.index_facts.margin == 0.0
    assert bundle.manifest["metrics"] == {"hr@10": 0.25, "cold": {"hr@10": None}}


def test_what_is_known_of_videos_is_used_where_it_lies(run: TinyRun) -> None:
    """A machine's servers share it: none has a copy of its own."""
    catalog = Bundle.load(str(run.run)).catalog
    columns = {
        "creator_row": catalog.creator_rows,
        "duration": catalog.durations,
        "duration_bucket": catalog.duration_buckets,
        "num_train_events": catalog.train_events,
    }
    for name, array in columns.items():
        assert np.shares_memory(array, np.asarray(catalog.table.column(name).chunk(0))), name
    assert np.isnan(catalog.durations[UNKNOWN_ROW]) and catalog.durations[1] > 0
    lists = catalog.table.column("category_rows").chunk(0)
    assert np.shares_memory(catalog.categories.values, np.asarray(lists.values))
    written = pq.read_table(str(run.run / "prepare" / "videos.parquet"))
    assert catalog.table.column("creator_row").to_pylist() == written["creator_row"].to_pylist()
    assert catalog.table.column("uri").equals(written.column("uri"))


def test_a_bundle_comes_without_torchs_compiler(run: TinyRun) -> None:
    """Tables on torch's meta device bring it along: 70 MB in each server, and a second."""
    code = (
        "import sys; from recsys.bundle.contents import Bundle; "
        f"Bundle.load({str(run.run)!r}); print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("feature_dim", [None, 5])
def test_a_model_with_clips_comes_back(tmp_path: Path, feature_dim: int | None) -> None:
    """Frames with their CNN, and a frozen encoder's features without."""
    clip = ClipShape(frames=4, size=16, feature_dim=feature_dim)
    content = {"encoder": "small_cnn", "frame_dim": 6, "dim": 6}
    model = {"content": content, "dim": 8, "id_dim": 8, "feature_dim": 4, "state_dim": 16}
    run = make_run(tmp_path, clip=clip, model=model)
    bundle = Bundle.load(str(tmp_path))
    assert bundle.sizes.clip == clip
    state = bundle.recommender.state_dict()
    for name, value in run.recommender.state_dict().items():
        assert torch.equal(state[name], value), name


def test_histories_hold_every_user(run: TinyRun) -> None:
    histories = Bundle.load(str(run.run)).histories
    assert list(histories.user_ids) == [f"u{i}" for i in range(NUM_USERS)]
    assert histories.offsets.tolist() == np.cumsum([0, *range(0, 3 * NUM_USERS, 3)]).tolist()
    expected = [row for rows in run.timelines.column("video_row").to_pylist() for row in rows]
    assert histories.video_rows.tolist() == expected


def test_manifest_has_size_and_sha256_of_every_file(run: TinyRun) -> None:
    folder = run.run / "bundles" / run.version
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert set(listed) == there - {"manifest.json"}
    for name, facts in listed.items():
        data = (folder / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_is_found_from_each_of_three_folders(run: TinyRun) -> None:
    folder = str(run.run / "bundles" / run.version)
    for path in (run.run, run.run / "bundles", folder, f"{run.run}/"):
        assert find_bundle(str(path)) == folder


def test_newest_version_is_current_and_old_ones_stay(tmp_path: Path) -> None:
    first = make_run(tmp_path)
    second = make_run(tmp_path)
    assert first.version < second.version
    assert Bundle.load(str(tmp_path)).version == second.version
    assert Bundle.load(str(tmp_path / "bundles" / first.version)).version == first.version


def test_versions_never_collide_and_sort_by_time() -> None:
    versions = [new_version() for _ in range(1000)]
    assert len(set(versions)) == 1000
    stamps = [version.split("-")[0] for version in versions]
    assert stamps == sorted(stamps)


def test_loads_from_a_uri(run: TinyRun) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(run.run / "bundles"), "/served/bundles", recursive=True)
    try:
        assert Bundle.load("memory://served").version == run.version
        assert Bundle.load(f"memory://served/bundles/{run.version}").version == run.version
    finally:
        memory.rm("/served", recursive=True)


def test_is_written_to_a_uri(run: TinyRun) -> None:
    version = publish(
        trained_of(
            run.config, run.recommender, Bundle.load(str(run.run)).sizes, np.asarray(run.vectors)
        ),
        "memory://written/bundles",
    )
    try:
        bundle = Bundle.load("memory://written")
    finally:
        fsspec.filesystem("memory").rm("/written", recursive=True)
    assert bundle.version == version
    assert bundle.manifest["metrics"] == {}


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "model.safetensors",
        "vectors.npy",
        "index.faiss",
        "index_codes.npy",
        "histories/count_features.npy",
        "users/rows.npy",
        "counts/creator/totals.npy",
    ],
)
def test_a_changed_file_is_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: sha256 is not the manifest's"):
        Bundle.load(str(copy))


def test_a_cut_file_is_named(copy: Path) -> None:
    path = copy / "videos.arrow"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"videos.arrow: 100 bytes, the manifest says \d+"):
        Bundle.load(str(copy))


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "vectors.npy").unlink()
    with pytest.raises(InputError, match="vectors.npy: the file is missing"):
        Bundle.load(str(copy))


def test_a_bundle_without_manifest_was_never_finished(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(InputError, match="manifest.json is missing, the bundle was never finished"):
        Bundle.load(str(copy))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a bundle's manifest"),
        ("[]", "not a bundle's manifest"),
        ('{"format": 99}', "format 99, this recsys reads 12"),
        ('{"format": 7}', "format 7, this recsys reads 12; publish again"),
        ('{"format": 12, "files": {}}', "created, metrics, sizes, version missing"),
    ],
)
def test_a_wrong_manifest_is_refused(copy: Path, text: str, message: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Bundle.load(str(copy))


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle is there; give a run folder"):
        Bundle.load(str(tmp_path))


def test_a_current_that_names_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("../../elsewhere")
    with pytest.raises(InputError, match="is no version's name"):
        Bundle.load(str(tmp_path))


def test_files_that_do_not_fit_each_other_are_refused(copy: Path) -> None:
    """Each file is whole, but the vectors are those of a smaller catalogue."""
    manifest = json.loads((copy / "manifest.json").read_text())
    np.save(copy / "vectors.npy", np.load(copy / "vectors.npy")[:-1])
    data = (copy / "vectors.npy").read_bytes()
    manifest["files"]["vectors.npy"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="are not of one size"):
        Bundle.load(str(copy))


def test_weights_of_another_model_are_refused(copy: Path) -> None:
    path = copy / "config.yaml"
    path.write_text(path.read_text().replace("state_dim: 16", "state_dim: 20"))
    manifest = json.loads((copy / "manifest.json").read_text())
    data = path.read_bytes()
    manifest["files"]["config.yaml"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="model.safetensors: not the weights of this model"):
        Bundle.load(str(copy))


def test_current_is_not_changed_by_a_bundle_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_run(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("recsys.bundle.contents.write_histories", fail)
    with pytest.raises(OSError, match="disk full"):
        make_run(tmp_path)
    folders = [path.name for path in (tmp_path / "bundles").iterdir() if path.is_dir()]
    assert folders == [first.version]
    assert Bundle.load(str(tmp_path)).version == first.version

"""Ready-made content vectors: read, checked, and in place of the frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.config.run import load_config
from recsys.data.vectors import read_vectors
from recsys.errors import InputError
from recsys.features.inputs import ClipShape
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Recommender, table_specs
from recsys.prepare.prepared import Prepared
from recsys.prepare.stage import prepare
from tests.inputs import NUM_VIDEOS, event_rows, video_rows, write_input, write_rows


def column(values: Any, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def test_vectors_get_the_length_of_their_dimension() -> None:
    vectors = read_vectors(column([[2.0, 0.0, 0.0, 0.0], None, [0.0, 0.0, 0.0, 0.0]]), "v")
    assert vectors[0].tolist() == [2.0, 0.0, 0.0, 0.0]
    assert np.isnan(vectors[1]).all()
    assert vectors[2].tolist() == [0.0] * 4
    whole = read_vectors(column([[3, 4]], pa.list_(pa.int64(), 2)), "v")
    np.testing.assert_allclose(whole, [[3 / 5 * 2**0.5, 4 / 5 * 2**0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0], [1.0, 2.0]], "vectors of 1, 2 numbers"),
        ([[], [float("nan")]], "vectors of none numbers"),
        ([None, None], "vectors of none numbers"),
        ([None, [1.0], [float("inf")]], "row 2 has a value that is no finite number"),
        ([[1.0, None]], "row 0 has a value"),
    ],
)
def test_bad_vectors_are_named(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"videos: {message}"):
        read_vectors(column(values, pa.list_(pa.float64())), "videos")


def test_a_list_of_nothing_is_no_vector() -> None:
    """What pandas and polars write for a video without one: NaN, nothing, or a list of either."""
    nan = float("nan")
    vectors = read_vectors(column([[], [nan, nan], [None, nan], None, [3.0, 4.0]]), "videos")
    assert np.isnan(vectors).all(1).tolist() == [True] * 4 + [False]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_vectors_stand_in_for_the_frames(tmp_path: Path) -> None:
    """The last video is only in the events, the one before it has none."""
    rows = {name: values[:-1] for name, values in video_rows().items()}
    given = np.random.default_rng(0).normal(size=(NUM_VIDEOS - 2, 3))
    write_rows({**rows, "embedding": [*given.tolist(), None]}, tmp_path / "videos.parquet")
    videos = {"video_columns": {"uri": "path", "vector": "embedding"}}
    path = write_input(
        tmp_path,
        event_rows(),
        data={"videos": str(tmp_path / "videos.parquet"), **videos},
        model={"content": {"encoder": "small_cnn", "dim": 4}, "dim": 8},
    )
    config = load_config(str(path))
    assert not config.decodes
    report = prepare(config, f"{config.run}/prepare")
    assert report["videos_without_vector"] == 2
    prepared = Prepared(config)
    assert prepared.sizes.clip == ClipShape(frames=1, size=0, feature_dim=3)
    inputs = prepared.video_inputs(with_valid=False)
    ids = prepared.catalog.video_ids().to_pylist()
    batch = inputs.batch(np.array([0, ids.index("v0"), ids.index("v8"), ids.index("v9")]))
    assert batch.clip_index is not None and batch.clip_index.tolist() == [-1, 0, -1, -1]
    assert batch.clips is not None
    wanted = given[0] * np.sqrt(3) / np.linalg.norm(given[0])
    np.testing.assert_allclose(batch.clips.numpy(), wanted[None, None], rtol=1e-5)
    tables = PlainTables(table_specs(config.model, prepared.sizes))
    model = Recommender(config.model, prepared.sizes, tables=tables).eval()
    first = model.encode_videos(batch)
    batch.clips = -batch.clips
    changed = (model.encode_videos(batch) - first).abs().amax(-1) > 1e-6
    assert changed.tolist() == [False, True, False, False]
    assert torch.isfinite(first).all()

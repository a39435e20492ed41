"""A video that was handed in before a swap: the next version has it as its own publishing would."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.bundle.versions import CURRENT
from recsys.data.catalog import Catalog
from recsys.data.clip_store import ClipRows
from recsys.decode.clips import DecodeClips
from recsys.features.batches import VideoInputs
from recsys.features.inputs import ClipShape
from recsys.inference.encode import all_vectors
from recsys.serve.api import make_api
from recsys.serve.service import Service
from tests import videos
from tests.bundles import DECODES, FRAMES, NEW, OLD, SIZE, make_versions


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Two versions whose models look at frames."""
    return make_versions(tmp_path, ["/none.mp4"], clip=ClipShape(FRAMES, SIZE), **DECODES)


def published(bundle: Bundle, path: Path) -> np.ndarray:
    """The vector (Y,) that decode and publish make of a file, of creator c2, new in the table."""
    decode = bundle.config.decode.model_copy(update={"features": False})
    decoded = DecodeClips(decode)(pa.table({"uri": [str(path)]}))
    frames = decoded.column("frames").combine_chunks().flatten().to_numpy()
    clips = frames.reshape(1, FRAMES, SIZE, SIZE, 3)
    there = bundle.catalog.table
    row = {name: there.column(name)[0].as_py() for name in there.column_names}
    row |= {"creator_row": 2, "category_rows": []}
    catalog = Catalog.from_table(
        pa.concat_tables([there, pa.Table.from_pylist([row], schema=there.schema)])
    )
    total = len(catalog)
    # Too few events of it for an ID of its own, and the only one with a clip here.
    clip_rows = ClipRows(np.where(np.arange(total) == total - 1, 0, -1))
    inputs = VideoInputs(catalog, np.zeros(total, np.int64), clip_rows, lambda rows: clips[rows])
    device = next(bundle.recommender.parameters()).device
    vector: np.ndarray = all_vectors(bundle.recommender, inputs, device)[-1].numpy()
    return vector


def test_its_vector_after_a_swap_is_that_of_decode_and_publish(
    service: Service, bundles: Path, tmp_path: Path
) -> None:
    """Over HTTP by its cosines with all 30 others, which tell its direction in 8 dimensions."""
    path = videos.numbered(tmp_path / "one.mp4")
    client = TestClient(make_api(service))
    added = client.post(
        "/v1/videos",
        params={"video_id": "new", "creator_id": "c2"},
        content=path.read_bytes(),
        headers={"Content-Type": "video/mp4"},
    )
    assert added.status_code == 201
    for version in (OLD, NEW):
        (bundles / CURRENT).write_text(version + "\n")
        assert service.versions is not None
        service.versions.look()
        bundle = Bundle.load(str(bundles / version))
        expected, dim = published(bundle, path), bundle.recommender.dim
        told = client.get("/v1/similar", params={"video_id": "new", "k": 40}).json()
        assert told["version"] == version
        others = bundle.vectors[1:, :dim]
        lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(expected[:dim])
        cosines = others @ expected[:dim] / lengths
        scores = {item["video_id"]: item["score"] for item in told["items"]}
        assert scores == pytest.approx(
            {f"v{row + 1}": cosine for row, cosine in enumerate(cosines)}, abs=1e-5
        )
        row = np.array([service.recommender.catalogue.row("new")])
        vector = service.recommender.catalogue.vectors(row)[0].numpy()
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)

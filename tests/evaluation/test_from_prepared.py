"""What a prepared run says of its test users."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.run_folder import RunFolder
from recsys.evaluation import from_prepared
from recsys.evaluation.from_prepared import _user_groups, known_likes
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST, TRAIN, VALID
from tests.steps import COLUMNS, make_config


def test_users_have_the_groups_of_their_row_and_others_none(tmp_path: Path) -> None:
    """In the order of the users asked for; of a user without a group it is missing too."""
    tree: dict[str, Any] = {"events": "unused", "columns": COLUMNS.model_dump()}
    config = make_config(data={**tree, "user_columns": {"groups": ["region"]}})
    folder = RunFolder(str(tmp_path))
    Path(folder.users).parent.mkdir(parents=True)
    known = {"user_id": ["b", "a", "c"], "region": ["north", "south", None]}
    pq.write_table(pa.table(known), folder.users)
    prepared = cast(Prepared, SimpleNamespace(config=config, folder=folder))
    groups = _user_groups(prepared, ["a", "zoe", "c", "b"])
    assert groups == {"region": ["south", None, None, "north"]}


@pytest.mark.parametrize(
    ("most", "lists", "share"),
    [(4, [[7], [3, 7], [5]], 1.0), (3, [[7], [3, 7]], 0.5), (1, [[7], [3, 7]], 0.5)],
    ids=["all", "one partition", "never none"],
)
def test_likes_before_the_test_are_of_so_many_partitions_as_memory_allows(
    most: int, lists: list[list[int]], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what was not liked, and without the test; the share of the users is known."""
    columns = ("video_row", "time_ms", "positive", "split")
    users = [
        ([[7, 2, 9], [3, 7]], [[10, 11, 12], [13, 14]], [[1, 0, 1], [1, 1]]),
        ([[5]], [[15]], [[1]]),
    ]
    splits = [[[TRAIN, TRAIN, TEST], [TRAIN, VALID]], [[VALID]]]
    parts = [
        pa.table(dict(zip(columns, (*lists, split), strict=True)))
        for lists, split in zip(users, splits, strict=True)
    ]
    prepared = cast(Prepared, SimpleNamespace(partitions=["a", "b"], columns=lambda n, _: parts[n]))
    monkeypatch.setattr(from_prepared, "MOST_LIKES", most)
    likes = known_likes(prepared)
    assert [likes.lists[at].tolist() for at in range(len(likes.lists))] == lists
    assert likes.time_ms.tolist() == [10, 13, 14, 15][: sum(map(len, lists))]
    assert likes.split.tolist() == [TRAIN, TRAIN, VALID, VALID][: sum(map(len, lists))]
    assert likes.share_of_users == share and likes.before(VALID).share_of_users == share

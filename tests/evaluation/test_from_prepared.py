"""What a prepared run says of its test users."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.run_folder import RunFolder
from recsys.evaluation.from_prepared import _user_groups
from recsys.prepare.prepared import Prepared
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

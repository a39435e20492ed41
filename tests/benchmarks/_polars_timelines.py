"""The timelines of `_events.py` made by polars, all at once in memory: a measure for prepare's.

The same rows as `recsys prepare` writes: without repeats, in time order, ids as rows, split by
time. It checks nothing, counts nothing by the hour, and needs all events in memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

EVENT = ["user", "ms", "video"]
LISTS = ["video_row", "ms", "click", "labels", "watched", "tab_row", "split"]


def main(folder: Path, valid_from: int, test_from: int) -> None:
    videos = pl.scan_parquet(folder / "videos.parquet").select("video", "duration")
    rows = videos.with_row_index("video_row", offset=1)
    tabs = pl.DataFrame({"tab": [str(tab) for tab in range(1, 11)]}).lazy()
    share = (pl.col("seconds") / pl.col("duration").cast(pl.Float32)).clip(0, 2)
    split = pl.when(pl.col("ms") < valid_from).then(0).when(pl.col("ms") < test_from).then(1)
    (
        pl.scan_parquet(folder / "events" / "*.parquet")
        .sort([*EVENT, "click"], descending=[False, False, False, True])
        .unique(EVENT, keep="first", maintain_order=True)
        .join(rows, on="video", how="left", maintain_order="left")
        .join(tabs.with_row_index("tab_row", offset=1), on="tab", how="left", maintain_order="left")
        .with_columns(
            split=split.otherwise(2).cast(pl.Int8),
            labels=pl.concat_list("click", "long_view"),
            watched=pl.concat_list("seconds", share),
        )
        .group_by("user", maintain_order=True)
        .agg(LISTS)
        .collect()
        .write_parquet(folder / "polars.parquet")
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

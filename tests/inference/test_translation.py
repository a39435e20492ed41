"""Another model's numbers: what it knows keeps its meaning, what it does not is 0 or last."""

import numpy as np
import torch

from recsys.config.run import EvaluateConfig
from recsys.data.ragged import Ragged
from recsys.data.vocab import Vocab
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import evaluate_ranker
from recsys.features.timelines import Timelines
from recsys.inference.ranker import dot_product
from recsys.inference.translation import ModelVocabs, Translation

OURS = ModelVocabs(
    {
        "video": Vocab(["a", "b", "c"]),
        "context_tab": Vocab(["home", "search"]),
        "user": Vocab(["age=20", "region=south"]),
    },
    ("tab",),
    ("click", "like"),
)
THEIRS = ModelVocabs(
    {
        "video": Vocab(["c", "x", "a"]),
        "context_tab": Vocab(["search"]),
        "context_device": Vocab(["phone"]),
        "user": Vocab(["region=north", "age=20"]),
    },
    ("device", "tab"),
    ("share", "click"),
    watch_dim=2,
)


def timelines() -> Timelines:
    return Timelines(
        user_ids=["u"],
        offsets=np.array([0, 3]),
        video_rows=np.array([1, 2, 3]),
        time_ms=np.arange(3),
        positive=np.array([1, 0, 1], np.int8),
        labels=np.array([[1, 0], [0, 1], [1, 1]], np.int8),
        watched=np.zeros((3, 0), np.float32),
        context_rows=np.array([[2], [1], [0]]),
        split=np.zeros(3, np.int8),
        count_features=np.arange(3 * 38).reshape(3, 38).astype(np.float32),
        user_rows=np.array([[1, 2]]),
    )


def test_rows_columns_and_tasks_are_found_by_name() -> None:
    translated = Translation.between(OURS, THEIRS).timelines(timelines())
    assert translated.video_rows.tolist() == [3, 0, 1]
    # A device is not known here; "search" is their row 1, "home" they do not know.
    assert translated.context_rows.tolist() == [[0, 1], [0, 0], [0, 0]]
    # Nobody shares here; click is their second task.
    assert translated.labels.tolist() == [[0, 1], [0, 0], [0, 1]]
    # How long somebody watched they want to know, and nobody says it here.
    assert translated.watched.tolist() == [[0, 0]] * 3
    assert translated.user_rows.tolist() == [[2, 0]]
    # Each of our features is its own number; those of what we do not count are 0.
    ours = {name: number for number, name in enumerate(OURS.count_layout.columns)}
    expected = [ours.get(name, 0) for name in THEIRS.count_layout.columns]
    assert translated.count_features[0].tolist() == expected
    theirs = dict(zip(THEIRS.count_layout.columns, translated.count_features[1], strict=True))
    assert theirs["everything/total/rate:click"] == 38 + 1
    assert theirs["everything/total/rate:share"] == 0, "nobody shares here"
    assert theirs["context_tab/recent/rate:click"] == 38 + 36
    assert theirs["context_device/total/count"] == 0, "a device is not known here"
    assert translated.positive.tolist() == [1, 0, 1] and translated.time_ms.tolist() == [0, 1, 2]


def test_logits_come_back_in_our_order() -> None:
    translated = Translation.between(OURS, THEIRS).logits(np.array([[5.0, 7.0]]))
    assert translated[0, 0] == 7 and np.isnan(translated[0, 1])


def test_a_model_of_the_same_names_changes_nothing() -> None:
    same = Translation.between(OURS, OURS)
    translated = same.timelines(timelines())
    for name in ("video_rows", "labels", "context_rows", "count_features"):
        assert np.array_equal(getattr(translated, name), getattr(timelines(), name)), name
    assert same.logits(np.array([[1.0, 2.0]])).tolist() == [[1, 2]]


def test_nothing_in_common_is_no_trouble() -> None:
    other = ModelVocabs({"video": Vocab(["z"])}, (), ())
    translation = Translation.between(OURS, other)
    seen = translation.timelines(timelines())
    assert seen.video_rows.tolist() == [0, 0, 0]
    assert (seen.labels.shape, seen.context_rows.shape) == ((3, 0), (3, 0))
    assert not seen.user_rows.any()
    ours = OURS.count_layout.columns
    places = [ours.index(name) for name in other.count_layout.columns]
    assert seen.count_features[0].tolist() == places, "the positive flag and videos we all have"
    assert np.isnan(translation.logits(np.zeros((3, 0)))).all()


def test_unknown_videos_come_last_in_random_order() -> None:
    """Ten videos, of which the other model knows 1 and 2; the user liked 9."""
    ours = ModelVocabs({"video": Vocab([str(i) for i in range(1, 11)])}, (), ())
    theirs = ModelVocabs({"video": Vocab(["2", "1"])}, (), ())
    ranker = Translation.between(ours, theirs).ranker(
        dot_product(torch.tensor([[1.0]]), torch.tensor([[9.0], [-3.0], [-5.0]]))
    )
    assert ranker(0, 1)[0, [1, 2]].tolist() == [-5, -3]
    videos = VideoTable(np.zeros(11, np.bool_), np.zeros(11, np.int64))
    data = RankingSet(["u"], Ragged.from_lists([[9]]), Ragged.empty(1), videos)
    translated = evaluate_ranker(data, ranker, EvaluateConfig(k=(4,))).slices["all"].values
    # Places 3 and 4 go to two of the eight others.
    assert translated["hr@4"].tolist() == [2 / 8]

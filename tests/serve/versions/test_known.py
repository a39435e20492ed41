import copy
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.bundle.contents import Bundle
from recsys.config.run import ServeConfig
from recsys.data.places import Ids, Places
from recsys.errors import InputError
from recsys.serve.recommender import ServingRecommender
from recsys.serve.versions.known import NOBODY, check_known, known_answers
from tests.bundles import TinyRun


@pytest.fixture
def bundle(tiny: TinyRun) -> Bundle:
    return Bundle.load(str(tiny.run))


def test_publishing_leaves_answers_of_users_with_and_without_events(bundle: Bundle) -> None:
    assert bundle.known is not None
    asked = [known["user_id"] for known in bundle.known]
    assert asked == ["u0", "u3", "u6", "u9", NOBODY]
    assert all(len(known["scores"]) == len(known["video_ids"]) == 10 for known in bundle.known)
    assert set(bundle.known[0]["probabilities"]) == {"click", "like"}


def test_a_bundle_knows_its_own_answers(bundle: Bundle) -> None:
    check_known(bundle)
    assert known_answers(bundle) == bundle.known


def test_what_an_operator_sets_changes_no_known_answer(bundle: Bundle) -> None:
    serve = bundle.config.serve.model_copy(update={"explore": 0.5, "rank": "like"})
    check_known(replace(bundle, config=bundle.config.model_copy(update={"serve": serve})))


def test_users_are_indexed_once_to_check_and_to_serve(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes seconds where there are ten million, at each start and for each version."""
    users, indexed, make = bundle.histories.user_ids, list[int](), Places.__init__

    def counted(self: Places, ids: pa.Array) -> None:
        if isinstance(users, Ids) and ids is users.array:
            indexed.append(len(ids))
        make(self, ids)

    monkeypatch.setattr(Places, "__init__", counted)
    check_known(bundle)
    ServingRecommender(bundle.with_settings(ServeConfig()))
    assert indexed == [len(users)]


@pytest.mark.parametrize("part", ["query", "rank"])
def test_other_weights_are_refused(bundle: Bundle, part: str) -> None:
    model = copy.deepcopy(bundle.recommender)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if part in name:
                parameter.mul_(1.05)
    with pytest.raises(InputError, match=r"are not those of its publishing: .* publish again"):
        check_known(replace(bundle, recommender=model))


def test_another_order_of_the_vectors_is_refused(bundle: Bundle) -> None:
    vectors = np.roll(bundle.vectors, 1, axis=0)
    with pytest.raises(InputError, match="not those of its publishing"):
        check_known(replace(bundle, vectors=vectors))


@pytest.mark.parametrize(
    "answers", [[{}], [3], [{"user_id": "u1", "now_ms": "x"}], {"a": 1}], ids=str
)
def test_answers_that_are_none_are_refused(bundle: Bundle, answers: object) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        check_known(replace(bundle, known=answers))  # type: ignore[arg-type]

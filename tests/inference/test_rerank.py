from dataclasses import replace

import numpy as np
import pytest

from recsys.config.run import RerankConfig
from recsys.data.ragged import Ragged, padded_lists
from recsys.errors import InputError
from recsys.inference import rerank
from recsys.inference.rerank import (
    Reranker,
    VideoTraits,
    creator_prices,
    is_active,
    relative_relevance,
)

TRAITS = VideoTraits(
    creator_row_N=np.array([0, 1, 1, 2, 3]),
    price_N=np.array([0, 1.0, 1.0, 0.5, 0]),
    # Videos 1 and 2 are of category 1, video 3 of 1 and 2, video 4 of 2.
    categories=Ragged.from_lists([[], [1], [1], [1, 2], [2]]),
    is_new_N=np.array([0, 0, 0, 0, 1], np.bool_),
)
VIDEOS = np.array([[1, 2, 3, 4]])
RELEVANCE = np.array([[1.0, 0.9, 0.8, 0.1]])


def shown(k: int = 4, *, page: int = 1, **weights: float) -> list[int]:
    places = Reranker(RerankConfig(page=page, **weights), TRAITS).order(VIDEOS, RELEVANCE, k)
    return np.take_along_axis(VIDEOS, places, 1)[0].tolist()


def test_without_weights_relevance_alone_counts() -> None:
    assert not is_active(RerankConfig())
    assert shown() == [1, 2, 3, 4] and shown(2) == [1, 2]


@pytest.mark.parametrize(
    "weights",
    [{"creator_exposure": 0.1}, {"diversity": 0.1}, {"new_videos": 0.1}, {"drawn_places": 1}],
)
def test_any_weight_makes_it_active(weights: dict[str, float]) -> None:
    assert is_active(RerankConfig(**weights)) is True
    assert is_active(RerankConfig()) is False


@pytest.mark.parametrize("k", [3, 40, 200])
@pytest.mark.parametrize("values", [3, 20])
def test_equal_values_keep_their_order(k: int, values: int) -> None:
    """The k best of 200, by sorting all and by setting the others apart first."""
    relevance = np.random.default_rng(0).integers(0, values, (2, 200)) / 2
    videos = np.tile(np.arange(1, 201), (2, 1))
    places = Reranker(RerankConfig(candidates=200, page=1), VideoTraits()).order(
        videos, relevance, k
    )
    for row, order in zip(relevance, places, strict=True):
        assert order.tolist() == sorted(range(200), key=lambda place: -row[place])[:k]


def test_creator_prices_are_subtracted() -> None:
    # Values 1 - 0.3, 0.9 - 0.3, 0.8 - 0.15, 0.1.
    assert shown(creator_exposure=0.3) == [1, 3, 2, 4]
    assert shown(creator_exposure=0.95) == [3, 4, 1, 2]


def test_new_videos_are_lifted() -> None:
    assert shown(new_videos=0.75) == [1, 2, 4, 3]
    assert shown(1, new_videos=1) == [4]


def test_diversity_by_hand() -> None:
    # First 1. Likeness to it: 2 → 1, 3 → 1/√2, 4 → 0. Values with weight 1: -0.1, 0.093, 0.1.
    # So 4. Likeness to both, halved: 2 → 1/2, 3 → (1/√2 + 1/√2)/2. Values 0.4 and 0.093.
    assert shown(diversity=1) == [1, 4, 2, 3]
    # With 0.3: 2 → 0.6, 3 → 0.588, 4 → 0.1. Then 3 → 0.8 - 0.3/√2, 4 → 0.1.
    assert shown(diversity=0.3) == [1, 2, 3, 4]


def test_each_user_has_a_list_of_their_own() -> None:
    videos = np.array([[1, 2, 4], [4, 3, 1]])
    relevance = np.array([[1.0, 0.95, 0.9], [1.0, 0.95, 0.9]])
    places = Reranker(RerankConfig(diversity=1, page=1), TRAITS).order(videos, relevance, 3)
    assert np.take_along_axis(videos, places, 1).tolist() == [[1, 4, 2], [4, 1, 3]]


@pytest.mark.parametrize("weights", [{"creator_exposure": 0.1}, {"diversity": 0.5}])
@pytest.mark.parametrize("videos", [[0, 2, 1, 0], [2, 1, 0, 0]])
def test_empty_places_come_last(weights: dict[str, float], videos: list[int]) -> None:
    table = np.array([videos])
    # More than there are: each place once, and no video twice.
    config = RerankConfig(page=1, **weights)
    places = Reranker(config, TRAITS).order(table, np.ones((1, 4)), 9)
    assert sorted(places[0].tolist()) == [0, 1, 2, 3]
    shown = np.take_along_axis(table, places, 1)[0].tolist()
    assert sorted(shown[:2]) == [1, 2] and shown[2:] == [0, 0]


def test_a_short_list_is_the_beginning_of_the_long_one() -> None:
    rng = np.random.default_rng(0)
    videos = rng.permuted(np.tile(np.arange(1, 201), (30, 1)), axis=1)
    relevance = rng.random((30, 200))
    reranker = Reranker(RerankConfig(), VideoTraits())
    long = reranker.order(videos, relevance, 200)
    for k in (1, 5, 40, 49, 50, 51):
        assert (reranker.order(videos, relevance, k) == long[:, :k]).all()


def test_on_a_page_the_most_relevant_come_first() -> None:
    """Values 0.7, 0.6, 0.65, 0.1: the first page is 1 and 3, the second 2 and 4."""
    assert shown(creator_exposure=0.3, page=2) == [1, 3, 2, 4]
    # Values 0.05, -0.05, 0.325, 0.1: the first page is 3 and 4.
    assert shown(creator_exposure=0.95, page=2) == [3, 4, 1, 2]
    assert shown(new_videos=1, page=2) == [1, 4, 2, 3]
    # Part of a page is its beginning, and one page holds them all.
    assert shown(1, new_videos=1, page=2) == [1]
    assert shown(creator_exposure=0.95, page=4) == [1, 2, 3, 4]


def test_only_the_candidates_are_put_in_order() -> None:
    config = RerankConfig(new_videos=1, candidates=2, page=1)
    assert Reranker(config, TRAITS).order(VIDEOS, RELEVANCE, 3).tolist() == [[0, 1, 2]]
    assert Reranker(config, TRAITS).order(VIDEOS[:, ::-1], RELEVANCE, 1).tolist() == [[0]]
    twice = Reranker(config, TRAITS).order(np.repeat(VIDEOS, 2, 0), np.repeat(RELEVANCE, 2, 0), 9)
    assert twice.tolist() == [[0, 1, 2, 3]] * 2


def test_lists_of_equal_length() -> None:
    """None, an empty one, one of one and one of four."""
    rows, weights = padded_lists(np.array([0]), np.array([], int))
    assert (rows.shape, weights.tolist()) == ((0, 1), [])
    rows, weights = padded_lists(np.array([0, 0, 1, 5]), np.array([7, 1, 2, 3, 4]))
    assert rows.tolist() == [[0, -1, -1, -1], [7, -1, -1, -1], [1, 2, 3, 4]]
    assert weights.tolist() == [1, 1, 0.5]


def drawn(
    user: str, listed: list[int], excluded: tuple[int, ...] = (), **settings: int
) -> list[int]:
    """Creators 1 to 5 have videos 1, 2; 3, 4; …; a video's score is its row."""
    traits = VideoTraits(creator_row_N=np.array([0, *np.repeat(range(1, 6), 2)]))
    reranker = Reranker(RerankConfig(**settings), traits)
    args = np.array(listed), np.array(excluded, int), lambda rows: rows * 1.0
    return reranker.with_drawn(user, *args).tolist()


def test_the_last_places_of_a_page_are_drawn() -> None:
    assert drawn("u", [1, 3, 5, 7], drawn_places=0) == [1, 3, 5, 7]
    order = drawn("u", [1, 3, 5, 7], page=2, drawn_places=1)
    assert order[0] == 1 and order[2] == 3  # what has lost its place moves on
    assert {order[1], order[3]} <= {2, 4, 6, 8, 10} and order[1] != order[3]
    assert order == drawn("u", [1, 3, 5, 7], page=2, drawn_places=1)
    lots = {tuple(drawn(f"u{i}", [1], page=1, drawn_places=1)) for i in range(60)}
    assert lots == {(2,), (4,), (6,), (8,), (10,)}  # the better video of each creator


def test_a_creator_without_a_video_left_draws_nothing() -> None:
    everything = (2, 4, 6, 8, 9, 10)
    assert drawn("u", [1, 3, 5, 7], everything, page=4, drawn_places=2) == [1, 3, 5, 7]


def test_relative_relevance_of_large_scores() -> None:
    """Each user's by their own best."""
    scores = np.array([[1000.0, 1000 - np.log(4)], [-3.0, -3.0]])
    assert relative_relevance(scores) == pytest.approx(np.array([[1, 0.25], [1, 1]]))


def test_prices_even_out_what_costs_nothing() -> None:
    """40 users find videos 1 to 4, each of its own creator, equally good, 1 by a hair the best."""
    videos = np.tile([1, 2, 3, 4], (40, 1))
    relevance = np.tile([1, 0.999, 0.998, 0.997], (40, 1))
    relevance[:, 1:] -= np.random.default_rng(0).random((40, 3)) * 0.05
    traits = VideoTraits(creator_row_N=np.arange(5))
    config = RerankConfig(creator_exposure=0.5, page=1)
    prices = creator_prices(config, traits, videos, relevance)
    priced = VideoTraits(creator_row_N=np.arange(5), price_N=prices)

    def exposure(config: RerankConfig) -> list[int]:
        places = Reranker(config, priced).order(videos, relevance, 1)
        return np.bincount(videos[0][places[:, 0]], minlength=5)[1:].tolist()

    assert exposure(RerankConfig()) == [40, 0, 0, 0]
    assert min(exposure(config)) >= 3
    assert prices[0] == 0


def first_prices(rounds: int, monkeypatch: pytest.MonkeyPatch, **weights: float) -> list[float]:
    """Of two creators' videos, for ten users who all find the first a little better."""
    monkeypatch.setattr(rerank, "ROUNDS", rounds)
    config = RerankConfig(creator_exposure=10, page=1, **weights)
    traits = replace(TRAITS, creator_row_N=np.array([0, 1, 2, 2, 2]))
    videos, relevance = np.tile([1, 3], (10, 1)), np.tile([1.0, 0.9], (10, 1))
    prices = creator_prices(config, traits, videos, relevance)
    assert prices[[0, 4]].tolist() == [0, prices[2]]
    return prices[1:3].tolist()


def test_prices_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """An even share is 5. At first all 10 are shown creator 1, then, at that price, creator 2:
    two thirds of the way there. Diversity is left out of account.
    """
    assert first_prices(1, monkeypatch) == pytest.approx([np.log(1 + 10 / 5), 0])
    expected = pytest.approx([np.log(1 + 10 / 3 / 5), np.log(1 + 20 / 3 / 5)])
    assert first_prices(2, monkeypatch) == expected
    assert first_prices(2, monkeypatch, diversity=5) == expected


def test_an_only_creator_has_an_even_share() -> None:
    """Whatever the price, it is shown: log(1 + 1)."""
    traits = VideoTraits(creator_row_N=np.array([0, 1, 1]))
    videos, relevance = np.tile([2, 1], (7, 1)), np.tile([1.0, 0.5], (7, 1))
    prices = creator_prices(RerankConfig(creator_exposure=1, page=2), traits, videos, relevance)
    assert prices == pytest.approx([0, np.log(2), np.log(2)])


def test_videos_without_categories_are_like_each_other() -> None:
    traits = VideoTraits(categories=Ragged.from_lists([[], [], [], [1]]))
    places = Reranker(RerankConfig(diversity=1, page=1), traits).order(
        np.array([[1, 2, 3]]), np.array([[1.0, 0.9, 0.8]]), 3
    )
    assert places.tolist() == [[0, 2, 1]]


def test_videos_that_follow_are_as_if_they_had_been_there() -> None:
    """One by one, with more categories than any before, of creators known and new; then changed."""
    creators, new = np.array([0, 1, 1, 2, 3, 1, 9, 0]), np.array([0, 1, 0, 0, 1, 0, 1, 1], bool)
    kinds = [[], [1], [2], [1], [2], [1, 2, 3], [4], []]
    prices = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    config = RerankConfig(
        creator_exposure=0.3, diversity=0.4, new_videos=0.2, drawn_places=2, page=4
    )

    def traits(rows: list[int]) -> VideoTraits:
        of_rows = Ragged.from_lists([kinds[row] for row in rows])
        return VideoTraits(creators[rows], prices[rows], of_rows, new[rows])

    def lists(reranker: Reranker) -> list[list[int]]:
        videos, relevance = np.arange(1, 8)[None], np.linspace(1, 0.4, 7)[None]
        order = reranker.order(videos, relevance, 7).tolist()
        args = np.array([1, 3, 5, 7]), np.array([2]), lambda rows: rows * 1.0
        return order + [reranker.with_drawn(f"u{n}", *args).tolist() for n in range(40)]

    growing = Reranker(config, traits([0, 1, 2, 3, 4]))
    for row in (5, 6, 7):
        growing.put(np.array([row]), traits([row]))
    assert lists(growing) == lists(Reranker(config, traits(list(range(8)))))
    creators[5], kinds[5], prices[5] = 9, [3], 0
    growing.put(np.array([5]), traits([5]))
    assert lists(growing) == lists(Reranker(config, traits(list(range(8)))))


@pytest.mark.parametrize("at_once", [True, False])
def test_a_creator_who_comes_with_two_videos_is_drawn_like_any_other(at_once: bool) -> None:
    """And videos that follow may come together with others that change."""
    creators = np.array([0, 1, 1, 2, 3, 3])
    config = RerankConfig(page=3, drawn_places=2)
    grown = Reranker(config, VideoTraits(creator_row_N=creators[:4]))
    for rows in [[4, 5]] if at_once else [[4], [5]]:
        grown.put(np.array(rows), VideoTraits(creator_row_N=creators[rows]))
    assert lots(grown) == lots(Reranker(config, VideoTraits(creator_row_N=creators)))
    creators = np.array([0, 1, 1, 4, 3, 3, 5])
    grown.put(np.array([3, 6]), VideoTraits(creator_row_N=creators[[3, 6]]))
    assert lots(grown) == lots(Reranker(config, VideoTraits(creator_row_N=creators)))


def lots(reranker: Reranker) -> list[list[int]]:
    """What thirty users are shown in place of videos 1 and 2: of each creator the newest."""
    args = np.array([1, 2]), np.zeros(0, np.int64), lambda rows: rows * 1.0
    return [reranker.with_drawn(f"u{n}", *args).tolist() for n in range(30)]


def test_an_unknown_creator_takes_part_in_no_lot() -> None:
    """Videos 1 and 2 are of nobody known, 3 of one creator."""
    traits = VideoTraits(creator_row_N=np.array([0, 0, 0, 1]))
    reranker = Reranker(RerankConfig(page=2, drawn_places=2), traits)
    for user in ("a", "b", "c"):
        listed = reranker.with_drawn(
            user, np.array([1, 2]), np.array([], int), lambda rows: rows * 1.0
        )
        assert listed.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("weights", "source"),
    [
        ({"creator_exposure": 1}, "data.video_columns.creator"),
        ({"drawn_places": 1}, "data.video_columns.creator"),
        ({"diversity": 1}, "data.video_columns.categories"),
        ({"new_videos": 1}, "the time of each video's first event"),
    ],
)
def test_what_is_missing_is_named(weights: dict[str, float], source: str) -> None:
    (name,) = weights
    with pytest.raises(InputError, match=rf"^rerank.{name}=1.*: needs {source}; set it or leave"):
        Reranker(RerankConfig(**weights), VideoTraits())


def test_what_is_not_known_cannot_be_traded_for() -> None:
    with pytest.raises(InputError, match=r"rerank.diversity=0.5: needs data.video_columns.cat"):
        Reranker(RerankConfig(diversity=0.5), VideoTraits())
    with pytest.raises(InputError, match="creator_exposure"):
        Reranker(RerankConfig(creator_exposure=1), VideoTraits())


def some_traits(number: int, most_categories: int, seed: int) -> VideoTraits:
    rng = np.random.default_rng(seed)
    lengths = [0, *rng.integers(0, most_categories + 1, number - 1)]
    lengths[-1] = most_categories
    return VideoTraits(
        creator_row_N=np.array([0, *rng.integers(1, 9, number - 1)]),
        price_N=rng.random(number),
        categories=Ragged.from_lists(
            [sorted(rng.choice(np.arange(1, 7), n, replace=False).tolist()) for n in lengths]
        ),
        is_new_N=rng.random(number) < 0.3,
    )


def joined(first: VideoTraits, second: VideoTraits) -> VideoTraits:
    """Those of the second behind those of the first."""
    parts = (first, second)
    lists = [part.categories[i].tolist() for part in parts for i in range(len(part.categories))]
    return VideoTraits(
        creator_row_N=np.concatenate([part.creator_row_N for part in parts]),
        price_N=np.concatenate([part.price_N for part in parts]),
        categories=Ragged.from_lists(lists),
        is_new_N=np.concatenate([part.is_new_N for part in parts]),
    )


@pytest.mark.parametrize(
    "weights",
    [
        {"creator_exposure": 0.6},
        {"new_videos": 0.6},
        {"diversity": 0.8},
        {"creator_exposure": 0.3, "new_videos": 0.3, "diversity": 0.5, "drawn_places": 2},
    ],
)
@pytest.mark.parametrize(("before", "after"), [(2, 5), (5, 2)])
def test_many_that_follow_at_once_are_as_if_they_had_been_there(
    weights: dict[str, float], before: int, after: int
) -> None:
    """Those with more categories than any before, or fewer; and facts that change."""
    first, second = some_traits(40, before, 1), some_traits(20, after, 2)
    config = RerankConfig(page=5, candidates=60, **weights)
    grown, whole = Reranker(config, first), Reranker(config, joined(first, second))
    grown.put(np.arange(40, 60), some_traits(20, 3, 3))
    grown.put(np.arange(40, 60), second)
    rng = np.random.default_rng(4)
    videos, relevance = rng.permuted(np.tile(np.arange(1, 60), (8, 1)), axis=1), rng.random((8, 59))
    relevance = -np.sort(-relevance, axis=1)
    assert (grown.order(videos, relevance, 20) == whole.order(videos, relevance, 20)).all()
    drawn = [
        one.with_drawn("u1", videos[0, :20], np.zeros(0, np.int64), lambda rows: rows % 7)
        for one in (grown, whole)
    ]
    np.testing.assert_array_equal(*drawn)


def test_weights_of_a_curve_go_up_and_may_be_set() -> None:
    for lever in rerank.LEVERS:
        assert list(lever.grid) == sorted(set(lever.grid)), lever.setting
        for weight in lever.grid:
            assert is_active(RerankConfig(**{lever.setting: weight})), lever.setting


def test_prices_leave_diversity_out_of_account() -> None:
    videos = np.tile(np.array([[1, 2, 3, 4]]), (4, 1))
    relevance = np.tile(np.array([[1.0, 0.9, 0.8, 0.7]]), (4, 1))
    alone, both = (
        creator_prices(
            RerankConfig(creator_exposure=0.3, page=2, diversity=diversity),
            replace(TRAITS, price_N=None),
            videos,
            relevance,
        )
        for diversity in (0.0, 1.5)
    )
    np.testing.assert_array_equal(alone, both)


def test_a_page_draws_no_creator_twice() -> None:
    """Each of three creators has ten videos, so that one drawn again would find another."""
    traits = VideoTraits(creator_row_N=np.array([0, *np.repeat([1, 2, 3], 10)]))
    reranker = Reranker(RerankConfig(page=3, drawn_places=3), traits)
    for user in range(20):
        shown = reranker.with_drawn(
            f"u{user}", np.arange(1, 7), np.zeros(0, np.int64), lambda rows: -rows
        )
        creators = traits.creator_row_N[shown]  # type: ignore[index]
        assert sorted(creators[:3]) == sorted(creators[3:]) == [1, 2, 3]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from recsys.decode import packets
from recsys.decode.packets import Entry, PacketList, by_rate, in_time_order, steady_timeline


@dataclass
class Packet:
    pts: int | None
    is_keyframe: bool = False
    duration: int = 0
    is_discard: bool = False
    size: int = 100


def _list(*given: Packet) -> tuple[PacketList, list[int]]:
    opened: list[int] = []

    def demux() -> Iterator[Packet]:
        opened.append(1)
        yield from given

    return PacketList(demux), opened


def test_frames_come_in_time_order_whatever_the_decoding_order() -> None:
    # I P B B with times 0, 3, 1, 2.
    kept, _ = _list(Packet(0, True), Packet(30), Packet(10), Packet(20, duration=10))
    planned = kept.timeline(0.1)
    assert planned is not None
    timeline, places = planned
    assert timeline.starts_s.tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert places.tolist() == [0, 2, 3, 1]
    assert timeline.key_indices.tolist() == [0]
    assert timeline.end_s == pytest.approx(4.0)  # the last one lasts as long as the median


def test_the_last_frame_lasts_as_long_as_it_says() -> None:
    planned = in_time_order([Entry(5, True, 0), Entry(6, False, 3)], 1.0)
    assert planned is not None
    assert planned[0].end_s == 4.0  # from the first on


@pytest.mark.parametrize("ticks", [[], [0, None], [0, 5, 5]])
def test_without_usable_times_there_is_no_timeline(ticks: list[int | None]) -> None:
    assert in_time_order([Entry(tick, True, 1) for tick in ticks], 1.0) is None


def test_a_single_frame_without_duration_lasts_a_tick() -> None:
    planned = in_time_order([Entry(7, True, 0)], 0.04)
    assert planned is not None
    assert planned[0].end_s == pytest.approx(0.04)


def test_hidden_packets_are_decoded_but_never_sampled() -> None:
    kept, _ = _list(Packet(0, True, is_discard=True), Packet(1), Packet(2))
    planned = kept.timeline(1.0)
    assert planned is not None
    assert planned[1].tolist() == [1, 2]


def test_a_constant_rate_stands_in_for_times() -> None:
    timeline, order = by_rate([Entry(None, True, 0), Entry(None, False, 0)], 4.0)
    assert timeline.starts_s.tolist() == [0.0, 0.25]
    assert timeline.end_s == 0.5
    assert order.tolist() == [0, 1]


@dataclass
class IndexEntry:
    timestamp: int
    is_keyframe: bool = False
    is_discard: bool = False


def test_an_index_of_a_steady_rate_is_a_timeline() -> None:
    found = steady_timeline([IndexEntry(10 + 5 * i, i % 2 == 0) for i in range(4)], tick_s=0.1)
    assert found is not None
    assert found.starts_s.tolist() == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert found.end_s == pytest.approx(2.0)
    assert found.key_indices.tolist() == [0, 2]


@pytest.mark.parametrize(
    "index",
    [
        [],
        [IndexEntry(0)],
        [IndexEntry(0), IndexEntry(5), IndexEntry(11)],
        [IndexEntry(0), IndexEntry(0)],
        [IndexEntry(0), IndexEntry(5, is_discard=True), IndexEntry(10)],
    ],
)
def test_any_other_index_says_nothing(index: list[IndexEntry]) -> None:
    assert steady_timeline(index, tick_s=0.1) is None


@pytest.mark.parametrize("limit", [10**6, 250])
def test_a_walk_gives_the_ranges_and_their_ends(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "MAX_KEPT_BYTES", limit)
    kept, opened = _list(*[Packet(tick) for tick in range(6)])
    walk = [(place, packet and packet.pts) for place, packet in kept.walk([(1, 3), (4, 5)])]
    assert walk == [(1, 1), (2, 2), (3, None), (4, 4), (5, None)]
    assert len(opened) == (1 if limit > 600 else 2)  # read again only where it was too much
    assert [place for place, packet in kept.walk() if packet] == [0, 1, 2, 3, 4, 5]


def test_the_head_is_read_no_further_than_asked() -> None:
    kept, _ = _list(*[Packet(tick, is_keyframe=tick == 1) for tick in range(6)])
    assert next(packet for packet in kept.head() if packet.is_keyframe).pts == 1
    assert len(kept.entries) == 2
    kept.scan()
    assert kept.key_places().tolist() == [1]
    assert kept.ticks().tolist() == list(range(6))
    assert kept.ticks().dtype == np.int64

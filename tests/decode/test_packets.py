from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from recsys.decode import packets
from recsys.decode.packets import (
    ClockRules,
    PacketEntry,
    PacketList,
    by_rate,
    frame_times_of,
    steady_frame_times,
    without_wild,
)


@dataclass
class Packet:
    pts: int | None
    is_keyframe: bool = False
    duration: int = 0
    is_discard: bool = False
    size: int = 100
    dts: int | None = None


def _list(*given: Packet) -> tuple[PacketList, list[int]]:
    opened: list[int] = []

    def demux() -> Iterator[Packet]:
        opened.append(1)
        yield from given

    return PacketList(demux), opened


def test_frames_come_in_time_order_whatever_the_decoding_order() -> None:
    # I P B B with times 0, 3, 1, 2.
    kept, _ = _list(Packet(0, True), Packet(30), Packet(10), Packet(20, duration=10))
    plan = kept.frame_times(ClockRules(0.1))
    assert plan is not None
    assert plan.frame_times.starts_s.tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert plan.places.tolist() == [0, 2, 3, 1]
    assert plan.ranks.tolist() == [0, 3, 1, 2]
    assert plan.frame_times.key_indices.tolist() == [0]
    assert plan.frame_times.end_s == pytest.approx(4.0)  # the last one lasts as long as the median
    assert not plan.frame_times.doubts


def test_the_last_frame_lasts_as_long_as_it_says() -> None:
    frame_times = frame_times_of(
        [PacketEntry(5, True, 0), PacketEntry(6, False, 3)], ClockRules(1.0)
    )
    assert frame_times is not None
    assert frame_times.end_s == 4.0  # from the first on


@pytest.mark.parametrize("ticks", [[], [None, 0], [5, 5, 5]])
def test_without_usable_times_there_is_no_timeline(ticks: list[int | None]) -> None:
    entries = [PacketEntry(tick, True, 1) for tick in ticks]
    assert frame_times_of(entries, ClockRules(1.0)) is None


def test_a_single_frame_without_duration_lasts_a_tick() -> None:
    frame_times = frame_times_of([PacketEntry(7, True, 0)], ClockRules(0.04))
    assert frame_times is not None
    assert frame_times.end_s == pytest.approx(0.04)


def test_hidden_packets_are_decoded_but_never_sampled() -> None:
    kept, _ = _list(Packet(0, True, is_discard=True), Packet(1), Packet(2))
    plan = kept.frame_times(ClockRules(1.0))
    assert plan is not None
    assert (plan.places.tolist(), plan.num_without_key) == ([1, 2], 0)


def test_frames_before_the_first_key_frame_are_left_out() -> None:
    kept, _ = _list(Packet(0), Packet(1), Packet(2, True), Packet(3))
    plan = kept.frame_times(ClockRules(1.0))
    assert plan is not None
    assert (plan.places.tolist(), plan.num_without_key) == ([2, 3], 2)
    assert plan.frame_times.starts_s.tolist() == [0.0, 1.0]


def test_a_recording_is_shown_before_the_next_one_whose_clock_starts_anew() -> None:
    # Two times I P B P, shown as 0, 2, 1, 3; the second clock starts at 0 again.
    one = [(0, -1), (2, 0), (1, 1), (3, 2)]
    packets = [Packet(pts, pts == 0, dts=dts) for pts, dts in one + one]
    plan = _list(*packets)[0].frame_times(ClockRules(1.0))
    assert plan is not None
    assert plan.places.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert plan.frame_times.starts_s.tolist() == [float(number) for number in range(8)]
    assert plan.frame_times.doubts.num_jumps == 1


def test_a_step_that_decoding_does_not_know_leaves_the_order_to_the_decoder() -> None:
    packets = [Packet(tick, tick == 0, dts=tick) for tick in range(6)]
    packets[3].pts = 30
    assert _list(*packets)[0].frame_times(ClockRules(0.001)) is None


def test_times_that_the_times_of_decoding_belie_are_taken_away() -> None:
    rules = ClockRules(0.1)
    entries = [PacketEntry(tick + 2, tick == 0, 1, tick) for tick in range(40)]
    assert without_wild(entries, rules) == (entries, 0)
    # Place 5 may be shown when place 21 is decoded, 16 steps later, and a second (10 ticks) on.
    for tick, is_wild in ((21 + 16 + 10, False), (48, True), (4, False), (3, True)):
        given = [*entries[:5], PacketEntry(tick, False, 1, 5), *entries[6:]]
        kept, num_wild = without_wild(given, rules)
        assert (num_wild, kept[5].tick) == ((1, None) if is_wild else (0, tick))
    # Where all are off it is the times of decoding that are wrong.
    late = [PacketEntry(tick + 500, False, 1, tick) for tick in range(40)]
    assert without_wild(late, rules) == (late, 0)


def test_a_constant_rate_stands_in_for_times() -> None:
    frame_times = by_rate([PacketEntry(None, True, 0), PacketEntry(None, False, 0)], 4.0)
    assert frame_times.starts_s.tolist() == [0.0, 0.25]
    assert frame_times.end_s == 0.5


@dataclass
class IndexEntry:
    timestamp: int
    is_keyframe: bool = False
    is_discard: bool = False


def test_an_index_of_a_steady_rate_has_the_frame_times() -> None:
    frame_times = steady_frame_times(
        [IndexEntry(10 + 5 * i, i % 2 == 0) for i in range(4)], tick_s=0.1
    )
    assert frame_times is not None
    assert frame_times.starts_s.tolist() == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert frame_times.end_s == pytest.approx(2.0)
    assert frame_times.key_indices.tolist() == [0, 2]


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
    assert steady_frame_times(index, tick_s=0.1) is None


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
    assert [entry.tick for entry in kept.entries] == list(range(6))

import numpy as np
import pytest

from recsys.decode.sampling import (
    FrameTimes,
    Geometry,
    decode_ranges,
    keyframe_indices,
    plan_geometry,
    uniform_indices,
    within_budget,
)


def test_uniform_takes_the_middle_of_each_part() -> None:
    # 10 frames of 1 s, 5 parts of 2 s with their middles at 1, 3, 5, 7, 9 s.
    assert uniform_indices(np.arange(10.0), 10.0, 5).tolist() == [1, 3, 5, 7, 9]


def test_uniform_repeats_frames_of_a_short_video_in_order() -> None:
    # Middles at 1/6, 3/6, … of 2 s: 0.25, 0.75, 1.25, 1.75 s.
    assert uniform_indices(np.array([0.0, 1.0]), 2.0, 4).tolist() == [0, 0, 1, 1]
    assert uniform_indices(np.array([0.0]), 0.04, 3).tolist() == [0, 0, 0]


def test_uniform_goes_by_time_not_by_number() -> None:
    starts = np.array([0.0, 0.1, 0.2, 0.3, 8.0])
    # Middles at 2, 6, 10, 14 s: frame 3 stays until 8 s, frame 4 until the end at 16 s.
    assert uniform_indices(starts, 16.0, 4).tolist() == [3, 3, 4, 4]


def test_uniform_does_not_depend_on_where_time_starts() -> None:
    starts = np.arange(30) / 30
    late = uniform_indices(starts + 5.0, 6.0, 7)
    assert late.tolist() == uniform_indices(starts, 1.0, 7).tolist()


@pytest.mark.parametrize(
    ("keys", "num", "expected"),
    [
        ([0, 10, 20, 30], 4, [0, 10, 20, 30]),
        ([0, 10, 20, 30], 2, [10, 30]),  # entries 1 and 3
        ([0, 10], 5, [0, 0, 10, 10, 10]),  # entries floor(0.2), floor(0.6), floor(1.0), …
        ([7], 3, [7, 7, 7]),
    ],
)
def test_keyframes_are_thinned_or_repeated_in_order(
    keys: list[int], num: int, expected: list[int]
) -> None:
    assert keyframe_indices(np.array(keys), num).tolist() == expected


def test_a_budget_that_suffices_changes_nothing() -> None:
    indices = np.array([5, 15, 25])
    assert within_budget(indices, np.array([0, 10, 20]), 18) is indices  # 3 × (5 + 1)


def test_a_smaller_budget_shortens_all_distances_alike() -> None:
    # Distances 8, 4, 8 in runs of their own cost 20; 13 - 3 key frames leave 10, so half of each.
    moved = within_budget(np.array([8, 14, 28]), np.array([0, 10, 20]), 13)
    assert moved.tolist() == [4, 12, 24]


def test_no_budget_leaves_the_key_frames() -> None:
    moved = within_budget(np.array([8, 14, 28]), np.array([0, 10, 20]), 1)
    assert moved.tolist() == [0, 10, 20]


def _frame_times(num: int, keys: list[int]) -> FrameTimes:
    return FrameTimes(np.arange(float(num)), float(num), np.array(keys, np.int64))


def test_auto_takes_key_frames_where_there_are_enough() -> None:
    frame_times = _frame_times(12, [0, 3, 6, 9])
    assert frame_times.pick(4, "auto", auto_max_frames=99).tolist() == [0, 3, 6, 9]
    # Five are too many for four key frames: middles at 1.2, 3.6, 6, 8.4, 10.8 s.
    assert frame_times.pick(5, "auto", auto_max_frames=99).tolist() == [1, 3, 6, 8, 10]


def test_key_frames_of_a_file_that_marks_none_are_sampled_uniformly() -> None:
    assert _frame_times(8, []).pick(4, "keyframes", auto_max_frames=1).tolist() == [1, 3, 5, 7]


def test_a_steady_rate_takes_the_median_step() -> None:
    broken = FrameTimes(np.array([0.0, 1.0, 2.0, 1e9]), 1e9 + 1, np.array([0]))
    steady = broken.at_steady_rate()
    assert steady.starts_s.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert steady.end_s == 4.0


def test_runs_that_touch_are_decoded_as_one() -> None:
    keys, ticks = np.array([0, 10, 20]), np.arange(30)
    assert decode_ranges(np.array([9, 12]), keys, ticks) == [(0, 13)]
    assert decode_ranges(np.array([8, 12]), keys, ticks) == [(0, 9), (10, 13)]
    assert decode_ranges(np.array([], np.int64), keys, ticks) == []


def test_packets_before_the_first_key_packet_are_decoded_from_the_start() -> None:
    assert decode_ranges(np.array([2]), np.array([5]), np.arange(9)) == [(0, 3)]


@pytest.mark.parametrize(
    ("coded", "aspect", "turns", "fit", "scale", "offset"),
    [
        ((640, 360), 1.0, 0, "crop", (199, 112), (43, 0)),  # 640 · 112 / 360 = 199.1
        ((360, 640), 1.0, 0, "crop", (112, 199), (0, 43)),
        ((640, 360), 1.0, 1, "crop", (112, 199), (0, 43)),  # upright it is 360 × 640
        ((720, 576), 16 / 11, 0, "crop", (204, 112), (46, 0)),  # shown 1047.3 × 576
        ((640, 360), 1.0, 0, "letterbox", (112, 63), (0, -24)),
        ((101, 101), 1.0, 0, "crop", (112, 112), (0, 0)),
        ((3, 1), 1.0, 0, "letterbox", (112, 37), (0, -37)),
    ],
)
def test_geometry(
    coded: tuple[int, int],
    aspect: float,
    turns: int,
    fit: str,
    scale: tuple[int, int],
    offset: tuple[int, int],
) -> None:
    geometry = plan_geometry(coded, aspect, turns, size=112, fit=fit)  # type: ignore[arg-type]
    assert (geometry.scale_width, geometry.scale_height) == scale
    assert (geometry.left, geometry.top) == offset
    assert geometry.cut is None


def test_a_ribbon_is_cut_before_it_is_resized() -> None:
    wide = plan_geometry((8000, 10), 1.0, 0, size=112, fit="crop")
    assert wide.cut == (160, 10)  # 16 times as wide as high
    assert (wide.scale_width, wide.scale_height) == (1792, 112)
    high = plan_geometry((10, 8000), 2.0, 0, size=112, fit="crop")
    assert high.cut == (10, 320)  # pixels twice as wide as high: 20 wide, so 320 high
    assert plan_geometry((8000, 10), 1.0, 0, size=112, fit="letterbox").scale_height == 1


def test_square_cuts_the_middle() -> None:
    frame = np.arange(6, dtype=np.uint8).reshape(1, 6, 1).repeat(4, 0).repeat(3, 2)
    squared = Geometry(size=4, turns=0, scale_width=6, scale_height=4).square(frame)
    assert squared[0, :, 0].tolist() == [1, 2, 3, 4]


def test_square_adds_black_around() -> None:
    frame = np.full((2, 2, 4, 3), 9, np.uint8)
    squared = Geometry(size=4, turns=0, scale_width=4, scale_height=2).square(frame)
    assert squared.shape == (2, 4, 4, 3)
    assert squared[0, :, 0, 0].tolist() == [0, 9, 9, 0]

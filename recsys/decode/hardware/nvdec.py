"""Clips by NVIDIA's PyNvVideoCodec, of no more packets than the sampled frames need.

The packets are those that PyAV read of the file. Each is given its rank, how many frames are shown
before its own, as its time; and as many frames must come back as packets were given, for a decoder
hands the times out in their order. To set one up takes longer than a clip: it is kept for the next
file of the same codec and size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.decode.contract import Clip, NotThisReader, ReadError
from recsys.decode.hardware.choice import require_plain
from recsys.decode.hardware.planes import PlaneScaler
from recsys.decode.packets import Plan
from recsys.decode.pyav_reader import OpenVideo

_CODECS = {"h264": "H264", "hevc": "HEVC", "vp8": "VP8", "vp9": "VP9", "av1": "AV1"}
"""FFmpeg's names of what is given to it, and its own; old codecs are of small frames."""
_FILTERS = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
"""FFmpeg's filters that put a file's parameters into its packets."""
_LEFT_OUT = "pynvvideocodec left frames out"
_NO_CODEC = "Codec not supported on this GPU"
"""How it says that a card has no decoder for a codec, of 8 bits in 4:2:0 as all that it is given;
that the card has none for a size it says in other words."""
_MAX_KEPT = 2
"""Decoders that a process keeps, each with some 100 MB of the device's memory."""


@dataclass
class _KeptDecoders:
    """Decoders that wait for their next file, the last ones that were used."""

    waiting: OrderedDict[tuple[str, tuple[int, int]], Any]

    def take(self, codec: str, coded: tuple[int, int]) -> Any:
        """One for a codec and a size, which is the caller's until it is given back."""
        import PyNvVideoCodec as nvc

        kept = self.waiting.pop((codec, coded), None)
        return kept or nvc.CreateDecoder(
            gpuid=0, codec=getattr(nvc.cudaVideoCodec, _CODECS[codec]), usedevicememory=True
        )

    def give_back(self, codec: str, coded: tuple[int, int], decoder: Any) -> None:
        """Keeps one that has read its file to the end without a complaint."""
        self.waiting[codec, coded] = decoder
        while len(self.waiting) > _MAX_KEPT:
            self.waiting.popitem(last=False)


_decoders = _KeptDecoders(OrderedDict())
_not_on_this_card: set[str] = set()
"""Codecs that the card of this process does not read; their files go to the cores unasked."""


def read_by_pynvvideocodec(video: OpenVideo) -> Clip:
    """Reads a clip by NVIDIA's PyNvVideoCodec.

    Raises:
        NotThisReader: It cannot read it, or not exactly.
    """
    spec, codec = video.spec, video.facts.codec
    geometry = require_plain(spec, video.facts)
    scaler = PlaneScaler.of(video.facts, geometry)
    if codec not in _CODECS:
        raise NotThisReader(f"pynvvideocodec is given no {codec}")
    if codec in _not_on_this_card:
        raise _not_here(codec)
    video.require_sound()
    plan = video.plan()
    frame_times = video.sound(None if plan is None else plan.frame_times)
    assert plan is not None
    indices = frame_times.pick(spec.frames, spec.sampling, auto_max_frames=spec.auto_max_frames)
    try:
        frames = _decode(video, plan, plan.places[indices], scaler)
    except (NotThisReader, ReadError):
        raise
    except Exception as error:  # its own exceptions have no common base
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        if _NO_CODEC in said:
            _not_on_this_card.add(codec)
            raise _not_here(codec, said) from error
        raise NotThisReader("pynvvideocodec failed", said) from error
    return Clip(
        frames=geometry.square(frames),
        times_s=frame_times.starts_s[indices].astype(np.float32),
        duration_s=frame_times.end_s,
        reader="pynvvideocodec",
    )


def _not_here(codec: str, said: str = "") -> NotThisReader:
    return NotThisReader(f"this card reads no {codec}", said)


def _decode(
    video: OpenVideo, plan: Plan, places: NDArray[np.int64], scaler: PlaneScaler
) -> NDArray[np.uint8]:
    """The frames of some packets, each as the scaler makes it: (N, h, w, 3)."""
    import torch

    codec, coded = video.facts.codec, video.facts.coded
    decoder = _decoders.take(codec, coded)
    wanted, images = set(places.tolist()), dict[int, torch.Tensor]()
    by_rank = {int(plan.ranks[place]): place for place in wanted}
    packets = video.bitstream(wanted, plan.ranks, _FILTERS.get(codec))
    for frame in _frames(decoder, _needed(packets, wanted, plan.ranks, codec)):
        place = by_rank.get(frame.getPTS())
        if place is not None:
            images[place] = scaler(torch.from_dlpack(frame))
    if len(images) < len(wanted):
        raise NotThisReader(_LEFT_OUT)
    frames = torch.stack([images[place] for place in places.tolist()]).cpu().numpy()
    _decoders.give_back(codec, coded, decoder)
    return frames


def _needed(
    packets: Iterator[tuple[int, bytes]], wanted: set[int], ranks: NDArray[np.int64], codec: str
) -> Iterator[tuple[int, bytes]]:
    """The rank and the bytes of each packet that is decoded; no bytes at the end of a run.

    Left out are frames that no other is made from, and those that are shown before the key frame
    that their run starts with: they need the group before.
    """
    first = None
    for place, data in packets:
        rank = int(ranks[place]) if data else 0
        first = rank if first is None else first
        if not data:
            first = None
            yield 0, data
        elif place in wanted or (rank >= first and not is_for_itself(data, codec)):
            yield rank, data


def _frames(decoder: Any, packets: Iterator[tuple[int, bytes]]) -> Iterator[Any]:
    """What a decoder makes of packets; each frame is there until the next one is asked for.

    Raises:
        NotThisReader: The frames of a run are not those of its packets.
    """
    import PyNvVideoCodec as nvc

    given, taken = list[int](), list[int]()
    for rank, data in packets:
        packet, held = nvc.PacketData(), np.frombuffer(data, np.uint8)
        packet.bsl, packet.bsl_data = len(data), held.ctypes.data if data else 0
        packet.pts = rank
        given += [rank] if data else []
        for frame in decoder.Decode(packet):
            taken.append(frame.getPTS())
            yield frame
        if not data:
            if taken != sorted(given):
                raise NotThisReader(_LEFT_OUT)
            given, taken = [], []


def is_for_itself(data: bytes, codec: str) -> bool:
    """Whether no other frame is made from that of a packet, as H.264 says it (7.4.1, nal_ref_idc).

    >>> is_for_itself(bytes([0, 0, 1, 0x06, 9, 0, 0, 1, 0x01, 2]), "h264")
    True
    >>> is_for_itself(bytes([0, 0, 1, 0x06, 9, 0, 0, 1, 0x41, 2]), "h264")
    False
    """
    start = data.find(b"\0\0\1") if codec == "h264" else -1
    while 0 <= start < len(data) - 3:
        header = data[start + 3]
        if 1 <= header & 31 <= 5:  # a slice of the picture
            return header >> 5 & 3 == 0
        start = data.find(b"\0\0\1", start + 3)
    return False

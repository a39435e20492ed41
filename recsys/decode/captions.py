"""A file's own text track as WebVTT, for browsers show none that is inside a video.

It runs inside the sandbox. Of what a file holds nothing but text and times comes through: no
markup, no block of its own, within `MAX_BYTES` and `MAX_CUES`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.stream import Discard, Disposition
from av.subtitles.subtitle import AssSubtitle

from recsys.decode.containers import FFMPEG_ERRORS, Complaints, open_video
from recsys.decode.contract import ClipSpec, Deadline, VideoFile

TEXT_CODECS = frozenset({"ass", "mov_text", "subrip", "text", "webvtt"})
"""As FFmpeg calls them; tracks of pictures (Blu-ray, DVD) are no text."""
MAX_BYTES = 2**20
"""Of WebVTT: some ten hours of speech."""
MAX_CUES = 20_000
MAX_CUE_BYTES = 2**14
"""Of one in the file; a larger one is left out."""

Cue = tuple[int, int, str]
"""Start and end in milliseconds, and text."""

_ASS_CODES = re.compile(r"\\\{\{\}|\\\u2060|\{[^{}]*\}|\\[Nnh]")
"""A brace and a backslash as FFmpeg writes them, what is in braces, line ends and hard spaces."""
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Captions:
    """A text track; `said` is what of it was left out, empty where nothing was."""

    vtt: str
    """Empty where not one cue is left."""
    said: str = ""


def text_stream(container: av.container.InputContainer) -> av.SubtitleStream | None:
    """The text track that is the default one, else the first; those for signs alone are not it."""
    texts = [
        stream
        for stream in container.streams.subtitles
        if stream.codec_context is not None
        and stream.codec_context.codec.canonical_name in TEXT_CODECS
        and not stream.disposition & Disposition.forced
    ]
    texts.sort(key=lambda stream: not stream.disposition & Disposition.default)
    return texts[0] if texts else None


def read_captions(file: VideoFile, spec: ClipSpec, *, name: str) -> Captions:
    """The captions that a file holds; where its packets have an index, no others are read.

    Args:
        file: The file.
        spec: Its limits are kept.
        name: What the file is called.

    Raises:
        ReadError: The file is no video, or breaks a limit.
    """
    deadline = Deadline(spec.max_decode_s)
    with Complaints() as complaints:
        container, _ = open_video(file, spec, name=name, complaints=complaints)
        with container:
            stream = text_stream(container)
            if stream is None:
                return Captions("")
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = Discard.all
            return webvtt(_cues(container, stream, deadline), max_duration_s=spec.max_duration_s)


def _cues(
    container: av.container.InputContainer, stream: av.SubtitleStream, deadline: Deadline
) -> Iterator[Cue | None]:
    """The cues in the file's order; None for one that cannot be read."""
    tick_ms = 1000 * (stream.time_base or Fraction(0))
    packets = container.demux(stream)
    while True:
        deadline.check()
        try:
            packet = next(packets, None)
            if packet is None:
                return
            texts = _texts(stream, packet)
        except FFMPEG_ERRORS:  # where the file itself is broken, `packets` ends too
            yield None
            continue
        start = -1 if packet.pts is None else packet.pts
        end = start + (packet.duration or 0)
        for text in texts:
            yield round(start * tick_ms), round(end * tick_ms), text


def _texts(stream: av.SubtitleStream, packet: av.Packet) -> list[str]:
    """The plain texts of a packet: few have more than one."""
    if not packet.size:
        return []
    if packet.size > MAX_CUE_BYTES:
        raise ValueError(f"{packet.size} bytes are over {MAX_CUE_BYTES=}")
    comments = stream.codec_context.codec.canonical_name == "ass"
    events = [one.ass for one in stream.decode(packet) if isinstance(one, AssSubtitle)]
    # ReadOrder, Layer, Style, Name, MarginL, MarginR, MarginV, Effect, Text
    fields = [event.decode(errors="replace").split(",", 8) for event in events]
    return [plain_text(event[8], comments=comments) for event in fields if len(event) == 9]


def plain_text(ass: str, *, comments: bool = True) -> str:
    r"""What is read of an ASS event's text; nothing of a drawing.

    Args:
        ass: With override codes, as FFmpeg gives it for every kind of text track.
        comments: Whether braces without a code are a comment, as in ASS itself, or plain text.

    >>> plain_text(r"{\i1}One{\i0}\Ntwo{so}"), plain_text("{so}", comments=False)
    ('One\ntwo', '{so}')
    """

    def shown(match: re.Match[str]) -> str:
        code = match[0]
        if code[0] == "{":
            return "" if comments or code[1] == "\\" else code
        return {"{": "{", "\u2060": "\\", "h": " "}.get(code[1], "\n")

    return "" if _DRAWING.search(ass) else _ASS_CODES.sub(shown, ass)


def webvtt(cues: Iterable[Cue | None], *, max_duration_s: float) -> Captions:
    r"""Cues as a WebVTT file, up to the one that would be too much.

    Args:
        cues: None for one that could not be read.
        max_duration_s: No cue reaches further.

    >>> print(webvtt([(0, 1500, "1 < 2 --> yes\n\n<b>")], max_duration_s=60).vtt)
    WEBVTT
    <BLANKLINE>
    00:00:00.000 --> 00:00:01.500
    1 &lt; 2 --&gt; yes
    &lt;b&gt;
    <BLANKLINE>
    """
    blocks, size, num_broken, said = ["WEBVTT\n"], 7, 0, []
    for cue in cues:
        if cue is None or not 0 <= cue[0] < cue[1] <= 1000 * max_duration_s:
            num_broken += cue is None or bool(cue[2].strip())
            continue
        lines = [_CONTROLS.sub("", line.replace("\t", " ")) for line in cue[2].splitlines()]
        stripped = filter(None, (line.strip() for line in lines))
        text = "\n".join(html.escape(line, quote=False) for line in stripped)
        if not text:
            continue
        block = f"\n{_clock(cue[0])} --> {_clock(cue[1])}\n{text}\n"
        size += len(block.encode())
        if size > MAX_BYTES or len(blocks) > MAX_CUES:
            said.append(f"cut behind {len(blocks) - 1} cues")
            break
        blocks.append(block)
    if num_broken:
        said.append(f"{num_broken} cues without usable times or text")
    return Captions("".join(blocks) if len(blocks) > 1 else "", "; ".join(said))


def _clock(ms: int) -> str:
    """A time as WebVTT has it.

    >>> _clock(3_723_004)
    '01:02:03.004'
    """
    minutes, ms = divmod(ms, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}.{ms % 1000:03}"

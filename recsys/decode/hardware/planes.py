"""From the planes of a decoded frame to RGB of another size, as FFmpeg's scaler does it.

Hardware gives frames as NV12: a plane of luma, and one of half its width and height in which Cb and
Cr take turns. Each is resized by itself and colours come last, so that a whole frame is never made
RGB. The filter is the scaler's bicubic one, and values are its own but for rounding, which it does
several times, and downwards where a width is even.

Shapes: H × W pixels of the frame, h × w of what it becomes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.decode.contract import FileFacts, NotThisReader
from recsys.decode.sampling import Geometry

if TYPE_CHECKING:
    import torch

_SHARPNESS = 0.6
"""The scaler's parameter C of the cubic of Mitchell and Netravali (1988), whose B is 0."""
_LUMA_SHARES = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""How much of luma is red and blue, by the number of the colour matrix (ITU-T H.273, table 4)."""
_USUAL_SHARES = (0.299, 0.114)
"""BT.601, and so that of frames whose matrix is not said, as players have it."""


@dataclass(frozen=True)
class PlaneScaler:
    """Makes small RGB frames of NV12 ones, on the device where these lie.

    Args:
        geometry: What the frames become, before they are cut.
        width: W, even.
        height: H, even.
        matrix: Number of the colour matrix.
        full_range: Whether luma reaches from 0 to 255, and not from 16 to 235.
    """

    geometry: Geometry
    width: int
    height: int
    matrix: int
    full_range: bool

    @classmethod
    def of(cls, facts: FileFacts, geometry: Geometry) -> PlaneScaler:
        """That of a file's frames.

        Raises:
            NotThisReader: Its frames have an odd side, or are RGB.
        """
        width, height = facts.coded
        if width % 2 or height % 2:
            raise NotThisReader("frames with an odd side are left to the cores")
        if not facts.matrix:
            raise NotThisReader("frames that are RGB are left to the cores")
        return cls(geometry, width, height, facts.matrix, facts.full_range)

    def __call__(self, frame: torch.Tensor) -> torch.Tensor:
        """(H + H / 2, W) uint8, luma above the rest → (h, w, 3) uint8 RGB.

        Raises:
            NotThisReader: The frame has another shape.
        """
        import torch

        shape = (self.height * 3 // 2, self.width)
        if tuple(frame.shape) != shape:
            raise NotThisReader("frames are of another size than the file says")
        planes = frame.float()
        height, width = self.geometry.scale_height, self.geometry.scale_width
        luma = resized(planes[: self.height].unsqueeze(0), height, width)
        chroma = planes[self.height :].view(self.height // 2, self.width // 2, 2).permute(2, 0, 1)
        if width % 2:
            chroma = resized(chroma, height, width)
        else:  # FFmpeg's scaler then makes one colour for each two pixels
            chroma = resized(chroma, height, width // 2).repeat_interleave(2, 2)
        values = torch.cat([luma, chroma])
        to_rgb, offset = _colours_on(self.matrix, self.full_range, frame.device)
        rgb = torch.tensordot(values.permute(1, 2, 0), to_rgb.T, 1) + offset
        return rgb.round_().clamp_(0, 255).to(torch.uint8)


def resized(planes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Planes (P, H, W) of another height and width: (P, h, w).

    Rows come first, and are cut at white before columns are made of them, as in FFmpeg.
    """
    over_rows = _weights_on(planes.shape[1], height, planes.device)
    over_columns = _weights_on(planes.shape[2], width, planes.device)
    return over_rows @ (planes @ over_columns.T).clamp_max_(255)


@functools.lru_cache(maxsize=32)
def _weights_on(num_in: int, num_out: int, device: torch.device) -> torch.Tensor:
    import torch

    return torch.from_numpy(bicubic_weights(num_in, num_out)).to(device)


@functools.lru_cache(maxsize=8)
def _colours_on(
    matrix: int, full_range: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    to_rgb, offset = colours(matrix, full_range)
    return torch.from_numpy(to_rgb).to(device), torch.from_numpy(offset).to(device)


def bicubic_weights(num_in: int, num_out: int) -> NDArray[np.float32]:
    """What each output takes of each input: (num_out, num_in), rows that sum up to 1.

    Centres are spread evenly, an output that is larger than an input takes as many more of them,
    and inputs beyond an end are that end.

    >>> bicubic_weights(4, 2).astype(float).round(3).tolist()
    [[0.5, 0.436, 0.12, -0.056], [-0.056, 0.12, 0.436, 0.5]]
    """
    stretch = num_in / num_out
    width = max(stretch, 1.0)
    centres = (np.arange(num_out) + 0.5) * stretch - 0.5
    reach = int(np.ceil(2 * width)) + 1
    inputs = np.arange(-reach, num_in + reach)
    parts = _cubic(np.abs(inputs - centres[:, None]) / width)
    parts /= parts.sum(1, keepdims=True)
    weights = np.zeros((num_out, num_in))
    np.add.at(weights.T, np.clip(inputs, 0, num_in - 1), parts.T)
    return weights.astype(np.float32)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic at distances of at least 0."""
    c = _SHARPNESS
    near = (2 - c) * distance**3 - (3 - c) * distance**2 + 1
    far = -c * distance**3 + 5 * c * distance**2 - 8 * c * distance + 4 * c
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def colours(matrix: int, full_range: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(3, 3) and (3,): RGB = the first times (luma, Cb, Cr), plus the second.

    >>> to_rgb, offset = colours(1, True)
    >>> (to_rgb @ [255, 128, 128] + offset).round(3).tolist()
    [255.0, 255.0, 255.0]
    """
    red, blue = _LUMA_SHARES.get(matrix, _USUAL_SHARES)
    green = 1 - red - blue
    from_cr, from_cb = 2 * (1 - red), 2 * (1 - blue)
    to_rgb = np.array(
        [
            [1, 0, from_cr],
            [1, -blue * from_cb / green, -red * from_cr / green],
            [1, from_cb, 0],
        ]
    )
    black, luma, chroma = (0, 1.0, 1.0) if full_range else (16, 255 / 219, 255 / 224)
    to_rgb *= [luma, chroma, chroma]
    offset = -to_rgb @ [black, 128, 128]
    return to_rgb.astype(np.float32), offset.astype(np.float32)

"""Short texts painted onto frames, in a font of 5 × 7 dots, so that clips say what they are of.

Shapes: S frames, H × W pixels (equal), C colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WIDTH, HEIGHT = 6, 9
"""Of a letter with the space after it and below it, in dots."""
_FONT = {
    **{" ": "0000000000", "-": "0808080808", "+": "08083E0808", "=": "1414141414"},
    **{"0": "3E5149453E", "1": "00427F4000", "2": "4261514946", "3": "2141494D33"},
    **{"4": "1814127F10", "5": "2745454539", "6": "3C4A494931", "7": "4121110907"},
    **{"8": "3649494936", "9": "464949291E", "A": "7C1211127C", "B": "7F49494936"},
    **{"C": "3E41414122", "D": "7F4141413E", "E": "7F49494941", "F": "7F09090901"},
    **{"G": "3E41415173", "H": "7F0808087F", "I": "00417F4100", "J": "2040413F01"},
    **{"K": "7F08142241", "L": "7F40404040", "M": "7F021C027F", "N": "7F0408107F"},
    **{"O": "3E4141413E", "P": "7F09090906", "Q": "3E4151215E", "R": "7F09192946"},
    **{"S": "2649494932", "T": "03017F0103", "U": "3F4040403F", "V": "1F2040201F"},
    **{"W": "3F4038403F", "X": "6314081463", "Y": "0304780403", "Z": "6159494D43"},
}
"""Five columns of each letter, two hexadecimal digits each; the lowest bit is the top dot."""


def dots(text: str) -> NDArray[np.bool_]:
    r"""A line of text as dots, (7, 6 × letters); small letters are shown as large ones.

    >>> print("\n".join("".join(".#"[dot] for dot in row) for row in dots("L").astype(int)))
    #.....
    #.....
    #.....
    #.....
    #.....
    #.....
    #####.
    """
    columns = [list(bytes.fromhex(_FONT[letter])) + [0] for letter in text.upper()]
    flat = np.array(columns, np.uint8).reshape(-1)
    return (flat[None, :] >> np.arange(7)[:, None] & 1).astype(np.bool_)


def lettered(frames_SHWC: Floats, text: str) -> Floats:
    """Frames (S, H, W, 3; from 0 to 1) with a line of text on a dark band at the top.

    Captions lie at the bottom. The text is as large as fits, by whole pixels a dot; what does not
    fit at one pixel a dot is cut off.
    """
    size = frames_SHWC.shape[1]
    scale = max(1, min(size // 48, size // (WIDTH * len(text) + 4)))
    letters = dots(text).repeat(scale, 0).repeat(scale, 1)[:, : size - 2 * scale]
    band = (HEIGHT + 2) * scale
    painted = frames_SHWC.copy()
    painted[:, :band] *= 0.35
    top = 2 * scale
    left = (size - letters.shape[1]) // 2
    painted[:, top : top + len(letters), left : left + letters.shape[1]][:, letters] = 0.97
    return painted

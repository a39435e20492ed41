"""What a card can do at most: dense bfloat16 products, as NVIDIA's data sheets say it."""

from __future__ import annotations

PEAKS_TFLOPS = {
    # The longest name that a card's own begins with or holds is taken.
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A10": 125.0,
    "A30": 165.0,
    "RTX 6000 Ada": 364.0,
    "RTX 4090": 165.0,
    "RTX A6000": 155.0,
}


def peak_flops(name: str) -> float | None:
    """A card's peak by the name that its driver gives; None for one that is not in the table."""
    known = [card for card in PEAKS_TFLOPS if card in name]
    return 1e12 * PEAKS_TFLOPS[max(known, key=len)] if known else None

"""Figures and names as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float) -> str:
    """A figure in four places.

    >>> number(0.0325), number(1234.5), number(12.3456), number(0)
    ('0.0325', '1,234', '12.35', '0')
    """
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}".replace("-0", "0")
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}"


def signed(value: float) -> str:
    """A difference.

    >>> signed(0.5), signed(-0.5)
    ('+0.5000', '-0.5000')
    """
    return f"{'+' if value > 0 else ''}{number(value)}"


def percent(value: float) -> str:
    r"""A share in per cent, with a space that does not break.

    >>> [percent(value).replace("\xa0", " ") for value in (0.123, -0.05, 0.0042, 0)]
    ['12 %', '-5.0 %', '0.42 %', '0 %']
    """
    size = abs(value)
    places = 0 if size >= 0.0995 else 1 if size >= 0.00995 else 2
    text = f"{100 * value:.{places}f}"
    return f"{'0' if float(text) == 0 else text}\xa0%"


def signed_percent(value: float) -> str:
    r"""A relative change.

    >>> signed_percent(0.02).replace("\xa0", " ")
    '+2.0 %'
    """
    text = percent(value)
    return f"+{text}" if value > 0 and not text.startswith("0\xa0") else text


def tick(value: float) -> str:
    """A round number at an axis.

    >>> tick(0.02), tick(20000.0)
    ('0.02', '20,000')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def whole_tick(value: float) -> str:
    """A whole number at an axis, and nothing where there is none.

    >>> whole_tick(2.0), whole_tick(1.5)
    ('2', '')
    """
    return tick(value) if value == round(value) else ""


def percent_tick(value: float) -> str:
    r"""A round share at an axis.

    >>> percent_tick(0.025).replace("\xa0", " ")
    '2.5 %'
    """
    return f"{100 * value:.6g}\xa0%"


def p_value(value: float) -> str:
    """A p-value.

    >>> p_value(0.0421), p_value(0.0001)
    ('p = 0.042', 'p < 0.001')
    """
    return f"p = {value:.2g}" if value >= 0.001 else "p < 0.001"


def span(interval: Sequence[float] | None) -> str:
    """A 95 % interval, or nothing."""
    return f"{number(interval[0])} to {number(interval[1])}" if interval else ""


def percent_span(interval: Sequence[float] | None) -> str:
    """A 95 % interval of a share, or nothing."""
    return f"{percent(interval[0])} to {percent(interval[1])}" if interval else ""


def ranker_title(name: str) -> str:
    """A ranker's name.

    >>> ranker_title("item_knn"), ranker_title("model_reranked")
    ('item-kNN', 'model, re-ranked')
    """
    name = "previous bundle" if name == "previous" else name
    return name.replace("_knn", "-kNN").replace("_reranked", ", re-ranked").replace("_", " ")


def metric_title(name: str) -> str:
    """A metric's name.

    >>> metric_title("ndcg@10"), metric_title("cold/recall@5"), metric_title("auc: click")
    ('NDCG@10', 'recall@5, cold videos', 'AUC of click')
    """
    if name.startswith("auc: "):
        return f"AUC of {name.removeprefix('auc: ')}"
    part, _, metric = name.rpartition("/")
    kind, at, k = metric.partition("@")
    shown = kind.upper() if kind in ("ndcg", "hr", "mrr", "map") else kind.replace("_", " ")
    return f"{shown}{at}{k}" + (f", {part.removeprefix('age: ')} videos" if part else "")

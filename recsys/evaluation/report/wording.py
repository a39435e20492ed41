"""Figures and names as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.evaluation.baselines import table as baseline_table
from recsys.evaluation.baselines.table import MadeWith
from recsys.evaluation.metrics.table import metric_of


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


def baseline_lines(about: MadeWith) -> list[str]:
    """What the baselines were made with, how that was chosen, and what is left out.

    >>> lines = baseline_lines({"users": 0, "half_life_days": 1.0, "neighbours": 50})
    >>> lines[0]
    'Baselines: recent popularity with a half-life of 1 days, item-kNN with 50 neighbours.'
    """
    ease = about.get("ease")
    made = [line for of in baseline_table.BASELINES if (line := of.made_with(about))]
    chosen = (
        f"What the run config does not fix was chosen by {about['users']:,} users of the "
        "validation days."
        if about["users"]
        else "No user liked anything new in the validation days: what the run config does not fix "
        "is a guess."
    )
    lines = [f"Baselines: {', '.join(made)}.", chosen]
    if "users_share" in about:
        share = percent(about["users_share"])
        lines.append(
            f"Recent popularity, item-kNN and EASE are made of the likes of {share} of the users, "
            "drawn at random."
        )
    if "neighbours_share" in about:
        share, of = percent(about["neighbours_share"]), "these" if "users_share" in about else "the"
        lines.append(f"Item-kNN is made of {share} of {of} users, drawn at random.")
    if ease and ease["share_of_likes"] < 1:
        lines.append(
            f"EASE is made of the {ease['videos']:,} most popular videos, with "
            f"{percent(ease['share_of_likes'])} of the likes (evaluate.ease_videos)."
        )
    return lines


def slice_title(name: str) -> str:
    """The name of a slice of the catalogue.

    >>> slice_title("cold_among_cold"), slice_title("age: 1 to 3 days")
    ('cold among cold', '1 to 3 days')
    """
    return name.removeprefix("age: ").replace("_", " ")


def capitalised(title: str) -> str:
    """A title at the beginning of a line.

    >>> capitalised("mean popularity"), capitalised("item-kNN")
    ('Mean popularity', 'Item-kNN')
    """
    return title[:1].upper() + title[1:]


def metric_title(name: str) -> str:
    """A metric's name.

    >>> metric_title("ndcg@10"), metric_title("cold/recall@5"), metric_title("auc: click")
    ('NDCG@10', 'recall@5, cold videos', 'AUC of click')
    >>> metric_title("warm_among_warm/ndcg@10")
    'NDCG@10, warm among warm videos'
    """
    if name.startswith("auc: "):
        return f"AUC of {name.removeprefix('auc: ')}"
    part, _, metric = name.rpartition("/")
    kind, at, k = metric.partition("@")
    known = metric_of(kind)
    shown = kind.replace("_", " ") if known is None else known.title
    return f"{shown}{at}{k}" + (f", {slice_title(part)} videos" if part else "")

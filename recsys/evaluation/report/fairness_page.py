"""The parts of report.html on groups of users, creators, and the trade-off of re-ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from recsys.evaluation.metrics import table as metric_table
from recsys.evaluation.metrics.fairness import SMALL_GROUP
from recsys.evaluation.report.charts import (
    SHARES,
    Axes,
    Axis,
    Dot,
    Format,
    Line,
    bar_groups,
    dot_plot,
    figure,
    line_plot,
)
from recsys.evaluation.report.html import Cell, details, element, table, text
from recsys.evaluation.report.schema import Figures, Report
from recsys.evaluation.report.verdict import MAIN
from recsys.evaluation.report.wording import (
    capitalised,
    metric_title,
    number,
    p_value,
    percent,
    percent_span,
    percent_tick,
    ranker_title,
    signed_percent,
    span,
)
from recsys.inference.rerank import lever_of

DRAWN_LOSS = -0.2
"""A point that costs more is left to the table, so that the others can be told apart."""


def fairness_section(report: Report) -> list[str]:
    """Who gets what."""
    model = report["evaluation"][MAIN]
    return [
        text("h2", "Fairness"),
        *_groups(model.get("groups", {})),
        *_creators(report, model.get("creators")),
        *_new_and_popular(report),
    ]


def _groups(groups: Figures) -> list[str]:
    if not groups:
        text_ = "No group columns are set (data.user_columns.groups), so users are not compared."
        return [text("p", text_, "soft")]
    charts, notes = [], []
    for column, of_column in groups.items():
        metric = of_column["metric"]
        dots = [
            Dot(
                f"{name} ({part['users']:,})",
                part[metric],
                (part.get("ci") or {}).get(metric),
                pale=part["users"] < SMALL_GROUP,
            )
            for name, part in of_column["quality"].items()
            if part["users"]
        ]
        note = "; ".join(of_column["warnings"])
        chart = dot_plot(dots, label=f"{metric_title(metric)} by {column}")
        charts.append(figure(f"{metric_title(metric)} by {column}", chart, note=note))
        if of_column["gap"] is not None:
            bounds = f", 95 % interval {span(of_column['ci'])}" if of_column["ci"] else ""
            notes.append(
                f"{column}: {of_column['best']} is served better than {of_column['worst']} by "
                f"{number(of_column['gap'])}{bounds}; a gap as large comes up by chance with "
                f"{p_value(of_column['p'])}."
            )
    parts = [text("h3", "Groups of users"), element("div", charts, "charts")]
    return parts + [text("p", note) for note in notes]


def _creators(report: Report, spread: Figures | None) -> list[str]:
    if not spread:
        return []
    names = ("exposure", "relevance", "videos")
    rows = [
        (band["band"], [band[name] for name in names])
        for band in spread["bands"]
        if band["creators"]
    ]
    titles = ["share of places", "share of what users liked", "share of videos"]
    chart = bar_groups(rows, titles, label="Exposure of creators by popularity")
    head = ["Ranker", "Creators shown", "Gini", "Top 1 %", "Mismatch"]
    cells: list[list[Cell]] = []
    order = list(report["evaluation"])
    for name in order:
        part = report["evaluation"][name].get("creators")
        if part:
            intervals = part["ci"]
            gini = (number(part["gini"]), span(intervals["gini"]))
            top = (percent(part["top_1_percent"]), percent_span(intervals["top_1_percent"]))
            cells.append(
                [ranker_title(name), percent(part["shown"]), gini, top, percent(part["mismatch"])]
            )
    liked = spread["relevance"]
    cells.append(
        ["what users liked", "–", number(liked["gini"]), percent(liked["top_1_percent"]), "–"]
    )
    note = (
        f"{spread['creators']:,} creators, also those who are never shown. Mismatch: the share of "
        "places that would have to move for exposure to be in proportion to what users liked."
    )
    if spread["unknown_creator"] > 0.0005:
        note += f" {percent(spread['unknown_creator'])} of the places are of unknown creators."
    return [
        text("h3", "Creators"),
        text("p", note, "soft"),
        element("div", [figure("Creators by known positives", chart, titles)], "charts"),
        table(head, cells, order.index(MAIN)),
    ]


def _new_and_popular(report: Report) -> list[str]:
    model = report["evaluation"][MAIN]
    parts = []
    if new := model.get("new_videos"):
        line = (
            f"Videos first seen in the last {number(new['days'])} days, or never, are "
            f"{percent(new['catalogue'])} of the catalogue, {percent(new['exposure'])} of the "
            f"places in the lists and {percent(new['relevance'])} of what users liked."
        )
        parts += [text("h3", "New videos"), text("p", line)]
    bias = model.get("popularity_bias") or {}
    if bias.get("lift") is None:
        return parts
    fifths = ["least popular", "second fifth", "third fifth", "fourth fifth", "most popular"]
    rows: list[list[Cell]] = [
        [name, f"{part['users']:,}", number(part["history"]), number(part["lists"]), _lift(part)]
        for name, part in zip(fifths, bias["by_taste"], strict=False)
    ]
    line = (
        f"The lists are {_lift(bias)} as popular as what their users liked before (mean number of "
        "known positives of a video). By how popular a user's own history is:"
    )
    head = ["History", "Users", "Its popularity", "Popularity of the list", "Ratio"]
    return [
        *parts,
        text("h3", "Popularity beside the user's own taste"),
        text("p", line),
        table(head, rows),
    ]


def _lift(part: Figures) -> str:
    return "–" if part["lift"] is None else f"{1 + part['lift']:.3g}\xa0×"


def tradeoff_section(curve: Figures | None) -> list[str]:
    """What the re-ranking costs and brings."""
    if not curve or not curve["levers"]:
        return []
    charts = [_lever_chart(lever, curve) for lever in curve["levers"]]
    note = (
        f"Each lever alone, on {curve['users']:,} users, first {curve['k']}. The number at a dot "
        "is the weight (rerank.* in the config); at 0 the order is that of relevance. Whiskers are "
        "95 % intervals of the change of NDCG. Points that cost more than "
        f"{percent(-DRAWN_LOSS)} are in the table only."
    )
    parts = [
        text("h2", "What the re-ranking trades"),
        text("p", note, "soft"),
        element("div", charts, "charts"),
    ]
    if limits := curve.get("limits"):
        line = (
            "For creators: an even spread over all that are among the candidates has a Gini of "
            f"{number(limits['lowest_gini'])}; what users liked has "
            f"{number(limits['relevance_gini'])}."
        )
        parts.append(text("p", line))
    return [*parts, details("The same as a table", [_points(curve)])]


def _lever_chart(lever: str, curve: Figures) -> str:
    of = lever_of(lever)
    column, (_, form) = of.figure, point_figures()[of.figure]
    axis = replace(SHARES, title=of.axis) if form is percent else Axis(of.axis, form)
    points = [curve["plain"], *curve["levers"][lever]]
    points = [point for point in points if (point["ndcg_change"] or 0) >= DRAWN_LOSS]
    lines = [
        Line(
            lever,
            [(point[column], point["ndcg_change"] or 0) for point in points],
            [point["ci"] if point["weights"] else None for point in points],
            [f"{point['weights'].get(lever, 0):g}" for point in points],
        )
    ]
    legend = ["this weight alone"]
    if (chosen := curve.get("configured")) and chosen["ndcg_change"] is not None:
        place = [(chosen[column], chosen["ndcg_change"])]
        lines.append(Line("configured weights", place, [chosen["ci"]], series=len(legend)))
        legend.append("configured weights")
    axes = Axes(axis, Axis("change of NDCG", signed_percent, percent_tick), zero=True)
    chart = line_plot(lines, axes, label=f"NDCG against {axis.title}")
    return figure(f"rerank.{lever}", chart, legend if len(legend) > 1 else ())


def point_figures() -> dict[str, tuple[str, Format]]:
    """Figure of a point of the curve → its title, and how people read it."""
    of_metrics = {
        metric.name: (capitalised(metric.title), percent if metric.is_share else number)
        for metric in metric_table.METRICS
        if metric.on_curve
    }
    return {
        "gini": ("Gini", number),
        "top_1_percent": ("Top 1 %", percent),
        "creators_shown": ("Creators shown", percent),
        **of_metrics,
    }


def _points(curve: Figures) -> str:
    shown = {key: value for key, value in point_figures().items() if key in curve["plain"]}
    points = [curve["plain"], *(p for points in curve["levers"].values() for p in points)]
    if curve.get("configured"):
        points.append(curve["configured"])
    rows: list[list[Cell]] = []
    for point in points:
        weights = ", ".join(f"{lever}={w:g}" for lever, w in point["weights"].items() if w)
        change = point["ndcg_change"]
        below = _change_span(point["ci"])
        ndcg: list[Cell] = [
            number(point["ndcg"]),
            "–" if change is None else (signed_percent(change), below),
        ]
        rows.append(
            [weights or "none", *ndcg, *(form(point[key]) for key, (_, form) in shown.items())]
        )
    return table(["Weights", "NDCG", "Change", *(name for name, _ in shown.values())], rows)


def _change_span(interval: Sequence[float] | None) -> str:
    return f"{signed_percent(interval[0])} to {signed_percent(interval[1])}" if interval else ""

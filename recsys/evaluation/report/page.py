"""report.html: one file that opens anywhere, the verdict first, then tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from recsys.evaluation.baselines import table as baseline_table
from recsys.evaluation.baselines.table import MadeWith
from recsys.evaluation.metrics import table as metric_table
from recsys.evaluation.metrics.accuracy import WARM_AND_COLD
from recsys.evaluation.report.charts import (
    SHARES,
    Axes,
    Axis,
    Dot,
    Line,
    dot_plot,
    figure,
    line_plot,
)
from recsys.evaluation.report.fairness_page import fairness_section, tradeoff_section
from recsys.evaluation.report.html import Cell, details, element, page, table, text
from recsys.evaluation.report.schema import (
    Against,
    Figures,
    Report,
    Setup,
    Shown,
    Tested,
    Verdict,
)
from recsys.evaluation.report.verdict import MAIN, best_baseline
from recsys.evaluation.report.wording import (
    baseline_lines,
    capitalised,
    metric_title,
    number,
    p_value,
    percent,
    percent_span,
    ranker_title,
    signed,
    slice_title,
    span,
    tick,
    whole_tick,
)

WARM_AND_COLD_NOTE = (
    "Warm and cold: among all videos, where who shows fewer of the one kind gains on the other. "
    "Warm among warm, cold among cold: the order within the slice alone."
)
LEVELS = {"good": "good", "warn": "look at", "info": "note"}
TASK_COLUMNS = (
    "auc",
    "log_loss",
    "normalised_entropy",
    "observed_rate",
    "predicted_rate",
    "calibration_error",
)
TERMS = {
    "Relevant": "A video that the user had a positive event with in the test and none before it.",
    "Ranked": "All videos of the catalogue; no negatives are sampled. Videos with equal scores "
    "count as being in random order, and every figure is the mean over all such orders.",
    "Warm, cold": "With and without a training event. Only the slice's videos count as relevant, "
    "while all are ranked: who never shows cold videos does well on warm ones by that alone.",
    "Warm among warm, cold among cold": "Only the slice's videos are ranked, so that the figure is "
    "about the order within the slice, whatever else a list would show.",
    "95 % interval": "Bootstrap over users; of coverage, Gini and top share a jackknife over "
    "blocks of users.",
    "p": "Sign-flip test over users. In tables of several metrics it is corrected for their number "
    "(Holm); the verdict goes by one metric that was fixed beforehand.",
    "Gini": "0 where all creators have the same exposure, near 1 where one has all.",
    "AUC": "Chance that a positive event is scored above a negative one; equal scores count half.",
    "Normalised entropy": "Log loss over that of always saying the mean rate; below 1 is better.",
}
"""What words of the page mean, beside those of the tables of metrics and baselines."""


def render(report: Report, *, title: str) -> str:
    """The page of a report of `assemble`.

    Args:
        report: The report. Besides what `assemble` gives it may hold `against`, `{"run": name,
            "rows": rows of compare}`, and `training`, a row an epoch with `epoch` and figures.
        title: Names the run.
    """
    return page(
        title,
        [
            text("h1", title),
            text("p", _setting(report["setup"]), "soft"),
            _verdict(report["verdict"]),
            *_rankers(report),
            *_against(report.get("against")),
            *_slices(report),
            *_tasks(report["evaluation"][MAIN].get("tasks", {})),
            *fairness_section(report),
            *tradeoff_section(report.get("tradeoff")),
            *_training(report.get("training", ())),
            text("h2", "What the figures mean"),
            element("dl", [text("dt", k) + text("dd", v) for k, v in _glossary(report).items()]),
        ],
    )


def _glossary(report: Report) -> dict[str, str]:
    """Term → what it means: of the metrics, of the page's words and of the baselines measured."""
    of_metrics = {f"{capitalised(m.title)}@k": m.help for m in metric_table.METRICS}
    of_baselines = {b.name: b.help for b in baseline_table.BASELINES}
    measured = {name: of for name, of in of_baselines.items() if name in report["evaluation"]}
    return {**of_metrics, **TERMS, **measured}


def _setting(setup: Setup) -> str:
    history = "left out of" if setup["mask_history"] else "kept in"
    parts = [
        f"{setup['users']:,} test users with {setup['relevant']:,} relevant videos",
        f"{setup['videos']:,} videos ranked for each, {setup['cold_videos']:,} of them without a "
        "training event",
        f"videos that a user already liked are {history} the ranking",
    ]
    if drawn := setup.get("drawn"):
        parts.append(
            f"{drawn['users']:,} drawn at random of {drawn['of']:,} users with an event in the "
            "test: the intervals hold what that leaves uncertain"
        )
    if setup.get("split"):
        parts.append(str(setup["split"]))
    if setup["bootstrap"]:
        parts.append(f"95 % intervals from {setup['bootstrap']} resamplings of users")
    return "; ".join(parts) + "."


def _verdict(verdict: Verdict) -> str:
    findings = [
        element(
            "li",
            [
                text("span", LEVELS[finding["level"]], f"level {finding['level']}"),
                text("span", finding["text"]),
            ],
        )
        for finding in verdict["findings"]
    ]
    parts = [
        text("p", verdict["headline"], "headline"),
        text("p", verdict["evidence"], "evidence"),
        element("ul", findings),
    ]
    return element("section", parts, f"verdict {verdict['decision']}")


def _rankers(report: Report) -> list[str]:
    setup, rankers = report["setup"], report["evaluation"]
    metric, k = setup["metric"], setup["headline_k"]
    order = sorted(rankers, key=lambda name: -rankers[name]["all"][metric])
    main = order.index(MAIN)
    dots = [_dot(ranker_title(n), rankers[n]["all"], metric, series=int(n != MAIN)) for n in order]
    beyond = {
        f"{metric.name}@{k}": capitalised(metric.title)
        for metric in metric_table.METRICS
        if f"{metric.name}@{k}" in rankers[MAIN]
    }
    head = ["Ranker", *beyond.values()]
    rows: list[list[Cell]] = [
        [ranker_title(name), *(figure_cell(rankers[name], column) for column in beyond)]
        for name in order
    ]
    chart = dot_plot(dots, label=f"{metric_title(metric)} of every ranker")
    return [
        text("h2", "The model beside simple rankers"),
        element("div", [figure(f"{metric_title(metric)}, all users", chart)], "charts"),
        _metric_table(rankers, order, k),
        *(
            details(f"First {cutoff} instead of first {k}", [_metric_table(rankers, order, cutoff)])
            for cutoff in setup["k"]
            if cutoff != k
        ),
        *_baselines_note(setup.get("baselines")),
        text("h3", f"Warm and cold videos: {metric_title(metric)}"),
        text("p", WARM_AND_COLD_NOTE, "soft"),
        _slice_table(rankers, order, metric),
        details("Tests of the differences", [_tests(report["comparisons"])]),
        text("h3", f"What the first {k} are like"),
        table(head, rows, main),
    ]


def _baselines_note(about: MadeWith | None) -> list[str]:
    """What the baselines were made with, and how that was chosen."""
    return [text("p", line, "soft") for line in baseline_lines(about)] if about else []


def _slice_table(rankers: Mapping[str, Figures], order: Sequence[str], metric: str) -> str:
    rows: list[list[Cell]] = [
        [
            ranker_title(name),
            *(figure_cell(rankers[name].get(part), metric) for part in WARM_AND_COLD),
        ]
        for name in order
    ]
    users = [(rankers[MAIN].get(part) or {"users": 0})["users"] for part in WARM_AND_COLD]
    titles = [slice_title(part).capitalize() for part in WARM_AND_COLD]
    heads = [f"{title} ({count:,} users)" for title, count in zip(titles, users, strict=True)]
    return table(["Ranker", *heads], rows, order.index(MAIN))


def _metric_table(rankers: Mapping[str, Figures], order: Sequence[str], k: int) -> str:
    measured = [f"{metric.name}@{k}" for metric in metric_table.METRICS]
    names = [name for name in measured if name in rankers[MAIN]["all"]]
    rows: list[list[Cell]] = [
        [ranker_title(ranker), *(figure_cell(rankers[ranker]["all"], name) for name in names)]
        for ranker in order
    ]
    return table(["Ranker", *map(metric_title, names)], rows, order.index(MAIN))


def _tests(comparisons: Mapping[str, Sequence[Tested]]) -> str:
    rows = [
        [f"{ranker_title(name)}, {metric_title(row['metric'])}", *_test_cells(row)]
        for name, tests in comparisons.items()
        for row in tests
    ]
    return table(["Model against", "Users", "Model", "Other", "Difference", "Test"], rows)


def _test_cells(row: Tested | Shown) -> list[Cell]:
    low, high = row["low"], row["high"]
    bounds = None if low is None or high is None else (low, high)
    return [
        f"{row['users']:,}",
        number(row["ours"]),
        number(row["theirs"]),
        (signed(row["difference"]), span(bounds)),
        "–" if row["p_holm"] is None else p_value(row["p_holm"]),
    ]


def _against(against: Against | None) -> list[str]:
    if not against:
        return []
    head = ["Metric", "Users", "This run", "Other run", "Difference", "Test"]

    def rows_of(tested: bool) -> list[list[Cell]]:
        rows = [row for row in against["rows"] if (row["p_holm"] is not None) == tested]
        return [[metric_title(row["metric"]), *_test_cells(row)] for row in rows]

    return [
        text("h2", f"This run beside {against['run']}"),
        table(head, rows_of(True)),
        details("Other metrics, which are not tested", [table(head, rows_of(False))]),
    ]


def _slices(report: Report) -> list[str]:
    metric = report["setup"]["metric"]
    names = [MAIN, *([rival] if (rival := best_baseline(report)) else [])]
    titles = [ranker_title(name) for name in names]
    kinds = _slice_kinds([report["evaluation"][name] for name in names])
    charts = [
        figure(name, dot_plot(dots, label=f"{metric_title(metric)}: {name}"), titles)
        for name, rows in kinds.items()
        if (dots := _slice_dots(rows, metric))
    ]
    head = ["Slice", "Users", *(f"{title}, {metric_title(metric)}" for title in titles)]
    rows: list[list[Cell]] = [
        [f"{kind}: {name}", f"{parts[0]['users']:,}", *(figure_cell(p, metric) for p in parts)]
        for kind, slices in kinds.items()
        for name, parts in slices.items()
        if parts[0]["users"]
    ]
    note = (
        f"{metric_title(metric)} where only the videos of a slice count as relevant, or only its "
        "users count. All videos are ranked in each, but for those among a slice's own."
    )
    return [
        text("h2", "Where it is good and where it is not"),
        text("p", note, "soft"),
        element("div", charts, "charts"),
        details("The same as a table", [table(head, rows)]),
    ]


def _slice_kinds(rankers: Sequence[Figures]) -> dict[str, dict[str, list[Figures]]]:
    """Kind of slice → slice → its figures, a ranker each."""
    model = rankers[0]
    by_kind = {
        "Training events of the video": {
            slice_title(name): [ranker[name] for ranker in rankers] for name in WARM_AND_COLD
        },
        "Known positives of the user": {
            name: [ranker["history"][name] for ranker in rankers] for name in model["history"]
        },
        "Age of the video at the test cut": {
            name: [ranker["video_age"][name] for ranker in rankers] for name in model["video_age"]
        },
    }
    return {kind: slices for kind, slices in by_kind.items() if slices}


def _slice_dots(rows: Mapping[str, Sequence[Figures]], metric: str) -> list[Dot]:
    return [
        _dot(f"{name} ({parts[0]['users']:,})", part, metric, series=series)
        for name, parts in rows.items()
        for series, part in enumerate(parts)
        if part and part["users"]
    ]


def _tasks(tasks: Mapping[str, Figures]) -> list[str]:
    if not tasks:
        return []
    head = [
        "Task",
        "Events",
        "AUC",
        "Log loss",
        "Normalised entropy",
        "Observed",
        "Predicted",
        "Calibration error",
    ]
    rows = [
        [
            name if part == "all" else f"{name}, {part}",
            f"{figures['events']:,}",
            *(figure_cell(figures, c) for c in TASK_COLUMNS),
        ]
        for name, task in tasks.items()
        for part, figures in (("all", task), ("warm", task.get("warm")), ("cold", task.get("cold")))
        if figures and figures["events"]
    ]
    axes = Axes(
        replace(SHARES, title="predicted"), replace(SHARES, title="observed"), diagonal=True
    )
    charts = [
        figure(
            f"{name}: predicted and observed",
            line_plot([Line(name, _bins(task))], axes, label=f"Calibration of {name}"),
            note="Dots on the broken line are predictions that come true as often as they say.",
        )
        for name, task in tasks.items()
        if task.get("calibration")
    ]
    return [
        text("h2", "Scoring: what is predicted of each event"),
        table(head, rows),
        element("div", charts, "charts"),
    ]


def _bins(task: Figures) -> list[tuple[float, float]]:
    return [(part["predicted"], part["observed"]) for part in task["calibration"]]


def _training(epochs: Sequence[Figures]) -> list[str]:
    """One chart a figure, since losses have scales of their own."""
    if not epochs:
        return []
    names = [
        name
        for name in epochs[-1]
        if name.endswith("_loss") or "@" in name or name.endswith("_auc")
    ]
    charts = []
    for name in names:
        points = [(row["epoch"], row[name]) for row in epochs if row.get(name) is not None]
        shown = metric_title(name)
        axes = Axes(Axis("epoch", tick, whole_tick), Axis())
        charts.append(
            figure(shown, line_plot([Line(shown, points)], axes, label=f"{shown} by epoch"))
        )
    note = "Losses are of the training events, other figures of the validation events."
    return [text("h2", "Training"), text("p", note, "soft"), element("div", charts, "charts")]


def _dot(row: str, figures: Figures, metric: str, *, series: int) -> Dot:
    return Dot(row, figures[metric], (figures.get("ci") or {}).get(metric), series)


def figure_cell(figures: Figures | None, name: str) -> Cell:
    """A figure with its interval below; a dash where there is none."""
    value = (figures or {}).get(name)
    if value is None:
        return "–"
    interval, metric = ((figures or {}).get("ci") or {}).get(name), metric_table.metric_of(name)
    if metric is not None and metric.is_share:
        return percent(value), percent_span(interval)
    return number(value), span(interval)

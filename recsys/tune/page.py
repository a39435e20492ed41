"""sweep.html: one file that opens anywhere: who won, what mattered, and every trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recsys.config.run import RunConfig, TuneConfig
from recsys.evaluation.report.charts import (
    Axes,
    Axis,
    Dot,
    Line,
    Path,
    Scale,
    dot_plot,
    figure,
    line_plot,
    parallel_plot,
)
from recsys.evaluation.report.html import element, page, table, text
from recsys.evaluation.report.wording import number, whole_tick
from recsys.tune.population import Phase, last_with_same_settings, schedule
from recsys.tune.search import early_end, importance
from recsys.tune.space import Settings, Space, SpaceEntry
from recsys.tune.trials import (
    EPOCH,
    Trial,
    best_epoch,
    front,
    objective,
    short,
    title,
    value_of,
    winner,
)

NOT_SHOWN = {EPOCH, "timelines", "events_per_s", "waiting_share"}
"""Figures that say nothing of how good a trial is."""
MOST_CURVES = 40
"""Trials whose curves are drawn, the best ones: more could not be told apart."""


def sweep_page(
    space: Space, config: RunConfig, trials: Sequence[Trial], test: Mapping[str, float]
) -> str:
    """The page of a sweep.

    Args:
        space: What was searched.
        config: The run.
        trials: All of them; one at least did not fail.
        test: The winner's test figures.
    """
    best = winner(trials, config.tune)
    assert best is not None
    ordered = sorted(trials, key=lambda t: t.number)
    sweep = _Sweep(space, config.tune, ordered, best, early_end(space, config, ordered))
    measured = [_history(sweep), _importance(sweep), _parallel(sweep), _curves(sweep)]
    if len(config.tune.objective) > 1:
        measured.insert(1, _front(sweep))
    slices = [_slice(sweep, entry) for entry in space.values()]
    return page(
        f"Sweep: {len(trials)} trials",
        [
            text("h1", f"Sweep of {len(trials)} trials"),
            _verdict(sweep, test),
            element("div", [chart for chart in measured if chart], "charts"),
            text("h2", "Each setting alone"),
            element("div", [chart for chart in slices if chart], "charts"),
            text("h2", "All trials"),
            _table(sweep),
        ],
    )


@dataclass(frozen=True)
class _Sweep:
    space: Space
    tune: TuneConfig
    trials: Sequence[Trial]
    best: Trial
    early_end: str | None
    """Why it has fewer trials than planned; None where it has all, or is not over."""

    @property
    def title(self) -> str:
        """What people read for the objective."""
        return title(self.tune)

    @property
    def measured(self) -> list[Trial]:
        """The trials that have a value."""
        return [t for t in self.trials if math.isfinite(self.value(t))]

    def value(self, trial: Trial) -> float:
        """What a trial is worth."""
        return value_of(trial, self.tune)

    def curve(self, trial: Trial) -> list[dict[str, float]]:
        """The epochs that are drawn of a trial: of what it took over the last, where it begins.

        The winner's are drawn whole.
        """
        is_whole = trial.number == self.best.number
        return trial.epochs[0 if is_whole else max(trial.num_inherited - 1, 0) :]

    def series(self, trial: Trial) -> int:
        """The colour of a trial: the winner's is its own."""
        return 1 if trial.number == self.best.number else 0


def _verdict(sweep: _Sweep, test: Mapping[str, float]) -> str:
    best, first = sweep.best, last_with_same_settings(sweep.trials, sweep.trials[0])
    lines = [
        text("p", f"Trial {best.number} is the best: {settings_text(best.settings)}", "headline")
    ]
    value = f"{sweep.title} {number(sweep.value(best))} on the validation events"
    if sweep.tune.search != "grid" and first in sweep.measured:
        kept = best_epoch(first.epochs)  # of all behind its weights: the settings never changed
        assert kept is not None
        value += f"; the config as it was has {number(objective(kept, sweep.tune))}"
        if sweep.tune.is_population:
            count = len(first.epochs)
            value += f" after {count} epoch{'s' if count > 1 else ''}"
    lines.append(text("p", f"{value}.", "evidence"))
    if changes := schedule_text(schedule(sweep.trials, best)):
        told = "; ".join(changes)
        lines.append(text("p", f"{SCHEDULE_NOTE} {told}.", "evidence"))
    figures = ", ".join(f"{name.replace('_', ' ')} {number(v)}" for name, v in test.items())
    told = (
        f"On the test events, which were read once, for this trial alone and after it was chosen: "
        f"{figures}."
    )
    lines.append(text("p", told, "evidence"))
    if sweep.early_end is not None:
        told = f"The sweep ended early: {sweep.early_end}."
        lines.append(text("p", told, "evidence"))
    return element("div", lines, "verdict better")


SCHEDULE_NOTE = (
    "The settings are those of the winner's last epochs, in a population whose settings changed on "
    "the way; a run with them from the start is another training, and not the one measured here:"
)


def schedule_text(phases: Sequence[Phase]) -> list[str]:
    """A line for each phase of a schedule; none where the settings never changed."""
    if len(phases) < 2:
        return []
    return [
        f"epochs {phase.first_epoch} to {phase.last_epoch}: {settings_text(phase.settings)}"
        for phase in phases
    ]


def settings_text(settings: Settings) -> str:
    """Settings in one line.

    >>> settings_text({"train.lr": 0.00123456, "model.dim": 32})
    'train.lr=0.001235, model.dim=32'
    """
    return ", ".join(f"{name}={short(value)}" for name, value in settings.items())


def _history(sweep: _Sweep) -> str:
    points = [(float(t.number), sweep.value(t)) for t in sweep.measured]
    so_far = [
        (number, max(value for _, value in points[: at + 1]))
        for at, (number, _) in enumerate(points)
    ]
    svg = line_plot(
        [Line("trial", points, joined=False), Line("best so far", so_far, series=1)],
        Axes(Axis("trial", tick=whole_tick, form=whole_tick), Axis(sweep.title)),
        label="The value of each trial",
    )
    return figure("How the sweep went", svg, ["trial", "best so far"])


def _importance(sweep: _Sweep) -> str:
    if sweep.tune.is_population:  # what a trial is worth hangs on the settings before its own
        return ""
    shares = importance(sweep.space, sweep.trials, sweep.tune)
    if not shares:
        return ""
    svg = dot_plot([Dot(name, share) for name, share in shares.items()], label="Importance")
    note = "PED-ANOVA: how much of what sets the better trials apart each setting accounts for."
    return figure("What mattered", svg, note=note)


def _front(sweep: _Sweep) -> str:
    x, y, *_ = sweep.tune.objective
    there = [(t, t.best) for t in sweep.measured if t.best]
    best = {t.number for t in front(sweep.measured, sweep.tune)}
    on_front = sorted((figures[x], figures[y]) for t, figures in there if t.number in best)
    others = [(figures[x], figures[y]) for t, figures in there if t.number not in best]
    lines = [Line("trial", others, joined=False), Line("on the front", on_front, series=1)]
    axes = Axes(Axis(x.replace("_", " ")), Axis(y.replace("_", " ")))
    svg = line_plot(lines, axes, label=f"{x} against {y}")
    note = "No other trial is as good in every figure of the objective as one on the front."
    return figure("What is traded for what", svg, ["trial", "on the front"], note)


def _parallel(sweep: _Sweep) -> str:
    values = [sweep.value(t) for t in sweep.measured]
    low, high = min(values), max(values)
    scales = [_scale(entry) for entry in sweep.space.values()]
    scales.append(Scale(sweep.title, number(low), number(high)))
    paths = [
        Path(
            f"trial {t.number}: {settings_text(t.settings)}",
            [
                *(_place(entry, t.settings.get(name)) for name, entry in sweep.space.items()),
                (sweep.value(t) - low) / (high - low) if high > low else 0.5,
            ],
            series=sweep.series(t),
            pale=sweep.series(t) == 0,
        )
        for t in sorted(sweep.measured, key=sweep.series)
    ]
    svg = parallel_plot(scales, paths, label="Parallel coordinates")
    return figure("All settings together", svg, ["trial", "best trial"])


def _scale(entry: SpaceEntry) -> Scale:
    if entry.kind == "choice":
        return Scale(entry.setting, str(entry.arguments[0]), str(entry.arguments[-1]))
    low, high = entry.ends
    return Scale(entry.setting, short(low), short(high))


def _place(entry: SpaceEntry, value: object) -> float | None:
    """Where a value lies in its entry's range, from 0 to 1; None where it is in none."""
    if entry.kind == "choice":
        if value not in entry.arguments:
            return None
        return list(entry.arguments).index(value) / max(len(entry.arguments) - 1, 1)
    if not isinstance(value, int | float) or not entry.bounds[0] <= value <= entry.bounds[1]:
        return None
    low, at, high = (_scaled(entry, bound) for bound in (entry.bounds[0], value, entry.bounds[1]))
    return (at - low) / (high - low) if high > low else 0.5


def _scaled(entry: SpaceEntry, value: float) -> float:
    return math.log10(value) if entry.kind == "loguniform" else float(value)


def _slice(sweep: _Sweep, entry: SpaceEntry) -> str:
    """The value of every trial over one setting."""
    lines = []
    for series, name in enumerate(("trial", "best trial")):
        points = [
            (at, sweep.value(t))
            for t in sweep.measured
            if sweep.series(t) == series
            and (at := _across(entry, t.settings.get(entry.setting))) is not None
        ]
        lines.append(Line(name, points, series=series, joined=False))
    if not any(line.points for line in lines):
        return ""
    svg = line_plot(lines, Axes(_axis(entry), Axis(sweep.title)), label=entry.setting)
    return figure(entry.setting, svg, ["trial", "best trial"])


def _across(entry: SpaceEntry, value: object) -> float | None:
    if entry.kind == "choice":
        there = value in entry.arguments
        return float(list(entry.arguments).index(value)) if there else None
    if not isinstance(value, int | float) or (entry.kind == "loguniform" and value <= 0):
        return None
    return _scaled(entry, value)


def _axis(entry: SpaceEntry) -> Axis:
    if entry.kind == "choice":

        def named(at: float) -> str:
            there = at == round(at) and 0 <= at < len(entry.arguments)
            return str(entry.arguments[round(at)]) if there else ""

        return Axis(entry.setting, form=named, tick=named)
    if entry.kind == "loguniform":
        return Axis(
            entry.setting, form=lambda at: short(10.0**at), tick=lambda at: f"{10.0**at:.2g}"
        )
    return Axis(entry.setting)


def _curves(sweep: _Sweep) -> str:
    """The score of each epoch; nothing where trials have one epoch."""
    ranked = sorted(sweep.measured, key=sweep.value)[-MOST_CURVES:]
    if all(len(sweep.curve(t)) < 2 for t in ranked):
        return ""
    lines = [
        Line(
            f"trial {t.number}",
            [(epoch[EPOCH], epoch["score"]) for epoch in sweep.curve(t)],
            series=sweep.series(t),
            pale=sweep.series(t) == 0,
        )
        for t in sorted(ranked, key=sweep.series)
    ]
    axes = Axes(Axis("epoch", tick=whole_tick, form=whole_tick), Axis("score"))
    svg = line_plot(lines, axes, label="The score of each epoch")
    note = f"The best {MOST_CURVES} trials." if len(sweep.measured) > MOST_CURVES else ""
    return figure("Epoch by epoch", svg, ["trial", "best trial"], note)


def _table(sweep: _Sweep) -> str:
    names = list(dict.fromkeys(name for t in sweep.trials for name in t.settings))
    figures = list(dict.fromkeys(n for t in sweep.trials for n in (t.best or {}) if _shown(n)))
    rows = []
    for t in sweep.trials:
        best = t.best or {}
        rows.append(
            [
                str(t.number),
                t.error or t.state,
                str(len(t.epochs)),
                number(sweep.value(t)) if t in sweep.measured else "–",
                *(short(t.settings[name]) if name in t.settings else "–" for name in names),
                *(number(best[name]) if name in best else "–" for name in figures),
            ]
        )
    titles = [name.replace("_", " ") for name in figures]
    head = ["trial", "state", "epochs", sweep.title, *names, *titles]
    if sweep.tune.is_population:
        head.append("goes on from")
        for row, t in zip(rows, sweep.trials, strict=True):
            row.append("–" if t.parent is None else f"trial {t.parent}")
    return table(head, rows, main=sweep.trials.index(sweep.best))


def _shown(figure_name: str) -> bool:
    return figure_name not in NOT_SHOWN

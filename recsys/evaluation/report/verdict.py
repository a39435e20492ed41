"""What the figures come to: one decision, and the findings that a launch must know of."""

from __future__ import annotations

from collections.abc import Mapping

from recsys.evaluation.metrics.accuracy import WARM_AND_COLD
from recsys.evaluation.report.schema import (
    BaselineDecision,
    Figures,
    Finding,
    Measured,
    Tested,
    Verdict,
)
from recsys.evaluation.report.wording import (
    metric_title,
    number,
    p_value,
    percent,
    ranker_title,
    signed_percent,
    slice_title,
)
from recsys.inference import rerank

MAIN = "model"
PREVIOUS = "previous"
"""The bundle that the model is to replace; a baseline like any other."""
RERANKED = "model_reranked"
"""The model with the configured re-ranking; no rival of it."""
SIGNIFICANT = 0.05
CALIBRATED = 0.02
"""Mean gap of predicted and observed rate up to which a task counts as calibrated."""
TOLERATED_LOSS, WANTED_CHANGE = -0.02, -0.2
"""A re-ranking is cheap down to this change of NDCG, and effective from this one of Gini."""


def verdict(report: Measured) -> Verdict:
    """The decision and the findings, from the figures of `assemble`.

    Returns:
        `decision`: `better` where the model beats every baseline by more than chance explains,
        `worse` where the best of them beats it so, else `unclear`; a `headline` and its `evidence`;
        and `findings`, each with a `level` (`good`, `warn` or `info`) and a `text`.
    """
    parts = (_previous, _slices, _cold, _no_history, _tasks, _groups, _creators, _levers)
    return {
        **_decision(report),
        "findings": [finding for part in parts for finding in part(report)],
    }


def best_baseline(report: Measured, part: str = "all") -> str | None:
    """The ranker that is best on a slice by the headline metric, the model left out."""
    metric, rankers = report["setup"]["metric"], report["evaluation"]
    others = [name for name in rankers if name not in (MAIN, RERANKED)]
    return max(others, key=lambda name: rankers[name][part][metric], default=None)


def compared(report: Measured, ranker: str, metric: str) -> Tested | None:
    """The row that compares the model with a ranker by a metric."""
    rows = report["comparisons"].get(ranker, [])
    return next((row for row in rows if row["metric"] == metric), None)


def _decision(report: Measured) -> BaselineDecision:
    rival, metric = best_baseline(report), report["setup"]["metric"]
    if rival is None:
        headline = "There is nothing to compare the model with."
        return {"decision": "unclear", "headline": headline, "evidence": ""}
    rows = {
        name: row
        for name in report["evaluation"]
        if name not in (MAIN, RERANKED) and (row := compared(report, name, metric))
    }
    decision, by = _outcome(rows, rival)
    headline = {
        "better": "The model is better than every baseline.",
        "worse": f"The model is worse than {ranker_title(by)}.",
        "unclear": f"The model is not shown to be better than {ranker_title(by)}.",
    }[decision]
    evidence = f"Beside {ranker_title(by)}{', the best of them' if decision == 'better' else ''}: "
    return {"decision": decision, "headline": headline, "evidence": evidence + _against(rows[by])}


def _outcome(rows: Mapping[str, Tested], rival: str) -> tuple[str, str]:
    """The decision, and the baseline that it is about.

    One metric decides and every baseline must be beaten, so that no p-value needs correction.
    """
    sure = {name: row["p"] < SIGNIFICANT for name, row in rows.items()}
    if sure[rival] and rows[rival]["difference"] < 0:
        return "worse", rival
    open_ones = [name for name, row in rows.items() if not (sure[name] and row["difference"] > 0)]
    if not open_ones:
        return "better", rival
    return "unclear", min(open_ones, key=lambda name: rows[name]["difference"])


def _against(row: Tested) -> str:
    text = f"{metric_title(row['metric'])} {number(row['ours'])} against {number(row['theirs'])}"
    if row["theirs"] > 0:
        text += f"; {signed_percent(row['difference'] / row['theirs'])}"
        if row["low"] is not None and row["high"] is not None:
            low, high = (
                signed_percent(bound / row["theirs"]) for bound in (row["low"], row["high"])
            )
            text += f" (95\xa0% interval {low} to {high})"
    return f"{text}; {p_value(row['p'])}."


def _previous(report: Measured) -> list[Finding]:
    row = compared(report, PREVIOUS, report["setup"]["metric"])
    if row is None:
        return []
    about = report["setup"]["previous"]
    sure = row["p"] < SIGNIFICANT
    better, worse = sure and row["difference"] > 0, sure and row["difference"] < 0
    how = "better" if better else "worse" if worse else "not shown to be better"
    named = f"the previous bundle ({about['version']}, of {about['created'][:10]})"
    text = f"The model is {how} than {named}: {_against(row)}"
    findings = [_finding("good" if better else "warn", text)]
    if not about["same_split"]:
        text = (
            "The previous bundle was made with another split; where its test began later, it has "
            "learnt from events that it is measured on here."
        )
        findings.append(_finding("warn", text))
    return findings


def _slices(report: Measured) -> list[Finding]:
    """Where the best baseline of a slice is not beaten, and whether there is no such slice."""
    metric, whole = report["setup"]["metric"], report["evaluation"][MAIN]
    findings, ahead = [], []
    for part in WARM_AND_COLD:
        if not whole.get(part, {"users": 0})["users"]:
            continue
        rival = best_baseline(report, part)
        row = compared(report, rival, f"{part}/{metric}") if rival else None
        if rival is None or row is None:
            continue
        title = slice_title(part)
        sure = row["p"] < SIGNIFICANT
        if sure and row["difference"] > 0:
            ahead.append(title)
            continue
        how = "is worse than" if sure else "is not shown to be better than"
        text = f"{title.capitalize()} videos: the model {how} {ranker_title(rival)}."
        findings.append(_finding("warn", f"{text} {_against(row)}"))
    if ahead:
        text = f"On these slices the model is better than every baseline: {', '.join(ahead)}."
        findings.append(_finding("good", text))
    return findings


def _cold(report: Measured) -> list[Finding]:
    metric = report["setup"]["metric"]
    cold = report["evaluation"][MAIN].get("cold", {"users": 0})
    if not cold["users"]:
        text = "No test user liked a video without training events: cold start is not measured."
        return [_finding("info", text)]
    figure = f"{metric_title(metric)} {number(cold[metric])} for {cold['users']:,} users"
    row = compared(report, "random", f"cold/{metric}")
    if row is None:
        return [_finding("info", f"Videos without training events: {figure}.")]
    sure = row["p"] < SIGNIFICANT
    beyond_chance = sure and row["difference"] > 0
    how = "are found better" if beyond_chance else "are not shown to be found better"
    if sure and not beyond_chance:
        how = "are found worse"
    text = (
        f"Videos without training events {how} than by chance: {figure}, against "
        f"{number(row['theirs'])} of a random order ({p_value(row['p'])})."
    )
    return [_finding("good" if beyond_chance else "warn", text)]


def _no_history(report: Measured) -> list[Finding]:
    metric, whole = report["setup"]["metric"], report["evaluation"][MAIN]
    part = whole.get("no_history", {"users": 0})
    if not part["users"]:
        return []
    share = percent(part["users"] / whole["all"]["users"])
    text = (
        f"Users without history ({share} of all) get {metric_title(metric)} "
        f"{number(part[metric])}; all users {number(whole['all'][metric])}."
    )
    return [_finding("info", text)]


def _tasks(report: Measured) -> list[Finding]:
    findings = []
    for name, task in report["evaluation"][MAIN].get("tasks", {}).items():
        if task["auc"] is None:
            findings.append(_finding("warn", f"{name}: the test has only one kind of label."))
            continue
        gap = task["calibration_error"]
        text = (
            f"{name}: AUC {number(task['auc'])}; predicted and observed rates differ by "
            f"{100 * gap:.1f} percentage points on average."
        )
        findings.append(_finding("good" if gap <= CALIBRATED else "warn", text))
    return findings


def _groups(report: Measured) -> list[Finding]:
    findings = []
    for column, groups in report["evaluation"][MAIN].get("groups", {}).items():
        if groups["gap"] is None:
            findings.append(_finding("info", f"{column}: {groups['warnings'][-1]}."))
            continue
        sure = groups["p"] < SIGNIFICANT
        how = "are served differently" if sure else "show no gap that chance does not explain"
        text = (
            f"{column}: groups {how} ({groups['best']} over {groups['worst']}: "
            f"{number(groups['gap'])} {metric_title(groups['metric'])}, {p_value(groups['p'])})."
        )
        findings.append(_finding("warn" if sure else "good", text))
    return findings


def _creators(report: Measured) -> list[Finding]:
    model = report["evaluation"][MAIN].get("creators")
    if not model:
        return []
    liked = model["relevance"]
    text = (
        f"{percent(model['shown'])} of {model['creators']:,} creators are shown. The top 1 % have "
        f"{percent(model['top_1_percent'])} of the places and {percent(liked['top_1_percent'])} of "
        f"what users liked (Gini {number(model['gini'])} and {number(liked['gini'])})."
    )
    return [_finding("info", text)]


def _levers(report: Measured) -> list[Finding]:
    curve: Figures = report.get("tradeoff") or {"levers": {}}
    levers = curve["levers"]
    evening = [lever.setting for lever in rerank.LEVERS if lever.figure == "gini"]
    points = [point for setting in evening for point in levers.get(setting, ())]
    if not points:
        return []
    cheap = [point for point in points if (point["ndcg_change"] or 0) >= TOLERATED_LOSS]
    best = min(cheap, key=lambda point: point["gini_change"], default=None)
    if best and round(best["gini_change"], 2) <= WANTED_CHANGE:
        return [_finding("good", f"{_bought(best)}.")]
    wanted = f"{signed_percent(WANTED_CHANGE)} Gini of creator exposure"
    reached = [point for point in points if round(point["gini_change"], 2) <= WANTED_CHANGE]
    dear = max(reached, key=lambda point: point["ndcg_change"] or 0, default=None)
    parts = [
        f"No setting of the re-ranking comes to {wanted} for {percent(-TOLERATED_LOSS)} NDCG",
        f"the cheapest that does: {_bought(dear)}" if dear else "none does at any price",
        f"within that price: {_bought(best)}" if best else "every one costs more",
        f"the lists hold {percent(curve['plain']['creators_shown'])} of the creators, "
        "and places for the others are taken from videos that users like more",
    ]
    return [_finding("info", "; ".join(parts) + ".")]


def _bought(point: Figures) -> str:
    weights = ", ".join(f"rerank.{name}={value:g}" for name, value in point["weights"].items())
    return (
        f"{weights} changes the Gini of creator exposure by "
        f"{signed_percent(point['gini_change'])} and NDCG by "
        f"{signed_percent(point['ndcg_change'] or 0)}"
    )


def _finding(level: str, text: str) -> Finding:
    return {"level": level, "text": text}

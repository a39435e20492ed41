import itertools

import numpy as np
import pytest

from recsys.config.run import EvaluateConfig
from recsys.errors import InputError
from recsys.evaluation.metrics.bootstrap import (
    Table,
    bootstrap_means,
    draws,
    interval,
    jackknife_interval,
    sign_flip_test,
)
from recsys.evaluation.report.compare import align, compare, corrected, main_metrics


def test_draws_are_as_many_as_users_and_repeat_with_the_seed() -> None:
    first = np.concatenate(list(draws(7, count=20, seed=3)))
    assert first.shape == (20, 7) and (first.sum(1) == 7).all()
    assert (first == np.concatenate(list(draws(7, count=20, seed=3)))).all()
    assert (first != np.concatenate(list(draws(7, count=20, seed=4)))).any()


def test_interval_has_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(5, 2, 1000)
    table = {"all": Table(np.arange(1000), values[:, None])}
    low, high = interval(bootstrap_means(table, 1000, count=400, seed=0)["all"][:, 0]) or (0, 0)
    error = values.std() / np.sqrt(1000)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)


def test_a_slice_is_resampled_with_the_same_users() -> None:
    values = np.arange(10.0)
    tables = {
        "all": Table(np.arange(10), values[:, None]),
        "part": Table(np.array([2, 5]), values[[2, 5], None]),
    }
    means = bootstrap_means(tables, 10, count=50, seed=0)
    weights = np.concatenate(list(draws(10, count=50, seed=0)))
    assert means["all"][:, 0] == pytest.approx(weights @ values / 10)
    for weight, mean in zip(weights, means["part"][:, 0], strict=True):
        drawn = weight[2] + weight[5]
        expected = (2 * weight[2] + 5 * weight[5]) / drawn if drawn else np.nan
        assert mean == pytest.approx(expected, nan_ok=True)


def test_interval_needs_resamplings() -> None:
    assert interval(np.full(50, np.nan)) is None and interval(np.ones(10)) is None


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=20)
    left_out = (values.sum() - values) / 19
    low, high = jackknife_interval(values.mean(), left_out)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std(ddof=1) / np.sqrt(20))


def test_sign_flip_test_by_counting() -> None:
    differences = np.array([3.0, 1.0, 0.5, -1.0])
    signs = np.array(list(itertools.product([1, -1], repeat=4)))
    exact = (np.abs(signs @ differences) >= 3.5).mean()
    assert sign_flip_test(differences, count=20_000) == pytest.approx(exact, abs=0.02)


def test_sign_flip_test_tells_a_difference_from_noise() -> None:
    noise = np.random.default_rng(0).normal(size=500)
    assert sign_flip_test(noise - noise.mean()) > 0.9
    assert sign_flip_test(noise + 0.5) < 0.001


def test_compare() -> None:
    rng = np.random.default_rng(0)
    theirs = {"ndcg@10": rng.random(400), "cold/ndcg@10": np.full(400, np.nan), "x": np.ones(400)}
    ours = {
        "ndcg@10": np.clip(theirs["ndcg@10"] + 0.05, 0, 1),
        "cold/ndcg@10": rng.random(400),
        "hr@10": np.ones(400),
        "x": np.ones(400),
    }
    rows = compare(ours, theirs, EvaluateConfig(bootstrap=100))
    assert [row["metric"] for row in rows] == ["ndcg@10", "x"]  # what both have
    better, same = rows
    assert better["difference"] == pytest.approx(better["ours"] - better["theirs"])
    assert better["low"] <= better["difference"] <= better["high"] and better["p"] < 0.001
    assert same["p"] == 1 and same["low"] == same["high"] == 0
    row = compare(ours, theirs, EvaluateConfig(bootstrap=0), metrics=["x"])[0]
    assert row["low"] is None


def test_only_what_was_fixed_beforehand_is_tested() -> None:
    rows = [{"metric": name, "p": p} for name, p in (("a", 0.02), ("b", 0.001), ("c", 0.03))]
    tested = corrected(rows, {"a", "c"})
    assert [row["p_holm"] for row in tested] == [0.04, None, 0.04]
    assert [row["p"] for row in tested] == [0.02, None, 0.03]
    assert main_metrics(EvaluateConfig(k=(50, 5))) == [
        "ndcg@5",
        "hr@5",
        "recall@5",
        "mrr@5",
        "warm/ndcg@5",
        "cold/ndcg@5",
        "warm_among_warm/ndcg@5",
        "cold_among_cold/ndcg@5",
    ]


def test_many_differences_are_normal() -> None:
    differences = np.random.default_rng(0).normal(0.02, 1, 10_000)
    tossed = sign_flip_test(differences)
    assert sign_flip_test(np.append(differences, 1e-9)) == pytest.approx(tossed, abs=0.01)


def test_runs_without_a_common_user_are_refused() -> None:
    with pytest.raises(InputError, match="no test user in common"):
        align(["a"], ["b"])

"""What a service takes: the page is what the script prints, and the arithmetic is right."""

from dataclasses import replace

import pytest

from clusters.capacity import ASSUMED, MEASURED, PRICES, Capacity, Load, changed, main
from tests.clusters.test_clusters import CLUSTERS, ROOT

FIGURES = {**MEASURED, **ASSUMED, **PRICES}
DAY_S = 86_400


def capacity(load: Load, **own: float) -> Capacity:
    return Capacity(load, {n: replace(f, value=own.get(n, f.value)) for n, f in FIGURES.items()})


def test_the_page_is_what_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == (CLUSTERS / "CAPACITY.md").read_text()


def test_every_measured_figure_stands_in_the_table_that_it_names() -> None:
    measured = (ROOT / "tests/benchmarks/README.md").read_text()
    for name, figure in MEASURED.items():
        benchmark = figure.source.partition(":")[0]
        section = measured.partition(f"\n## {benchmark}: ")[2].partition("\n## ")[0]
        assert f" {figure.value:,g}" in section, name


def test_events_and_lists_of_a_small_service() -> None:
    """A peak of 300 events/s and 30 lists/s: one database, two machines for safety."""
    small = capacity(Load(1e6, 200_000, 100 * DAY_S), peak=3, shown=10, serve=2.2, index=4)
    assert small.peak_events == pytest.approx(300)
    assert small.list_ms == pytest.approx(3.0)
    log, endpoint, *_ = small.parts()
    assert log.cores == endpoint.cores / 2 == 16
    assert "30 lists/s × 3.0 ms" in endpoint.how


def test_money_is_hours_storage_and_traffic() -> None:
    """3,600 events/s of a core over 3.6 million events: 1,000 s … of 0.1 $ an hour, a month."""
    load = Load(1000, 1000, 3.6e6)
    own = {"days": 1, "prepare": 1000, "core": 0.1, "event_bytes": 60, "object": 1}
    prepare = capacity(load, **own).parts()[2]
    assert prepare.cores == pytest.approx(1 / 24)
    assert prepare.storage_gb == pytest.approx(3.6e6 * (10 + 40) / 1e9)
    assert prepare.dollars == pytest.approx(30 * 0.1 + 0.18)


def test_training_pays_for_passes_and_for_workers_that_wait() -> None:
    load = Load(1000, 1000, 3.6e6)
    train = capacity(load, days=1, passes=2, train=1000, two_workers=1.0).parts()[4]
    assert train.cores * 24 == pytest.approx(2 * 2)


def test_histories_are_as_long_as_users_have_events() -> None:
    few = capacity(Load(1000, 1000, 1000), days=30, history=200, history_bytes=100)
    assert few.histories_gb == pytest.approx(1000 * 30 * 100 / 1e9)
    many = capacity(Load(1000, 1000, 1e6), days=30, history=200, history_bytes=100)
    assert many.histories_gb == pytest.approx(1000 * 200 * 100 / 1e9)


def test_the_worst_limit_comes_first() -> None:
    load = Load(1e6, 1e5, 1000 * DAY_S)
    limits = capacity(load, peak=1, log=100, follow=1).limits()
    assert limits[0].name == "events that one database takes"
    assert limits[0].ratio == pytest.approx(10)
    assert [limit.ratio for limit in limits] == sorted((x.ratio for x in limits), reverse=True)


def test_figures_of_ones_own() -> None:
    own = changed(MEASURED, ["serve=0.9"])
    assert (own["serve"].value, own["serve"].source) == (0.9, "given")
    assert own["log"] is MEASURED["log"]
    for wrong in ("serve=fast", "serve=0", "serve=inf", "speed=3", "serve"):
        with pytest.raises(SystemExit, match="give NAME=NUMBER above 0, NAME one of serve, index"):
            changed(MEASURED, [wrong])

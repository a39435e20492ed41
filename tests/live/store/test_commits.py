"""Which calls share a commit, and whose fault is whose; no database."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from recsys.live.store.commits import MOST_ROWS, GroupCommit


class Gone(RuntimeError):
    """The database is gone."""


class Store:
    """Keeps what is written; the first commit waits until it is told to go on."""

    def __init__(self) -> None:
        self.commits: list[list[str]] = []
        self.writing, self.go_on = threading.Event(), threading.Event()

    def write(self, calls: Sequence[str]) -> list[str]:
        self.writing.set()
        assert self.go_on.wait(20)
        self.commits.append(list(calls))
        if any("bad" in call for call in calls):
            raise ValueError("bad")
        if any("gone" in call for call in calls):
            raise Gone("gone")
        return [call.upper() for call in calls]


def submit_behind(store: Store, calls: list[str]) -> list[str]:
    """Hands in calls while a first one is being committed; their results or errors."""
    group: GroupCommit[str, str] = GroupCommit(store.write, fatal=Gone)
    with ThreadPoolExecutor(len(calls) + 1) as threads:
        first = threads.submit(lambda: group.submit("first").result())
        assert store.writing.wait(20)
        waiting = []
        for number, call in enumerate(calls):
            waiting.append(threads.submit(lambda call=call: group.submit(call).result()))
            while group._waiting.qsize() <= number:  # in the order of the list
                pass
        store.go_on.set()
        assert first.result(20) == "FIRST"
        outcomes = [repr(f.exception(20)) if f.exception(20) else f.result() for f in waiting]
    group.close()
    return outcomes


def test_what_waits_is_committed_together() -> None:
    store = Store()
    assert submit_behind(store, ["a", "b", "c"]) == ["A", "B", "C"]
    assert store.commits == [["first"], ["a", "b", "c"]]


def test_a_commit_ends_where_it_has_rows_enough() -> None:
    store, large = Store(), "x" * MOST_ROWS
    submit_behind(store, ["a", large, "b"])
    assert store.commits == [["first"], ["a", large], ["b"]]


def test_one_calls_fault_is_its_own() -> None:
    store = Store()
    assert submit_behind(store, ["a", "bad", "c"]) == ["A", "ValueError('bad')", "C"]
    assert store.commits[1:] == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]


def test_where_the_database_is_gone_nobody_waits_for_it_twice() -> None:
    store = Store()
    outcomes = submit_behind(store, ["gone", "b", "c"])
    assert outcomes == ["Gone('gone')"] * 3
    assert store.commits[1:] == [["gone", "b", "c"], ["gone"]]


def test_closing_commits_what_waits_and_takes_nothing_more() -> None:
    store = Store()
    group: GroupCommit[str, str] = GroupCommit(store.write, fatal=Gone)
    store.go_on.set()
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(lambda n=n: group.submit(f"call {n}").result()) for n in range(8)]
        group_results = sorted(w.result(20) for w in waiting)
    group.close()
    group.close()
    assert group_results == [f"CALL {n}" for n in range(8)]
    with pytest.raises(RuntimeError, match="closed"):
        group.submit("late")


def test_a_caller_who_leaves_takes_only_what_was_not_begun() -> None:
    store = Store()
    group: GroupCommit[str, str] = GroupCommit(store.write, fatal=Gone)
    first = group.submit("first")
    assert store.writing.wait(20)
    leaves, stays = group.submit("leaves"), group.submit("stays")
    assert leaves.cancel() and not first.cancel()
    store.go_on.set()
    assert (first.result(20), stays.result(20)) == ("FIRST", "STAYS")
    group.close()
    assert store.commits == [["first"], ["stays"]]

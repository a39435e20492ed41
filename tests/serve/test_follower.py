"""What a follower remembers of ids that nobody knows."""

from recsys.serve.follower import BITS, NamedIds


def test_no_id_that_was_named_is_missed_and_few_others_are_taken_for_one() -> None:
    named = NamedIds()
    for number in range(100_000):
        named.add(f"v{number}")
    assert all(f"v{number}" in named for number in range(100_000))
    # (1 - e^(-4 * 100,000 / 2^23))^4 = 5e-6 of the others.
    assert sum(f"w{number}" in named for number in range(100_000)) <= 5


def test_however_many_there_are_it_takes_the_same_memory() -> None:
    named = NamedIds()
    for number in range(1000):
        named.add(f"café {number}" * 20)
    assert len(named._bits) == BITS // 8 == 2**20
    assert "café" not in named

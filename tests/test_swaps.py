"""What the benchmark of swaps counts."""

import asyncio

import httpx
import pytest

from tests.benchmarks.swaps import Client, Failure, Run, tell


@pytest.mark.parametrize(
    ("sent", "ended", "in_flight"),
    [(9.0, 11.0, True), (10.0, 10.0, True), (8.0, 9.9, False), (10.1, 10.3, False)],
)
def test_what_is_sent_after_a_kill_is_not_forgiven(
    sent: float, ended: float, in_flight: bool
) -> None:
    assert Failure(sent, ended, "disconnected").was_in_flight(kill=10.0) is in_flight


def test_events_are_counted_by_what_became_of_them() -> None:
    """One is kept, one was there, one is refused, and at one the connection ends."""
    answers = iter(
        [
            httpx.Response(200, json={"event_ids": ["a"], "statuses": ["accepted"]}),
            httpx.Response(200, json={"event_ids": ["a"], "statuses": ["duplicate"]}),
            httpx.Response(503, text="the log is away"),
        ]
    )

    def answer(request: httpx.Request) -> httpx.Response:
        try:
            return next(answers)
        except StopIteration:
            raise httpx.ReadError("the connection ended") from None

    async def events(run: Run) -> None:
        client = Client("http://server")
        await client.http.aclose()
        client.http = httpx.AsyncClient(
            base_url="http://server", transport=httpx.MockTransport(answer)
        )
        async with client.http:
            for number in range(4):
                await tell(client, run, number)

    run = Run({}, 0)
    asyncio.run(events(run))
    assert run.events == {"accepted": 1, "duplicate": 1}
    assert [failure.text for failure in run.failed] == [
        "/v1/events 503 the log is away",
        "/v1/events ReadError('the connection ended')",
    ]

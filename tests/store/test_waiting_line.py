"""When queued jobs may begin: each slot takes the next as soon as it is free."""

import pytest

from core.store.waiting_line import expected_starts


@pytest.mark.parametrize(
    ("slots", "running", "queued", "starts"),
    [
        (1, [], [10, 20, 5], [0, 10, 30]),
        (2, [30], [10, 10, 10, 10], [0, 10, 20, 30]),
        (2, [30, 7], [10, None, 1], [7, 17, 30]),
        (1, [None], [10], [None]),  # nobody knows what runs
        (1, [], [None, 10], [0, None]),  # nor how long the first takes
        (0, [], [10], [None]),  # no worker
        (1, [50, 20], [10], [20]),  # a worker went down to one slot meanwhile
    ],
)
def test_expected_starts(slots, running, queued, starts):
    assert expected_starts(slots, running, queued) == starts

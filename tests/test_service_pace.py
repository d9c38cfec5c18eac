import pytest

from camelbell_core.service.pace import Pace


def refuse_all(pace, now, wait=1.0):
    """Have every request that may be sent refused at once; return the time when the next may be sent."""
    for _ in range(pace.allowed(now)):
        pace.refused(now, now + 0.1, wait)
    return now + 0.1 + wait


def test_a_lone_refusal_among_successes_stops_nothing_for_long():
    pace = Pace(64)
    pace.refused(sent=1.0, now=1.2, wait=1.0)
    assert pace.allowed(1.2) == 0
    pace.succeeded(sent=0.9)  # it was sent before the refused one: it tells nothing
    assert pace.allowed(1.2) == 0
    pace.succeeded(sent=1.1)
    assert pace.allowed(1.2) == 64


def test_where_nothing_succeeds_all_wait_and_then_one_probe_goes_first():
    pace = Pace(64)
    later = refuse_all(pace, 1.0)
    assert pace.allowed(later - 0.01) == 0
    assert pace.allowed(later) == 1
    pace.succeeded(sent=later)
    assert 1 < pace.allowed(later) <= 32


def test_it_never_stalls_however_long_the_service_refuses():
    pace, now = Pace(256), 0.0
    for _ in range(50):
        now = refuse_all(pace, now)
        assert pace.allowed(now) == 1
    assert pace.limit >= 1


def test_a_service_that_comes_back_gets_as_many_as_before():
    pace, now = Pace(64), 0.0
    for _ in range(10):
        now = refuse_all(pace, now)
    trips = 0
    while pace.allowed(now) < 64:
        trips += 1
        for _ in range(pace.allowed(now)):
            pace.succeeded(sent=now)
        now += 0.2
    assert 10 < trips < 40  # up by adding, not at once


@pytest.mark.parametrize("capacity", [10, 50])
def test_a_service_that_takes_only_so_many_is_not_run_over(capacity):
    pace, now, share = Pace(200), 0.0, []
    for _ in range(300):
        sent = pace.allowed(now)
        for number in range(sent):
            if number < capacity:
                pace.succeeded(sent=now)
            else:
                pace.refused(sent=now, now=now + 0.1, wait=0.05)
        share.append(max(0, sent - capacity) / max(1, sent))
        now += 0.2
    assert sum(share[50:]) / 250 < 0.25
    assert pace.limit > capacity / 4


def test_failures_lower_the_number_once_a_round_trip():
    pace = Pace(100)
    for _ in range(100):
        pace.failed(sent=1.0, now=1.2)
    assert pace.limit == 70
    for _ in range(100):
        pace.failed(sent=1.3, now=1.5)
    assert pace.limit == pytest.approx(49)
    assert pace.allowed(1.5) == 49  # failures are no refusals: nobody waits

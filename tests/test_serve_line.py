"""The line before the model: order of arrival, its bound, leaving it, and what it says when it is full."""

from threading import Event

import pytest

from camelbell_plugins.frontend_serve.line import Full, Line


class Job:
    """Waits until it is let go; notes that it was done."""

    def __init__(self, done, name, free=False):
        self.name, self._done, self.begun, self.go = name, done, Event(), Event()
        if free:
            self.go.set()

    def __call__(self):
        self.begun.set()
        assert self.go.wait(30)
        self._done.append(self.name)


@pytest.mark.parametrize("workers", [1, 3])
def test_jobs_begin_in_the_order_of_their_arrival(workers):
    line, done = Line(workers, 64), []
    first = [Job(done, f"first {number}") for number in range(workers)]
    last = Job(done, "last", free=True)
    for job in first:
        line.enter(job)
        assert job.begun.wait(30)
    assert (line.running, line.waiting) == (workers, 0)
    begun = []
    for number in range(40):
        line.enter(lambda number=number: begun.append(number))
    line.enter(last)
    assert line.waiting == 41
    first[0].go.set()  # one worker serves the rest
    assert last.begun.wait(30)
    assert begun == list(range(40))
    for job in first:
        job.go.set()
    line.close()


@pytest.mark.parametrize("room", [0, 1, 5])
def test_a_full_line_lets_nobody_in_and_says_when_to_come_again(room):
    line, done = Line(1, room), []
    running = Job(done, "running")
    line.enter(running)
    assert running.begun.wait(30)
    waiting = [Job(done, number, free=True) for number in range(room)]
    for job in waiting:
        line.enter(job)
    late = Job(done, "late", free=True)
    with pytest.raises(Full) as caught:
        line.enter(late)
    assert caught.value.retry_after >= 1
    running.go.set()
    for job in waiting:
        assert job.begun.wait(30)
    line.close()
    assert "late" not in done


def test_who_leaves_makes_room_and_is_not_served():
    line, done = Line(1, 1), []
    running, leaver, heir = Job(done, "running"), Job(done, "leaver", True), Job(done, "heir", True)
    line.enter(running)
    assert running.begun.wait(30)
    line.enter(leaver)
    assert line.leave(leaver)
    assert not line.leave(leaver)
    assert not line.leave(running)
    line.enter(heir)
    running.go.set()
    assert heir.begun.wait(30)
    line.close()
    assert "leaver" not in done


def test_a_closed_line_lets_nobody_in():
    line = Line(2, 5)
    line.close()
    with pytest.raises(Full):
        line.enter(lambda: None)

"""Who is at work at which VM, and in what order."""

import threading
from collections.abc import Iterator

import pytest

from agent.vm_turns import VmTurns

pytestmark = pytest.mark.hostile

DEADLINE_S = 30.0


class Work:
    """Work that goes on at a VM until the test says so."""

    def __init__(self, at_once: int) -> None:
        self._changed = threading.Condition()
        self._may_end: set[str] = set()
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.turns = VmTurns(self._work, at_once)

    def _work(self, vm: str) -> None:
        with self._changed:
            self.begun.append(vm)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: vm in self._may_end, DEADLINE_S)
            self.ended.append(vm)

    def let_end(self, *vms: str) -> None:
        with self._changed:
            self._may_end |= set(vms)
            self._changed.notify_all()

    def wait_begun(self, *vms: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: set(self.begun) == set(vms), DEADLINE_S), (
                self.begun
            )


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work(at_once=2)
    yield work
    work.let_end(*"abcdef")
    work.turns.close(DEADLINE_S)


def test_no_more_than_so_many_are_worked_at_and_the_others_follow(work: Work) -> None:
    for vm in "abcdcd":  # two are asked for already
        work.turns.ask(vm)
    work.wait_begun("a", "b")
    work.let_end("b")
    work.wait_begun("a", "b", "c")
    assert work.ended == ["b"]
    work.let_end("a")
    work.wait_begun("a", "b", "c", "d")
    assert work.ended == ["b", "a"]


def test_vm_that_is_held_is_worked_at_when_it_gets_free_and_others_meanwhile(work: Work) -> None:
    assert work.turns.hold("a", 0)
    for vm in "abc":
        work.turns.ask(vm)
    work.wait_begun("b", "c")
    work.turns.release("a")
    work.let_end("b")
    work.wait_begun("a", "b", "c")
    assert not work.turns.hold("a", 0)
    assert not work.turns.hold_before_work("a")
    work.let_end("a")
    assert work.turns.hold("a", DEADLINE_S)
    assert "a" in work.ended


def test_work_that_a_job_waits_for_comes_before_what_was_asked_for_earlier(work: Work) -> None:
    for vm in "abcd":
        work.turns.ask(vm)
    work.wait_begun("a", "b")
    assert work.turns.hold("e", 0)
    work.turns.release_for_work("e")
    assert not work.turns.hold("e", 0)  # the work comes first
    work.let_end("a")
    work.wait_begun("a", "b", "e")
    work.let_end("e")
    assert work.turns.hold("e", DEADLINE_S)


def test_job_goes_before_work_whose_turn_does_not_come_and_the_work_waits_on(work: Work) -> None:
    for vm in "ab":
        work.turns.ask(vm)
    work.wait_begun("a", "b")
    assert work.turns.hold("c", 0)
    work.turns.release_for_work("c")
    assert work.turns.hold_before_work("c")
    work.let_end("a", "b")
    assert work.turns.hold("a", DEADLINE_S)
    assert work.begun == ["a", "b"]
    work.turns.release("c")
    work.wait_begun("a", "b", "c")


def test_nothing_begins_after_closing(work: Work) -> None:
    assert work.turns.hold("c", 0)
    for vm in "abc":
        work.turns.ask(vm)
    work.wait_begun("a", "b")
    work.let_end("a", "b")
    work.turns.close(DEADLINE_S)
    assert sorted(work.ended) == ["a", "b"]
    work.turns.release("c")
    work.turns.ask("d")
    assert sorted(work.begun) == ["a", "b"]
    assert work.turns.hold("d", 0)

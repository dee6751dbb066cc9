"""docs/api.md itself: no value can leave it, change its name or its type without being noticed."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.api_page.check import Outcome, call_problems, outcome_problems, page_problems
from tests.api_page.json_lines import Node, documents
from tests.api_page.page import Call, Page, parse
from tests.api_page.statuses import printed_error

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "api.md"
_MEMBER: Final = re.compile(r'^\s*"(?P<name>\w+)": (?P<value>[^{\[]*?),?$')
_FACT: Final = re.compile(
    r'(?:^  Code: |^  Message: |^\s*"reason": "|^\s*"field": "|^\s*"description": ")([^"]+)'
)


def _as_shown(call: Call) -> Outcome:
    """The outcome that is what the page shows."""
    error = printed_error(call.answer.text) if call.answer.language == "text" else None
    if error is not None:
        assert error.exit_code is not None, error
        return Outcome(error.exit_code, "", call.answer.text)
    return Outcome(0, call.answer.text, "")


@pytest.fixture(scope="module")
def page() -> Page:
    return parse(PAGE.read_text())


def _put(call: Call, number: int, lines: list[str]) -> Call:
    """The call with other lines instead of one of its answer's."""
    shown = call.answer.text.splitlines()
    text = "\n".join([*shown[:number], *lines, *shown[number + 1 :]])
    return replace(call, answer=replace(call.answer, text=text))


def _members(call: Call) -> Iterator[tuple[int, str, re.Match[str]]]:
    """The members with plain values of a JSON answer, by index of their lines."""
    if call.answer.language == "json":
        for number, line in enumerate(call.answer.text.splitlines()):
            if match := _MEMBER.fullmatch(line):
                yield number, line, match


def _dropped(call: Call) -> Iterator[Call]:
    # Any message of a stream but the last may have less than is shown: it was early.
    *_, last = documents(call.answer.text) if call.answer.language == "json" else [Node({}, 0)]
    for number, line, _ in _members(call):
        if line.endswith(",") and number + 1 >= last.line:  # without it there still is JSON
            yield _put(call, number, [])


def _renamed(call: Call) -> Iterator[Call]:
    for number, line, match in _members(call):
        yield _put(call, number, [line.replace(match["name"], match["name"] + "s", 1)])


def _of_another_type(call: Call) -> Iterator[Call]:
    for number, line, match in _members(call):
        value = match["value"]
        other = "17" if value.startswith('"') else f'"{value}"'
        yield _put(call, number, [line.replace(value, other, 1)])


def _error_lines_changed(call: Call) -> Iterator[Call]:
    """Code, sentence, reason and violated fields are other ones."""
    if call.answer.text.startswith("ERROR:"):
        for number, line in enumerate(call.answer.text.splitlines()):
            if match := _FACT.search(line):
                yield _put(call, number, [line.replace(match[1], f"X{match[1]}", 1)])


def _lines_of_text_dropped(call: Call) -> Iterator[Call]:
    if call.answer.language == "text" and not call.answer.text.startswith("ERROR:"):
        for number in range(len(call.answer.text.splitlines())):
            yield _put(call, number, [])


def test_the_page_agrees_with_itself_and_with_the_protos(page: Page) -> None:
    assert not page_problems(page)
    for call in page.calls:
        assert not outcome_problems(call, _as_shown(call))


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (_dropped, 300),
        (_renamed, 300),
        (_of_another_type, 300),
        (_error_lines_changed, 15),
        (_lines_of_text_dropped, 20),
    ],
)
def test_a_change_of_the_page_is_noticed_wherever_it_is(
    page: Page, change: Callable[[Call], Iterator[Call]], least: int
) -> None:
    tried = 0
    for call in page.calls:
        for rotten in change(call):
            found = call_problems(rotten) + outcome_problems(rotten, _as_shown(call))
            assert found, f"{call.section}:\n{rotten.answer.text}"
            assert all(abs(problem.line - call.answer.line) < 200 for problem in found)
            tried += 1
    assert tried >= least

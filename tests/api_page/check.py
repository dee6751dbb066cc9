"""Compares what a call answered with what the page shows, and what it shows with the contract."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.api_page.contract import find_method, message_problems
from tests.api_page.json_lines import JsonProblem, Node, documents
from tests.api_page.page import Block, Call, Keep, Page, variables
from tests.api_page.shapes import Problem, differences, sentence
from tests.api_page.statuses import PrintedError, printed_error
from tests.api_page.streams import stream_differences

# The hub's address, the simulated site's control socket, the folder of the shell.
GIVEN_VARIABLES = ("SENDENSE_HUB", "SENDENSE_SIMULATOR_CONTROL", "PWD")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended."""

    exit_code: int
    stdout: str
    stderr: str


def page_problems(page: Page) -> list[Problem]:
    """What is wrong with a page whoever answers: methods, messages, values that are kept."""
    found: list[Problem] = []
    known = set(GIVEN_VARIABLES)
    last: Call | None = None
    for step in page.steps:
        if isinstance(step, Call):
            last = step
            found += call_problems(step)
            found += [
                Problem(step.command.line, f"${name} has no value yet")
                for name in variables(step.command.text)
                if name not in known and f"{name}=$(" not in step.command.text
            ]
        elif isinstance(step, Keep):
            known.add(step.name)
            shown = kept_value(step, last.answer.text) if last else None
            if shown is None or (step.value and shown != step.value):
                place = ".".join(step.path)
                found.append(Problem(step.line, f"{place} of the answer is {shown}"))
    return found


def call_problems(call: Call) -> list[Problem]:
    """What no hub can answer: methods that there are not, messages that the protos do not have."""
    if call.method is None:
        return []
    method = find_method(call.method)
    if method is None:
        return [Problem(call.command.line, f"there is no method {'/'.join(call.method)}")]
    if call.answer.language != "json":
        return []
    try:
        shown = documents(call.answer.text, call.answer.line)
    except JsonProblem as problem:
        return [Problem(problem.line, problem.problem)]
    return [problem for node in shown for problem in message_problems(method.output_type, node)]


def outcome_problems(call: Call, outcome: Outcome) -> list[Problem]:
    """How an outcome differs from the answer that the page shows."""
    try:
        return list(_outcome_problems(call, outcome))
    except JsonProblem as problem:
        return [Problem(call.answer.line, f"page or answer cannot be read: {problem}")]


def kept_value(keep: Keep, answer: str) -> str | None:
    """The value that a step keeps, out of an answer; None when it is not there."""
    try:
        value = documents(answer)[0].plain
        for name in keep.path:
            value = value[int(name)] if isinstance(value, list) else value[name]
    except (JsonProblem, IndexError, KeyError, TypeError, ValueError):
        return None
    return str(value)


def _outcome_problems(call: Call, outcome: Outcome) -> Iterator[Problem]:
    answer = call.answer
    error = printed_error(answer.text, answer.line) if answer.language == "text" else None
    if error is not None:
        yield from _error_problems(error, outcome)
        return
    if outcome.exit_code != 0 or outcome.stderr:
        told = outcome.stderr.strip() or outcome.stdout.strip()
        yield Problem(answer.line, f"the call ended with {outcome.exit_code}: {told}")
    elif answer.language == "text":
        yield from _text_problems(answer, outcome.stdout)
    else:
        yield from _message_problems(call, documents(outcome.stdout))


def _message_problems(call: Call, actual: Sequence[Node]) -> Iterator[Problem]:
    shown = documents(call.answer.text, call.answer.line)
    method = find_method(call.method) if call.method else None
    if method is not None and method.server_streaming and len(shown) > 1:
        yield from stream_differences(shown, actual)
    elif len(shown) != len(actual):
        yield Problem(call.answer.line, f"{len(actual)} messages, not {len(shown)}")
    else:
        for node, value in zip(shown, actual, strict=True):
            yield from differences(node, value.plain)


def _text_problems(answer: Block, stdout: str) -> Iterator[Problem]:
    shown, actual = answer.text.splitlines(), stdout.splitlines()
    for number, line in enumerate(shown):
        if number >= len(actual) or line != actual[number]:
            told = repr(actual[number]) if number < len(actual) else "missing"
            yield Problem(answer.line + number, f"the line is {told}")
            return
    if len(actual) > len(shown):
        yield Problem(answer.line + len(shown), f"a line is missing: {actual[len(shown)]!r}")


def _error_problems(shown: PrintedError, outcome: Outcome) -> Iterator[Problem]:
    actual = printed_error(outcome.stderr)
    if actual is None:
        told = outcome.stderr.strip() or outcome.stdout.strip()
        yield Problem(shown.line, f"no error, but {outcome.exit_code}: {told}")
        return
    if actual.code != shown.code:
        yield Problem(shown.line, f"the code is {actual.code}: {actual.message}")
    if outcome.exit_code != shown.exit_code:
        yield Problem(shown.line, f"grpcurl ended with {outcome.exit_code}")
    if sentence(actual.message) != sentence(shown.message):
        yield Problem(shown.line, f"the message is {actual.message!r}")
    if len(actual.details) != len(shown.details):
        yield Problem(shown.line, f"{len(actual.details)} details, not {len(shown.details)}")
    for node, detail in zip(shown.details, actual.details, strict=False):
        yield from differences(node, detail.plain)
        if _facts(node) != _facts(detail):
            yield Problem(node.line, f"the detail is {_facts(detail)}")


def _facts(detail: Node) -> str:
    """A detail of an error, without what differs from run to run."""
    return sentence(json.dumps(detail.plain, sort_keys=True))

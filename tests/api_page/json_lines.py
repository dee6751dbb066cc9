"""JSON in which every value knows its line, so that a finding names the place in the page."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_TOKEN: Final = re.compile(
    r'[{}\[\],:]|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null'
)
_WORDS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None}


class JsonProblem(ValueError):
    """A block is not JSON; `line` is the place."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its line. Objects and arrays hold nodes."""

    value: Any
    line: int

    @property
    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, Mapping):
            return {name: node.plain for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        return self.value


def documents(text: str, first_line: int = 1) -> list[Node]:
    """The JSON documents that follow each other in a text. Raises JsonProblem."""
    tokens = list(_tokens(text, first_line))
    reader = _Reader(tokens)
    found = []
    while not reader.at_end:
        found.append(reader.value())
    return found


def _tokens(text: str, first_line: int) -> Iterator[tuple[str, int]]:
    at, line = 0, first_line
    while at < len(text):
        if text[at].isspace():
            line += text[at] == "\n"
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise JsonProblem(line, f"no JSON: {text[at:].splitlines()[0]!r}")
        yield match[0], line
        at = match.end()


class _Reader:
    def __init__(self, tokens: Sequence[tuple[str, int]]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._tokens)

    def value(self) -> Node:
        token, line = self._next()
        if token == "{":
            return Node(self._members(), line)
        if token == "[":
            return Node(self._elements(), line)
        return Node(self._scalar(token, line), line)

    def _members(self) -> dict[str, Node]:
        members: dict[str, Node] = {}
        if self._peek() == "}":
            self._next()
            return members
        while True:
            name, line = self._next()
            if not name.startswith('"'):
                raise JsonProblem(line, f"a name is expected, not {name}")
            key = self._scalar(name, line)
            if key in members:
                raise JsonProblem(line, f"{key} is there twice")
            self._expect(":")
            members[key] = Node(self.value().value, line)
            if self._expect(",", "}") == "}":
                return members

    def _elements(self) -> list[Node]:
        elements: list[Node] = []
        if self._peek() == "]":
            self._next()
            return elements
        while True:
            elements.append(self.value())
            if self._expect(",", "]") == "]":
                return elements

    def _scalar(self, token: str, line: int) -> Any:
        if token in _WORDS:
            return _WORDS[token]
        if token.startswith('"'):
            return _text(token, line)
        if token in "{}[],:":
            raise JsonProblem(line, f"a value is expected, not {token}")
        return float(token) if set(token) & set(".eE") else int(token)

    def _expect(self, *wanted: str) -> str:
        token, line = self._next()
        if token not in wanted:
            raise JsonProblem(line, f"{' or '.join(wanted)} is expected, not {token}")
        return token

    def _peek(self) -> str:
        return "" if self.at_end else self._tokens[self._at][0]

    def _next(self) -> tuple[str, int]:
        if self.at_end:
            raise JsonProblem(self._tokens[-1][1] if self._tokens else 0, "ends in mid-value")
        self._at += 1
        return self._tokens[self._at - 1]


def _text(token: str, line: int) -> str:
    try:
        return str(json.loads(token))
    except ValueError as error:
        raise JsonProblem(line, f"no text: {token}") from error

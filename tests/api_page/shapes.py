"""Whether two JSON values have one shape: the same names, types and kinds of text.

What differs from site to site and run to run is left open: ids, times, sizes,
sentences. Constants (enumerations, reasons, codes) are not: they have to be equal.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.api_page.json_lines import Node

_SECONDS: Final = r"\d{10}(?:-\d+)?"
_JOB: Final = rf"backup-[a-z0-9._-]+?-{_SECONDS}"
_CONTEXT: Final = rf"ctx-{_JOB}"
_REPOSITORY: Final = rf"repo-[a-z0-9._-]+?-{_SECONDS}"
_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# The first that matches all of a text is its kind.
KINDS: Final[Mapping[str, re.Pattern[str]]] = {
    kind: re.compile(pattern)
    for kind, pattern in {
        "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6}|\.\d{9})?Z",
        "job id": _JOB,
        "context id": _CONTEXT,
        "repository id": _REPOSITORY,
        "agent id": r"agent-[a-z0-9._-]+-[0-9a-f]{32}",
        "uuid": _UUID,
        "change id": r"(?:[0-9a-f]{2}[ -]){15}[0-9a-f]{2}/\d+",
        "layer": rf"{_CONTEXT}/{_JOB}/disk-\d+\.qcow2",
        "digest": r"[0-9a-f]{64}",
        "constant": r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+",
        "number": r"\d+",
        "address": r"\d+\.\d+\.\d+\.\d+:\d+",
        "file of a datastore": r"\[[^]]+\] .+\.vmdk",
        "path": r"(?:/[\w.@+-]+)+",
    }.items()
}
_IN_SENTENCES: Final = (
    (re.compile(_CONTEXT), "<context id>"),
    (re.compile(_JOB), "<job id>"),
    (re.compile(_REPOSITORY), "<repository id>"),
    (re.compile(r"(?<![\w/])/[\w./-]+"), "<path>"),
    (re.compile(r"\d+"), "<number>"),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Where the page differs, and how."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"docs/api.md:{self.line}: {self.text}"


def kind_of(text: str) -> str:
    """What a text is: an id, a time, a digest, a constant, ..., or just text."""
    for kind, pattern in KINDS.items():
        if pattern.fullmatch(text):
            return kind
    return "text"


def sentence(text: str) -> str:
    """A sentence without the ids, paths and numbers that differ from run to run."""
    for pattern, name in _IN_SENTENCES:
        text = pattern.sub(name, text)
    return text


def differences(page: Node, actual: Any, path: str = "") -> Iterator[Problem]:
    """How an answer differs in shape from what the page shows."""
    shown = page.value
    if isinstance(shown, Mapping) and isinstance(actual, Mapping):
        for name, node in shown.items():
            if name in actual:
                yield from differences(node, actual[name], _below(path, name))
            else:
                yield Problem(node.line, f"{_below(path, name)} is not in the answer")
        for name in actual:
            if name not in shown:
                yield Problem(page.line, f"the answer has {_below(path, name)}, too")
    elif isinstance(shown, list) and isinstance(actual, list):
        if len(shown) != len(actual):
            yield Problem(page.line, f"{path} has {len(actual)} elements, not {len(shown)}")
        for number, (node, value) in enumerate(zip(shown, actual, strict=False)):
            yield from differences(node, value, f"{path}[{number}]")
    else:
        yield from _scalar_differences(page, actual, path)


def _scalar_differences(page: Node, actual: Any, path: str) -> Iterator[Problem]:
    shown = page.value
    if _type(shown) != _type(actual):
        yield Problem(page.line, f"{path} is {_type(actual)}, not {_type(shown)}")
    elif isinstance(shown, str):
        kind, other = kind_of(shown), kind_of(actual)
        if (kind, other) == ("text", "number"):
            return  # a name may be digits alone
        if kind != other or (kind == "constant" and shown != actual):
            yield Problem(page.line, f"{path} is {actual!r} ({other}), not {shown!r} ({kind})")
    elif isinstance(shown, bool) and shown != actual:
        yield Problem(page.line, f"{path} is {actual}, not {shown}")


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, Mapping):
        return "an object"
    return "an array" if isinstance(value, list) else "null"


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

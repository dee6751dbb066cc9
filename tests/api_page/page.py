"""The page as steps: calls with the answers it shows, values to keep, other commands.

In docs/api.md every fenced block is one of these:

- `sh` with a grpcurl call, followed by `json` or `text`: a call and its answer;
- `sh` with lines `NAME=value   # path.to.field`: a value of the answer above to keep;
- `sh` with `make`: how to set up what the page is read against;
- any other `sh`: a command that has to succeed.

A comment `<!-- test: words -->`, which no reader sees, is something that the test
has to do at that place because a reader does it by hand; `<!-- test: NAME=path.to.field -->`
keeps a value that the reader's shell has already.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

_FENCE: Final = "```"
_DIRECTION: Final = re.compile(r"<!-- test: (?P<words>.+) -->")
_KEPT_UNSEEN: Final = re.compile(r"(?P<name>[A-Z][A-Z0-9_]*)=(?P<path>\S+)")
_HEADING: Final = re.compile(r"(?P<level>#{2,3}) (?P<title>.+)")
_KEPT: Final = re.compile(r"(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>\S+) +# (?P<path>\S+)")
_METHOD: Final = re.compile(r"\b([a-z]\w*(?:\.\w+)+)/([A-Z]\w+)")
_VARIABLE: Final = re.compile(r"\$([A-Z][A-Z0-9_]*)")


class PageProblem(ValueError):
    """The page cannot be read as steps; `line` is the place."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its first line of text."""

    language: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A grpcurl call and the answer that the page shows."""

    section: str
    command: Block
    answer: Block

    @property
    def method(self) -> tuple[str, str] | None:
        """Service and method; None for list and describe. Of several calls, the last one's."""
        found = _METHOD.findall(self.command.text)
        return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class Keep:
    """A value of the answer above that later steps use as `$name`; "" where it is not shown."""

    line: int
    name: str
    value: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A command without grpcurl."""

    command: Block


@dataclass(frozen=True, slots=True)
class Setup:
    """What makes the site that the page is read against."""

    command: Block


@dataclass(frozen=True, slots=True)
class Direction:
    """What the test has to do at this place."""

    line: int
    words: str


Step = Call | Keep | Command | Setup | Direction


@dataclass
class Page:
    """Steps in their order, and the text of each section (`## Title` and `### Title`)."""

    steps: list[Step] = field(default_factory=list)
    sections: dict[str, list[str]] = field(default_factory=dict)

    @property
    def calls(self) -> list[Call]:
        return [step for step in self.steps if isinstance(step, Call)]


def parse(text: str) -> Page:
    """Read a page. Raises PageProblem."""
    page = Page()
    section, chapter = "", ""
    asked: Block | None = None
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith(_FENCE):
            end = _end_of_block(lines, at)
            block = Block(line.removeprefix(_FENCE).strip(), at + 1, "\n".join(lines[at:end]))
            at = end + 1
            asked = _take(page, section, block, asked)
        elif heading := _HEADING.fullmatch(line):
            if len(heading["level"]) == 2:
                chapter = section = heading["title"]
            else:
                section = f"{chapter}/{heading['title']}"
            if section in page.sections:
                raise PageProblem(at, f"section {section} is there twice")
            page.sections[section] = []
        elif direction := _DIRECTION.fullmatch(line):
            page.steps.append(_directed(at, direction["words"]))
        elif section:
            page.sections[section].append(line)
        if asked and _no_answer_follows(lines, at):
            raise PageProblem(asked.line, "the call has no answer")
    return page


def _directed(line: int, words: str) -> Keep | Direction:
    kept = _KEPT_UNSEEN.fullmatch(words)
    if kept is None:
        return Direction(line, words)
    return Keep(line, kept["name"], "", tuple(kept["path"].split(".")))


def _no_answer_follows(lines: Sequence[str], at: int) -> bool:
    """Whether a call that has no answer yet gets none any more."""
    return at >= len(lines) or _HEADING.fullmatch(lines[at]) is not None


def variables(command: str) -> list[str]:
    """Names of the variables that a command uses."""
    return _VARIABLE.findall(command)


def _end_of_block(lines: Sequence[str], begin: int) -> int:
    for number in range(begin, len(lines)):
        if lines[number].startswith(_FENCE):
            return number
    raise PageProblem(begin, "the block has no end")


def _take(page: Page, section: str, block: Block, asked: Block | None) -> Block | None:
    """Add a block's steps; the block itself when it is a call that waits for its answer."""
    if block.language in ("json", "text"):
        if asked is None:
            raise PageProblem(block.line, f"a {block.language} block that answers no call")
        page.steps.append(Call(section, asked, block))
        return None
    if block.language != "sh":
        raise PageProblem(block.line, f"a block of {block.language or 'no language'}")
    if asked is not None:
        raise PageProblem(asked.line, "the call has no answer")
    if "make " in block.text:
        page.steps.append(Setup(block))
    elif "grpcurl " in block.text:
        return block
    elif kept := _kept(block):
        page.steps.extend(kept)
    else:
        page.steps.append(Command(block))
    return None


def _kept(block: Block) -> list[Keep]:
    found = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        match = _KEPT.fullmatch(line)
        if match is None:
            return []
        found.append(Keep(number, match["name"], match["value"], tuple(match["path"].split("."))))
    return found

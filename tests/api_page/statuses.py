"""An error as grpcurl prints it to standard error."""

import re
from dataclasses import dataclass
from typing import Final

from grpc import StatusCode

from tests.api_page.json_lines import JsonProblem, Node, documents

_HEAD: Final = re.compile(r"ERROR:\n  Code: (?P<code>\w+)\n  Message: (?P<message>.*)")
_DETAIL: Final = re.compile(r"^  \d+\)\t")
_INDENT: Final = "    \t"
# grpcurl ends with this and the number of the status code.
EXIT_CODE_BASE: Final = 64


@dataclass(frozen=True, slots=True)
class PrintedError:
    """Code as grpcurl spells it, sentence, and the details with their lines."""

    code: str
    message: str
    details: list[Node]
    line: int

    @property
    def exit_code(self) -> int | None:
        """What grpcurl ends with for it; None for a code that there is not."""
        wanted = self.code.lower()
        for status in StatusCode:
            if status.name.replace("_", "").lower() == wanted.replace("canceled", "cancelled"):
                return EXIT_CODE_BASE + int(status.value[0])
        return None


def printed_error(text: str, first_line: int = 1) -> PrintedError | None:
    """Read it; None for a text that is no printed error. Raises JsonProblem for broken details."""
    head = _HEAD.match(text)
    if head is None:
        return None
    after = text[: head.end()].count("\n") + 1
    details: list[Node] = []
    block: list[str] = []
    begin = 0

    def close() -> None:
        if block:
            details.extend(documents("\n".join(block), begin))

    for number, line in enumerate(text.splitlines()[after:], first_line + after):
        if line == "  Details:":
            continue
        if _DETAIL.match(line):
            close()
            block, begin = [_DETAIL.sub("", line)], number
        elif line.startswith(_INDENT) and block:
            block.append(line.removeprefix(_INDENT))
        else:
            raise JsonProblem(number, f"no part of an error: {line!r}")
    close()
    return PrintedError(head["code"], head["message"], details, first_line)

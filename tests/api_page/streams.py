"""Messages of a stream: how many there are, and how far each one is along, differs each time."""

from collections.abc import Iterator, Mapping, Sequence

from tests.api_page.json_lines import Node
from tests.api_page.shapes import Problem, differences, kind_of


def stream_differences(page: Sequence[Node], actual: Sequence[Node]) -> Iterator[Problem]:
    """The last message has the shape that the page shows of it; of all others, those that came
    have nothing that the page lacks, and those shown have nothing that did not come."""
    if not actual:
        yield Problem(page[0].line, "the answer has no message")
        return
    yield from differences(page[-1], actual[-1].plain)
    shown, came = _union(page), _union(actual)
    for number, message in enumerate(actual[:-1], 1):
        for _, text in _strange(shown, message):
            yield Problem(page[0].line, f"message {number} of the answer: {text}")
    for message in page[:-1]:
        for line, text in _strange(came, message):
            yield Problem(line, f"no message of the answer is like this: {text}")


def _union(nodes: Sequence[Node]) -> Node:
    """All that the nodes have. Elements of arrays are merged into one."""
    values = [node.value for node in nodes]
    if all(isinstance(value, Mapping) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        members = {
            name: _union([value[name] for value in values if name in value]) for name in names
        }
        return Node(members, nodes[0].line)
    if all(isinstance(value, list) for value in values):
        elements = [element for value in values for element in value]
        return Node([_union(elements)] if elements else [], nodes[0].line)
    return nodes[-1]


def _strange(known: Node, message: Node, path: str = "") -> Iterator[tuple[int, str]]:
    """What a message has that is not known, with its lines."""
    if isinstance(known.value, Mapping) and isinstance(message.value, Mapping):
        for name, node in message.value.items():
            below = f"{path}.{name}" if path else name
            if name in known.value:
                yield from _strange(known.value[name], node, below)
            else:
                yield node.line, f"it has {below}"
    elif isinstance(known.value, list) and isinstance(message.value, list):
        for node in message.value:
            yield from _strange(known.value[0], node, f"{path}[]")
    elif type(known.value) is not type(message.value):
        yield message.line, f"{path} is {message.plain!r}, not of the type of {known.plain!r}"
    elif isinstance(known.value, str) and kind_of(known.value) != kind_of(message.value):
        yield message.line, f"{path} is {message.value!r}, no {kind_of(known.value)}"

"""Results: JSON for programs, tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.table import Table

from sendense.cli.state import out
from sendense.cli.tables import Column, show_table
from sendense.cli.text import plain


def print_json(document: Message | Mapping[str, Any], *, line: bool = False) -> None:
    """One JSON document: indented, or one line (for streams of them)."""
    if isinstance(document, Message):
        document = as_dict(document)
    text = json.dumps(document, indent=None if line else 2, ensure_ascii=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json_list(name: str, messages: Iterable[Message]) -> None:
    """A list as one document, under the name that the protos give it."""
    print_json({name: [as_dict(message) for message in messages]})


def as_dict(message: Message) -> dict[str, Any]:
    """Protobuf's JSON form with the field names of the protos, unset numbers and texts included."""
    fields: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return fields


def print_table(
    columns: Sequence[str | Column], rows: Iterable[Sequence[str]], *, empty: str
) -> None:
    """A table on standard output; `empty` says that there is nothing."""
    show_table(out(), columns, rows, empty=empty)


def print_facts(facts: Mapping[str, str]) -> None:
    """Names and values of one thing; those without a value are left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, plain(value))
    out().print(table)

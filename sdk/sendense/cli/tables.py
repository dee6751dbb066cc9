"""Tables for people: columns that are never cut, and what gives way on a narrow terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from sendense.cli.text import plain

# A column of words is not made narrower than this.
NARROWEST_WORDS: Final = 12


@dataclass(frozen=True, slots=True)
class Column:
    """A column; unless it `folds` its cells stay in one line, whole, to be copied.

    On a terminal that is too narrow the columns with `spare` above 0 are left
    out, the highest first, until the rest fits.
    """

    heading: str
    folds: bool = False
    right: bool = False
    spare: int = 0


def words(heading: str, *, spare: int = 0) -> Column:
    """A column of names or sentences, which may fold."""
    return Column(heading, folds=True, spare=spare)


def number(heading: str, *, spare: int = 0) -> Column:
    """A column of numbers or sizes."""
    return Column(heading, right=True, spare=spare)


def show_table(
    console: Console, columns: Sequence[str | Column], rows: Iterable[Sequence[str]], *, empty: str
) -> None:
    """Print a table; `empty` says that there are no rows. A text for a column is its heading."""
    shown = [Column(column) if isinstance(column, str) else column for column in columns]
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        console.print(empty)
        return
    while True:
        table = _table(shown, cells)
        natural = [_width(column, cells, at) for at, column in enumerate(shown)]
        slack = sum(
            width - min(width, max(NARROWEST_WORDS, cell_len(column.heading)))
            for width, column in zip(natural, shown, strict=True)
            if column.folds
        )
        width = _widest(table, natural) - slack
        spare = max(column.spare for column in shown)
        if width <= console.width or spare == 0:
            break
        at = next(i for i, column in enumerate(shown) if column.spare == spare)
        del shown[at]
        for row in cells:
            del row[at]
    # Still too wide: the terminal breaks the lines, but nothing is cut off.
    console.width = max(console.width, width)
    console.print(table)


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=not column.folds,
        )
    for row in rows:
        table.add_row(*row)
    return table


def _width(column: Column, rows: Iterable[Sequence[str]], at: int) -> int:
    return max(cell_len(column.heading), *(cell_len(row[at]) for row in rows))


def _widest(table: Table, natural: Sequence[int]) -> int:
    """The width of a table that folds nothing: its columns and what is between them."""
    roomy = Console(width=sum(natural) + 16 * len(natural))
    return roomy.measure(table).maximum

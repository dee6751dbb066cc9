"""Pages of long lists: the token names the last row of the page before."""

import base64
import json
from typing import Any, Final

from shared.errors import InvalidArgument

DEFAULT_PAGE_ROWS: Final = 100
MAX_PAGE_ROWS: Final = 1000
# The longest sort key, a VM's name of 255 characters and an id, stays below.
MAX_TOKEN_CHARS: Final = 8192
_MAX_NUMBER: Final = 2**63 - 1


def page_rows(page_size: int) -> int:
    """Rows of a page for a requested size; 0 means 100. Raises InvalidArgument."""
    if not 0 <= page_size <= MAX_PAGE_ROWS:
        raise InvalidArgument("page_size", f"must be between 0 and {MAX_PAGE_ROWS}")
    return page_size or DEFAULT_PAGE_ROWS


def encode_token(*key: str | int) -> str:
    """A token of the last row's sort key."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def decode_token(token: str, *kinds: type) -> list[Any] | None:
    """The sort key in a token; None for the first page. Raises InvalidArgument."""
    if not token:
        return None
    if len(token) > MAX_TOKEN_CHARS:
        raise InvalidArgument("page_token", "is not a token of this hub")
    try:
        key = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("page_token", "is not a token of this hub") from error
    if (
        not isinstance(key, list)
        or len(key) != len(kinds)
        or not all(_fits(part, kind) for part, kind in zip(key, kinds, strict=True))
    ):
        raise InvalidArgument("page_token", "is not a token of this list")
    return key


def _fits(part: object, kind: type) -> bool:
    """Whether the database can be asked for it."""
    if type(part) is not kind:
        return False
    if isinstance(part, int):
        return abs(part) <= _MAX_NUMBER
    return not isinstance(part, str) or not any("\ud800" <= char <= "\udfff" for char in part)

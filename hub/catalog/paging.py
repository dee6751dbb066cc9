"""Pages of long lists: the token names the last row of the page before."""

import base64
import binascii
import json
from typing import Any, Final

from shared.errors import InvalidArgument

DEFAULT_PAGE_ROWS: Final = 100
MAX_PAGE_ROWS: Final = 1000


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
    try:
        key = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error) as error:
        raise InvalidArgument("page_token", "is not a token of this hub") from error
    if (
        not isinstance(key, list)
        or len(key) != len(kinds)
        or not all(isinstance(part, kind) for part, kind in zip(key, kinds, strict=True))
    ):
        raise InvalidArgument("page_token", "is not a token of this list")
    return key

"""Sizes as people write them."""

import re

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]iB|B|)")


def parse_size(text: str | int) -> int:
    """Bytes of "102 GiB", "512" or 512. Raises ValueError."""
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no size: a number with KiB, MiB, GiB or TiB is one")
    return int(float(match[1]) * _UNITS[match[2]])

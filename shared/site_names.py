"""What a site may be called: by agents' configurations, and wherever else one is named first."""

import re
from typing import Final

SITE_NAME_RULE: Final = (
    "must be 1 to 64 letters, digits, dots, dashes and underscores, the first one a letter or digit"
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def checked_site_name(name: str) -> str:
    """The name. Raises ValueError with the rule."""
    if not _NAME.fullmatch(name):
        raise ValueError(SITE_NAME_RULE)
    return name

"""The catalog's database."""

from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode

from shared.errors import SendenseError


@dataclass(eq=False)
class CatalogUnavailable(SendenseError):
    """The catalog's database cannot be used now."""

    code: ClassVar[str] = "CATALOG_UNAVAILABLE"
    status: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retryable: ClassVar[bool] = True
    text: ClassVar[str] = "the catalog cannot be used now, try again later: {problem}"

    problem: str

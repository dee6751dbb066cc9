"""How often a transaction is tried while the catalog cannot be used."""

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from hub.errors import CatalogUnavailable


# A full disk or a lock under the catalog often passes; a job left "running"
# in it would block its context until somebody else ends it.
def catalog_attempts() -> Retrying:
    """Attempts of one transaction, for half a minute."""
    return Retrying(
        retry=retry_if_exception_type(CatalogUnavailable),
        stop=stop_after_delay(30),
        wait=wait_exponential(multiplier=0.5, max=5),
        reraise=True,
    )


retry_catalog = catalog_attempts().wraps

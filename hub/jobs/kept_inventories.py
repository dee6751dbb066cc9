"""Inventories outlive the hub: a VM that nobody backs up must not vanish with its agent."""

import zlib

import structlog
from google.protobuf.message import DecodeError

from hub.catalog import inventories as rules
from hub.errors import AgentNotFound
from hub.jobs.agent_link import AgentLink
from hub.jobs.catalog_attempts import retry_catalog
from hub.jobs.parts import Parts
from sendense.v1.agent_session_pb2 import AgentInventory
from shared.errors import SendenseError

_log = structlog.get_logger(__name__)


def take_inventory(parts: Parts, link: AgentLink, inventory: AgentInventory) -> None:
    """An agent reported its site's VMs. That the catalog could not keep them is logged."""
    if not parts.agents.report(link, inventory.virtual_machines):
        return
    try:
        _keep(parts, link.site, packed(inventory))
    except AgentNotFound:
        pass  # removed meanwhile: it is recorded anew when it registers again
    except SendenseError as error:
        _log.warning("inventory_not_kept", site=link.site, error=str(error))


def recall_inventories(parts: Parts) -> None:
    """Know again what was kept; for start-up, before agents connect."""
    with parts.catalog.read() as session:
        kept = rules.kept_inventories(session)
    for site, content in kept.items():
        try:
            inventory = unpacked(content)
        except (DecodeError, zlib.error):
            _log.warning("inventory_not_recalled", site=site)
            continue
        parts.agents.recall(site, inventory.virtual_machines)


def packed(inventory: AgentInventory) -> bytes:
    """As it is kept: of an inventory of 8 MiB, the longest message, MariaDB would take no row."""
    return zlib.compress(inventory.SerializeToString(), level=1)


def unpacked(content: bytes) -> AgentInventory:
    """Raises DecodeError, zlib.error."""
    return AgentInventory.FromString(zlib.decompress(content))


@retry_catalog
def _keep(parts: Parts, site: str, content: bytes) -> None:
    with parts.catalog.write() as session:
        rules.keep_inventory(session, site, content, parts.now())

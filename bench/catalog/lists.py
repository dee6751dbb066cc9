"""The lists that are measured, each with values drawn anew for every call.

A call is what the hub does for one: a transaction, the rule, and the answer as bytes.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bench.catalog.estate import DAYS, EVERYWHERE, HOURLY, NOW, SEED, TILL, Machine
from bench.catalog.fill import Filled
from hub.catalog.engine import Catalog
from hub.catalog.lists import JobOrder, list_contexts, list_disks, list_jobs
from hub.catalog.paging import MAX_PAGE_ROWS, encode_token
from hub.catalog.repositories import list_repositories, use_of
from hub.jobs.states import BackupType, Status
from hub.services.messages import backup_message, context_message, disk_message
from sendense.v1 import backup_pb2, context_pb2

Values = Callable[[], Mapping[str, Any]]
# From the list's arguments to the rows of the page.
List = Callable[[Mapping[str, Any]], int]


@dataclass(frozen=True, slots=True)
class Case:
    """A list with its filters, and where in it the page is."""

    name: str
    filters: str
    position: str  # "first", or "deep": somewhere in the middle
    call: Callable[[], int]  # gives the page's rows


class Lists:
    """All cases of a filled catalog."""

    def __init__(self, catalog: Catalog, filled: Filled) -> None:
        self._catalog = catalog
        self._estate = filled.estate
        self._chance = random.Random(SEED + 2)
        self._hourly = [one for one in filled.estate.machines if one.hourly]

    def pages(self) -> Iterator[Case]:
        """Pages as long as they are when nobody asks for a length."""
        yield from self._job_cases()
        yield from self._context_cases()
        yield from self._disk_cases()
        yield Case("repositories", "none", "first", self._repositories)

    def longest_pages(self) -> Iterator[Case]:
        """Pages of as many rows as a caller can ask for."""
        longest = {"page_size": MAX_PAGE_ROWS}
        yield Case("jobs", "none", "first", lambda: self._jobs(longest))
        yield Case("contexts", "none", "first", lambda: self._contexts(longest))
        yield Case(
            "disks",
            "context, with most jobs",
            "first",
            lambda: self._disks(longest | {"context_id": self._busiest().context_id}),
        )

    def _job_cases(self) -> Iterator[Case]:
        places: dict[str, Values] = {
            "none": dict,
            "repository": lambda: {"repository": self._machine().repository_id},
            "context": lambda: {"context_id": self._machine().context_id},
            "context, with most jobs": lambda: {"context_id": self._busiest().context_id},
            "vm_name": lambda: {"vm_name": self._machine().name},
            "vm_name, one at every site": lambda: {"vm_name": self._chance.choice(EVERYWHERE)},
            "vm_name, hundreds of VMs": lambda: {"vm_name": TILL},
            "vm_name, with most jobs": lambda: {"vm_name": HOURLY},
            "vm_name, hundreds of VMs + repository": lambda: {
                "vm_name": TILL,
                "repository": self._machine().repository_id,
            },
        }
        states: dict[str, Mapping[str, Any]] = {
            "": {},
            "status=completed": {"status": Status.COMPLETED},
            "status=failed": {"status": Status.FAILED},
            "status=running, of which there is none": {"status": Status.RUNNING},
            "type=full": {"backup_type": BackupType.FULL},
            "status=failed + type=full": {
                "status": Status.FAILED,
                "backup_type": BackupType.FULL,
            },
        }
        for place, values in places.items():
            for state, fixed in states.items():
                name = " + ".join(part for part in (place, state) if part and part != "none")
                yield from self._both("jobs", name or "none", values, fixed, self._jobs)
            name = " + ".join(part for part in (place, "one day") if part != "none")
            yield Case("jobs", name, "first", self._bound(self._jobs, self._one_day(values), {}))
            name = " + ".join(part for part in (place, "oldest first") if part != "none")
            order = {"order": JobOrder.OLDEST_FIRST}
            yield from self._both("jobs", name, values, order, self._jobs)

    def _both(
        self, name: str, filters: str, values: Values, fixed: Mapping[str, Any], listed: List
    ) -> Iterator[Case]:
        yield Case(name, filters, "first", self._bound(listed, values, fixed))

        def deep() -> Mapping[str, Any]:
            order = fixed.get("order", JobOrder.NEWEST_FIRST)
            at = NOW - timedelta(days=DAYS * self._chance.uniform(0.3, 0.7))
            return {**values(), "page_token": encode_token(order, at.isoformat(), "m")}

        yield Case(name, filters, "deep", self._bound(listed, deep, fixed))

    def _context_cases(self) -> Iterator[Case]:
        places: dict[str, Values] = {
            "none": dict,
            "repository": lambda: {"repository": self._machine().repository_id},
            "site": lambda: {"site": self._machine().site},
            "site + repository": self._site_and_repository,
            "vm_name": lambda: {"vm_name": self._machine().name},
            "vm_name, one at every site": lambda: {"vm_name": self._chance.choice(EVERYWHERE)},
        }
        for place, values in places.items():
            yield Case("contexts", place, "first", self._bound(self._contexts, values, {}))
        for place in ("none", "repository", "site"):
            token = {"page_token": encode_token("erp", "")}
            yield Case("contexts", place, "deep", self._bound(self._contexts, places[place], token))

    def _disk_cases(self) -> Iterator[Case]:
        def busiest() -> Mapping[str, Any]:
            return {"context_id": self._busiest().context_id}

        def middle() -> Mapping[str, Any]:
            one = self._busiest()
            return {"context_id": one.context_id, "page_token": encode_token(one.runs // 2, 0)}

        yield Case(
            "disks",
            "context",
            "first",
            self._bound(self._disks, lambda: {"context_id": self._machine().context_id}, {}),
        )
        name = "context, with most jobs"
        yield Case("disks", name, "first", self._bound(self._disks, busiest, {}))
        yield Case("disks", name, "deep", self._bound(self._disks, middle, {}))
        yield Case(
            "disks",
            "job",
            "first",
            self._bound(self._disks, lambda: {"job_id": self._completed().last_id}, {}),
        )

    def _jobs(self, values: Mapping[str, Any]) -> int:
        with self._catalog.read() as session:
            jobs, more = list_jobs(session, **values)
            found = [backup_message(job, with_disks=False) for job in jobs]
        return _sent(backup_pb2.ListBackupsResponse(backups=found, next_page_token=more), found)

    def _contexts(self, values: Mapping[str, Any]) -> int:
        with self._catalog.read() as session:
            contexts, more = list_contexts(session, **values)
            found = [context_message(one) for one in contexts]
        return _sent(context_pb2.ListContextsResponse(contexts=found, next_page_token=more), found)

    def _disks(self, values: Mapping[str, Any]) -> int:
        with self._catalog.read() as session:
            disks, more = list_disks(session, **values)
            found = [disk_message(one) for one in disks]
        return _sent(context_pb2.ListDisksResponse(disks=found, next_page_token=more), found)

    def _repositories(self) -> int:
        """Without the free space of their folders: that is no matter of the catalog."""
        with self._catalog.read() as session:
            rows, _ = list_repositories(session)
            use_of(session, [row.id for row in rows])
        return len(rows)

    def _bound(self, listed: List, values: Values, fixed: Mapping[str, Any]) -> Callable[[], int]:
        return lambda: listed({**fixed, **values()})

    def _one_day(self, values: Values) -> Values:
        def drawn() -> Mapping[str, Any]:
            begin = NOW - timedelta(days=self._chance.uniform(10, DAYS - 10))
            return {
                **values(),
                "created_after": begin,
                "created_before": begin + timedelta(days=1),
            }

        return drawn

    def _site_and_repository(self) -> Mapping[str, Any]:
        one = self._machine()
        return {"site": one.site, "repository": one.repository_id}

    def _machine(self) -> Machine:
        return self._chance.choice(self._estate.machines)

    def _completed(self) -> Machine:
        return self._chance.choice([one for one in self._estate.machines if one.last_id])

    def _busiest(self) -> Machine:
        return self._chance.choice(self._hourly) if self._hourly else self._machine()


def _sent(answer: Any, rows: list[Any]) -> int:
    answer.SerializeToString()
    return len(rows)

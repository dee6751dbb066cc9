"""What is not a list: change ids and statistics."""

import random
from collections import Counter
from datetime import timedelta
from typing import Final

from bench.catalog.estate import NOW, SEED
from bench.catalog.fill import Filled
from bench.catalog.latency import Latency, measure
from hub.catalog.change_ids import change_id_by_word
from hub.catalog.engine import Catalog
from hub.catalog.protection import protected_vms
from hub.catalog.statistics import catalog_totals, day_sums, in_all

DAYS: Final = 30


def change_ids(catalog: Catalog, filled: Filled, samples: int) -> Latency:
    """GetChangeId of any VM's disk, by its name, moref or instance uuid."""
    chance = random.Random(SEED + 3)
    machines = [one for one in filled.estate.machines if one.last_id]
    names = Counter((one.name, one.site, one.repository_id) for one in machines)

    def call() -> int:
        one = chance.choice(machines)
        known_as = [one.moref, one.instance_uuid]
        if names[one.name, one.site, one.repository_id] == 1:
            known_as.append(one.name)
        with catalog.read() as session:
            found = change_id_by_word(
                session,
                vm=chance.choice(known_as),
                site=one.site,
                repository=one.repository_id,
                disk_index=chance.randrange(one.disks),
            )
        if found.job_id != one.last_id:
            raise RuntimeError(f"the last job of {one.context_id} is not {found.job_id}")
        return 1

    return measure(call, samples)[0]


def statistics(catalog: Catalog, filled: Filled, samples: int) -> dict[str, Latency]:
    """GetStatistics of the last 30 days, of all repositories and of one."""
    chance = random.Random(SEED + 4)
    first = NOW.date() - timedelta(days=DAYS - 1)

    def call(repository_id: str) -> int:
        with catalog.read() as session:
            catalog_totals(session, repository_id)
            protected_vms(session)
            days = day_sums(session, first=first, days=DAYS, repository_id=repository_id)
        return in_all(days).jobs

    repositories = filled.estate.repositories
    return {
        "all_repositories": measure(lambda: call(""), samples)[0],
        "one_repository": measure(lambda: call(chance.choice(repositories)), samples)[0],
    }

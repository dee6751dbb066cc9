"""What docs/ lists is what there is: keys of hub.toml and of job.json."""

import json
import re
from pathlib import Path

from hub.config import HubSettings
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk
from tests.unit.hub.running_hub import RunningHub

DOCS = Path(__file__).parents[3] / "docs"


def keys(page: str, heading: str, of: str) -> set[str]:
    """The names in the first column of the table `of`, below the heading."""
    section = (DOCS / page).read_text().partition(f"{heading}\n")[2]
    table = re.search(rf"^\| {of} \|.*\n\| ---.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    assert table is not None, (page, heading, of)
    return {
        name
        for row in table[1].splitlines()
        for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    }


def test_every_key_of_the_configuration_is_documented() -> None:
    assert keys("operations.md", "## Hub", "key of `hub.toml`") == (
        HubSettings.model_fields.keys() - {"catalog_password"}  # of the environment alone
    )


def test_every_key_of_the_jobs_facts_is_documented(hub: RunningHub, agent: FakeAgent) -> None:
    job = hub.start().job_id
    agent.expect("start_job")
    agent.run_job(job, [FakeDisk("AB")])
    hub.wait(job)
    (file,) = (path for path in hub.files() if path.endswith("job.json"))
    facts = json.loads((hub.repository_folder() / file).read_text())
    assert keys("formats.md", "### job.json", "key") == facts.keys()
    # `job_id` is within the base of a disk.
    assert keys("formats.md", "### job.json", "key of a disk") == facts["disks"][0].keys()

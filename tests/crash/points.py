"""The fail points that stand in the programs' source."""

import re
from pathlib import Path

import agent
import hub

_CALL = re.compile(r"fail_point\(\s*\"([a-z_.]+)\"")


def points_of_the_programs() -> set[str]:
    """Names of all of them."""
    return {
        point
        for package in (hub, agent)
        for folder in package.__path__
        for file in Path(folder).rglob("*.py")
        for point in _CALL.findall(file.read_text(encoding="utf-8"))
    }

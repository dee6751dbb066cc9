"""Pauses between the agent's tries at vSphere, as short as tests need; how often it tries stays."""

from typing import Final

import pytest
from tenacity import wait_fixed
from tenacity.wait import wait_base

from agent.vsphere import frozen, properties, session, snapshot_removal, tasks

PAUSE_S: Final = 0.02
_TRIERS: Final = (frozen, properties, session, snapshot_removal, tasks)


def shorten_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the end of the test, each of these modules pauses for `PAUSE_S` before it tries again."""

    def short(**_backing_off: float) -> wait_base:
        return wait_fixed(PAUSE_S)

    for module in _TRIERS:
        monkeypatch.setattr(module, "wait_random_exponential", short)

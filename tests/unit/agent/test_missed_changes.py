"""What a job says of changes that tracking missed."""

import numpy as np
import pytest

from agent.areas import Area
from agent.missed_changes import AREAS_TOLD, MissedChanges
from sendense.clusters import CLUSTER_BYTES

pytestmark = pytest.mark.hostile

K = CLUSTER_BYTES


def clusters(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint32)


def test_nothing_is_missed_at_first() -> None:
    assert MissedChanges().count == 0


def test_comparison_counts_what_differs_outside_of_what_tracking_told() -> None:
    missed = MissedChanges()
    missed.sampled([Area(2 * K, 3 * K)], clusters(9))
    missed.compared(clusters(0, 2, 4, 5))
    missed.compared(clusters(6, 9))
    assert missed.count == 4
    text = missed.told_of("Hard disk 1")
    assert text.startswith("Hard disk 1: changed block tracking missed 4 clusters")
    # 5 and 6 came in two batches and are one area.
    assert f"areas 0-{K}, {5 * K}-{7 * K}, {9 * K}-{10 * K};" in text


def test_sample_is_told_of_when_the_comparison_ended_before_it_found_as_much() -> None:
    missed = MissedChanges()
    missed.sampled([], clusters(7, 9))
    missed.compared(clusters(1))
    assert missed.count == 2
    assert f"{7 * K}-{8 * K}, {9 * K}-{10 * K};" in missed.told_of("Hard disk 1")


def test_twenty_areas_are_named_and_the_others_counted() -> None:
    missed = MissedChanges()
    missed.sampled([], clusters())
    for first in range(0, 1000, 10):
        missed.compared(clusters(first, first + 2))
    assert missed.count == 200
    text = missed.told_of("Hard disk 1")
    assert text.count("-") == AREAS_TOLD
    assert f"(+{200 - AREAS_TOLD} more)" in text

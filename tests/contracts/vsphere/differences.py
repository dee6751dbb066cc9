"""Where vcsim is known to differ from a real host: its test of the suite fails there, and must.

Each line was seen with the version of govmomi that tests/contracts/govmomi/go.mod pins. A
newer one that does better makes the suite fail until its line here is gone.
"""

from dataclasses import dataclass
from http.client import HTTPException
from typing import Final

import pytest
from pyVmomi import vmodl


@dataclass(frozen=True)
class Difference:
    """A test that vcsim does not pass, what vcsim does instead, and how the test notices."""

    test: str
    what: str
    raises: type[BaseException] | tuple[type[BaseException], ...]
    flavours: tuple[str, ...] = ("esxi", "vcenter")


_FAILED = pytest.fail.Exception  # what was to be raised was not
_GONE = (ConnectionError, HTTPException)

DIFFERENCES: Final = (
    Difference(
        "test_calls_without_a_login_are_not_authenticated[collector]",
        "the property collector answers strangers",
        _FAILED,
    ),
    Difference(
        "test_disks_name_their_controller_backing_and_size",
        "controllers list none or not all of their disks",
        AssertionError,
    ),
    Difference(
        "test_unset_property_reads_as_nothing",
        "a Fetch of an unset property is answered by RetrievePropertiesEx",
        AttributeError,
    ),
    Difference(
        "test_property_that_no_type_has_is_invalid",
        "wrong paths come in missingSet, and some break the connection and lock the object",
        (_FAILED, *_GONE),
    ),
    Difference("test_property_of_no_type_is_refused", "wrong paths come in missingSet", _FAILED),
    Difference(
        "test_pages_follow_each_other_by_their_tokens",
        "an unknown token is answered by a fault named InvalidPropertyFault, which no API has",
        KeyError,
    ),
    Difference(
        "test_cancelled_pages_cannot_be_fetched",
        "CancelRetrievePropertiesEx does not exist",
        vmodl.fault.MethodNotFound,
    ),
    Difference(
        "test_new_name_is_told", "a new name is told by a read, not by a wait", AssertionError
    ),
    Difference(
        "test_empty_version_tells_everything_again",
        "an empty version tells what was not told yet",
        ValueError,
    ),
    Difference("test_version_moves_on_with_a_change", "all versions are the same", AssertionError),
    Difference(
        "test_version_that_was_never_told_is_invalid", "versions are not looked at", _FAILED
    ),
    Difference("test_filter_with_a_wrong_path_is_refused", "filters are not checked", _FAILED),
    Difference("test_filter_on_what_does_not_exist_is_refused", "filters are not checked", _FAILED),
    Difference(
        "test_info_names_the_entity_and_the_method",
        "entityName is the moid, name is not that of the method",
        AssertionError,
    ),
    Difference(
        "test_snapshot_is_the_root_and_the_current_one",
        "a snapshot without memory has the state poweredOn",
        AssertionError,
    ),
    Difference(
        "test_snapshot_without_memory_reverts_to_a_vm_that_is_off",
        "reverting leaves the power state as it is",
        AssertionError,
    ),
    Difference(
        "test_children_go_too_when_asked",
        "children that went with their parent can still be called, and some calls break the connection",
        (_FAILED, *_GONE),
    ),
    Difference(
        "test_disks_go_on_in_links_above_the_frozen_ones",
        "a snapshot leaves the disks as they are",
        AssertionError,
    ),
    Difference(
        "test_consolidation_without_need_changes_nothing",
        "ConsolidateVMDisks_Task does not exist",
        vmodl.fault.MethodNotFound,
    ),
    Difference(
        "test_tracking_begins_with_the_next_snapshot",
        "there are no change ids, and QueryChangedDiskAreas does not exist",
        AttributeError,
    ),
)

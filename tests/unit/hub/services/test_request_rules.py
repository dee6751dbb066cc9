"""Requests against the rules that their protos declare, through a hub."""

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from hub.server import SERVICES
from hub.services.request_rules import MAX_VIOLATIONS, check_request, violations
from sendense.v1 import backup_pb2, context_pb2, field_rules_pb2, repository_pb2
from shared.errors import InvalidArgument, InvalidRequest
from tests.unit.hub.running_hub import RunningHub


def broken(message: Message) -> list[tuple[str, str]]:
    return [(each.field, each.problem) for each in violations(message)]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (backup_pb2.StartBackupRequest(), [("vm", "must be given")]),
        (backup_pb2.StartBackupRequest(vm=" \t"), [("vm", "must be given")]),
        (
            backup_pb2.StartBackupRequest(vm="x" * 257),
            [("vm", "has 257 characters, at most 256 are taken")],
        ),
        (
            backup_pb2.StartBackupRequest(vm="a\0b", request_id="ä" * 129),
            [
                ("vm", "has control characters"),
                ("request_id", "has 129 characters, at most 128 are taken"),
            ],
        ),
        (
            backup_pb2.ListBackupsRequest(page_size=-1, vm_name="  "),
            [("vm_name", "must be given"), ("page_size", "must be between 0 and 1000")],
        ),
        (
            backup_pb2.ListBackupsRequest(
                created_after=Timestamp(nanos=-1), created_before=Timestamp(seconds=2**60)
            ),
            [
                ("created_after", "is no time between the years 1 and 9999"),
                ("created_before", "is no time between the years 1 and 9999"),
            ],
        ),
        (
            backup_pb2.StartBackupRequest(vm="a", backup_type=7),
            [("backup_type", "7 is no BackupType: BACKUP_TYPE_FULL, BACKUP_TYPE_INCREMENTAL")],
        ),
        (
            context_pb2.GetDiskRequest(job_id="j", disk_index=-1),
            [("disk_index", "must be at least 0")],
        ),
        (
            context_pb2.ListDisksRequest(),
            [("context_id", "give exactly one of context_id, job_id")],
        ),
        (
            context_pb2.ListDisksRequest(context_id="c", job_id="j"),
            [("context_id", "give exactly one of context_id, job_id")],
        ),
        (
            repository_pb2.CreateRepositoryRequest(name="..", path="srv"),
            [
                (
                    "name",
                    "must be 1 to 64 letters, digits, dots, dashes or underscores, not dots alone",
                ),
                ("path", "must be an absolute path on the hub"),
            ],
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else "",
)
def test_violated_rules_are_told_field_by_field(
    request_: Message, expected: list[tuple[str, str]]
) -> None:
    assert broken(request_) == expected


@pytest.mark.parametrize(
    "request_",
    [
        backup_pb2.StartBackupRequest(vm="データベース", request_id="x" * 128),
        backup_pb2.ListBackupsRequest(page_size=1000, created_after=Timestamp(seconds=1)),
        backup_pb2.CancelBackupRequest(job_id="j", reason="two\nlines"),
        context_pb2.ListDisksRequest(context_id="c"),
        repository_pb2.CreateRepositoryRequest(name="a.b-c_1", path="/srv/with space"),
        repository_pb2.CreateRepositoryRequest(name="..a", path="/"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_requests_within_the_rules_pass(request_: Message) -> None:
    check_request(request_)


def test_one_violation_is_an_argument_several_are_a_request() -> None:
    with pytest.raises(InvalidArgument) as one:
        check_request(backup_pb2.GetBackupRequest())
    assert str(one.value) == "job_id: must be given"
    with pytest.raises(InvalidRequest) as two:
        check_request(repository_pb2.CreateRepositoryRequest())
    assert str(two.value) == "name: must be given; path: must be given"
    assert two.value.facts() == {"fields": "name,path"}


def test_every_request_of_every_service_has_rules_that_can_be_checked() -> None:
    pool = descriptor_pool.Default()
    asked = 0
    for service in SERVICES:
        for method in pool.FindServiceByName(service).methods:
            empty = message_factory.GetMessageClass(method.input_type)()
            violations(empty)
            asked += 1
    assert asked > 30


def test_rules_on_a_field_they_say_nothing_about_are_a_defect() -> None:
    number = descriptor_pb2.FieldDescriptorProto(
        name="number",
        number=1,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )
    rules = number.options.Extensions[field_rules_pb2.rules]
    rules.pattern = "[0-9]+"
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="odd.proto", package="odd", syntax="proto3")
    file.message_type.add(name="Odd", field=[number])
    pool.Add(file)
    odd = message_factory.GetMessageClass(pool.FindMessageTypeByName("odd.Odd"))()
    with pytest.raises(ValueError, match=r"odd\.Odd\.number is no field for the rules"):
        violations(odd)


def test_hub_answers_with_all_violated_fields(hub: RunningHub) -> None:
    request = repository_pb2.CreateRepositoryRequest(name="a/b", path="srv")
    with pytest.raises(grpc.RpcError) as caught:
        hub.repositories.CreateRepository(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, dict(info.metadata)) == ("INVALID_ARGUMENT", {"fields": "name,path"})
    assert [(each.field, each.description) for each in bad.field_violations] == broken(request)


def test_streamed_answers_are_checked_before_they_begin(hub: RunningHub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(hub.backups.WatchBackup(backup_pb2.WatchBackupRequest(), timeout=20))
    assert caught.value.details() == "job_id: must be given"


def test_answer_for_many_long_violations_fits_into_the_trailers(hub: RunningHub) -> None:
    request = backup_pb2.ListBackupsRequest(
        vm_name="\1", context_id="\1", repository="\1", page_token="x" * 9000, page_size=-1
    )
    with pytest.raises(grpc.RpcError) as caught:
        hub.backups.ListBackups(request, timeout=20)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert len(bad.field_violations) == 5 < MAX_VIOLATIONS
    assert status.ByteSize() < 8192

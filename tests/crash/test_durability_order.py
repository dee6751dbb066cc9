"""What is told is durable: data before records, records before acks, files before rows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection

from hub.jobs.receive_disk import upload
from hub.repository.file_calls import replaced
from sendense.v1 import upload_pb2
from tests.crash.durability_order import ACK, COMMIT, OutOfOrder, check, require_steps, step
from tests.crash.small_hub import SmallHub, small_hub
from tests.unit.hub.jobs.backups import delete
from tests.unit.hub.repository.recorded_calls import Call, RecordedCalls

# What a row's change is called in the recording, by the statement that makes it.
_TOLD = {
    "UPDATE backup_disks SET": {"sealed_at": "sealed"},
    "UPDATE backup_jobs SET": {"completed_at": "completed"},
    "DELETE FROM file_removals": {"": "removed"},
}


@contextmanager
def recorded(hub: SmallHub) -> Iterator[RecordedCalls]:
    """Files, commits and acks of what the hub does inside, in one order."""
    calls = RecordedCalls()
    engine = hub.hub.parts.catalog._engine
    told: dict[int, list[str]] = {}

    def executed(connection: Connection, cursor: object, statement: str, *rest: object) -> None:
        for start, columns in _TOLD.items():
            for column, name in columns.items():
                if statement.startswith(start) and column in statement.split(" WHERE ")[0]:
                    told.setdefault(id(connection.connection.dbapi_connection), []).append(name)

    def committed(connection: Connection) -> None:
        for name in told.pop(id(connection.connection.dbapi_connection), []):
            calls.note(COMMIT, name)

    real = upload._Upload._sync

    def acknowledge(self: upload._Upload) -> upload_pb2.UploadAck | None:
        answer = real(self)
        if answer is not None:
            calls.note(ACK)
        return answer

    event.listen(engine, "after_cursor_execute", executed)
    event.listen(engine, "commit", committed)
    try:
        with replaced(calls), patch.object(upload._Upload, "_sync", acknowledge):
            yield calls
    finally:
        event.remove(engine, "after_cursor_execute", executed)
        event.remove(engine, "commit", committed)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """A full, an increment, and the removal of both."""
    with small_hub(tmp_path_factory.mktemp("order")) as hub, recorded(hub) as calls:
        full = hub.backup("ABR0")
        hub.backup("XY00")
        delete(hub.hub, full, cascade=True)
        hub.assert_in_order()
        return list(calls.calls)


def test_nothing_is_told_before_it_is_durable(recording: list[Call]) -> None:
    check(recording)


def test_frame_is_data_then_record_then_ack(recording: list[Call]) -> None:
    one = recording[: next(at for at, call in enumerate(recording) if call.text == "sealed")]
    assert len([call for call in one if call.name == ACK]) >= 3
    require_steps(
        one,
        step("create", "layer"),
        step("create", "manifest"),
        *[
            step(*each)
            for each in (
                ("pwritev", "layer"),
                ("fdatasync", "layer"),
                ("pwritev", "manifest"),
                ("fdatasync", "manifest"),
                (ACK,),
            )
        ]
        * 3,
    )


def test_seal_is_tables_header_footer_name_row(recording: list[Call]) -> None:
    require_steps(
        recording,
        step(ACK),
        step("pwritev", "layer"),
        step("fsync", "layer"),
        step("pwritev", "layer", offset=0),
        step("fsync", "layer"),
        ("footer", lambda call: call.kind == "manifest" and b"SnSealed" in call.data),
        step("fdatasync", "manifest"),
        step("rename", "layer"),
        ("the folder's sync", lambda call: call.name == "fsync" and "." not in call.path.name),
        step(COMMIT, text="sealed"),
        step("create", "facts"),
        step("pwritev", "facts"),
        step("fsync", "facts"),
        step("rename", "facts"),
        ("the folder's sync", lambda call: call.name == "fsync" and "." not in call.path.name),
        step(COMMIT, text="completed"),
    )


def test_removal_is_files_then_row(recording: list[Call]) -> None:
    require_steps(
        recording,
        step(COMMIT, text="completed"),
        step(COMMIT, text="completed"),
        step("unlink", "facts"),
        step("unlink", "layer"),
        ("the folder's removal", lambda call: call.name == "rmdir"),
        ("the folder's sync", lambda call: call.name == "fsync"),
        step(COMMIT, text="removed"),
    )


def _swapped(
    calls: Sequence[Call], first: Callable[[Call], bool], other: Callable[[Call], bool]
) -> list[Call]:
    """The recording with the first `other`, and the `first` that precedes it, in the other order."""
    begun = next(n for n, call in enumerate(calls) if first(call))
    to = next(n for n, call in enumerate(calls) if n > begun and other(call))
    at = max(n for n, call in enumerate(calls[:to]) if first(call))
    swapped = list(calls)
    swapped[at], swapped[to] = swapped[to], swapped[at]
    return swapped


def _is(name: str, kind: str = "", text: str = "") -> Callable[[Call], bool]:
    return lambda call: (
        call.name == name and (not kind or call.kind == kind) and (not text or call.text == text)
    )


def _is_header(call: Call) -> bool:
    return call.name == "pwritev" and call.kind == "layer" and call.offset == 0


def _is_footer(call: Call) -> bool:
    return b"SnSealed" in call.data


@pytest.mark.parametrize(
    ("first", "other"),
    [
        pytest.param(
            _is("fdatasync", "layer"), _is("pwritev", "manifest"), id="record before data"
        ),
        pytest.param(_is("fdatasync", "layer"), _is(ACK), id="ack before data"),
        pytest.param(_is("fsync", "layer"), _is_header, id="header before tables"),
        pytest.param(_is("fsync", "layer"), _is_footer, id="footer before header"),
        pytest.param(_is_footer, _is("rename", "layer"), id="name before footer"),
        pytest.param(_is("rename", "layer"), _is(COMMIT, text="sealed"), id="row before name"),
        pytest.param(_is("fsync", "facts"), _is("rename", "facts"), id="facts before their bytes"),
        pytest.param(_is("rename", "facts"), _is(COMMIT, text="completed"), id="completed first"),
        pytest.param(_is("unlink", "layer"), _is(COMMIT, text="removed"), id="removed first"),
    ],
)
def test_swapped_steps_are_noticed(
    recording: list[Call], first: Callable[[Call], bool], other: Callable[[Call], bool]
) -> None:
    with pytest.raises(OutOfOrder):
        check(_swapped(recording, first, other))


@pytest.mark.parametrize("forgotten", ["fdatasync", "fsync"])
def test_syncs_that_are_left_out_are_noticed(recording: list[Call], forgotten: str) -> None:
    syncs = [at for at, call in enumerate(recording) if call.name == forgotten]
    with pytest.raises(OutOfOrder):
        check([call for at, call in enumerate(recording) if at not in syncs])


def test_hub_that_acknowledges_without_a_sync_is_noticed(tmp_path: Path) -> None:
    class Lazy(RecordedCalls):
        def fdatasync(self, fd: int) -> None:
            """Does nothing."""

    calls = Lazy()
    with small_hub(tmp_path) as hub, recorded(hub) as noted, replaced(calls):
        calls.calls = noted.calls
        hub.backup("AB")
    with pytest.raises(OutOfOrder):
        check(calls.calls)

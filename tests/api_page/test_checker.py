"""The checker on small pages: what is true passes, whatever has gone bad is named with its line."""

import pytest

from tests.api_page.check import Outcome, outcome_problems, page_problems
from tests.api_page.json_lines import JsonProblem, documents
from tests.api_page.page import Keep, PageProblem, Setup, parse
from tests.api_page.shapes import kind_of
from tests.api_page.walk import walk

PAGE = """\
## ContextService

### ListContexts

```sh
grpcurl -plaintext -d '{"vm_name": "pgtest1"}' $SENDENSE_HUB sendense.v1.ContextService/ListContexts
```

```json
{
  "contexts": [
    {
      "context_id": "ctx-backup-pgtest1-1759946759",
      "vm_name": "pgtest1",
      "instance_uuid": "423b7b6e-33b7-4f0c-9f0b-b5b2f9a0c9aa",
      "total_backups_run": 2,
      "last_backup_type": "BACKUP_TYPE_FULL",
      "last_backup_at": "2026-11-23T16:18:02.561442Z",
      "bytes_stored": "10098112"
    }
  ]
}
```

```sh
CONTEXT=ctx-backup-pgtest1-1759946759   # contexts.0.context_id
```
"""
ANSWER = """
{"contexts": [{
  "context_id": "ctx-backup-pgtest1-1795450682-2", "vm_name": "other",
  "instance_uuid": "00000000-33b7-4f0c-9f0b-b5b2f9a0c9aa", "total_backups_run": 17,
  "last_backup_type": "BACKUP_TYPE_FULL", "last_backup_at": "2027-01-01T00:00:00Z",
  "bytes_stored": "1"}]}
"""
ERROR_PAGE = """\
## BackupService

```sh
grpcurl -plaintext -d '{"page_size": -1}' $SENDENSE_HUB sendense.v1.BackupService/ListBackups
```

```text
{error}
```
"""
ERROR = """\
ERROR:
  Code: InvalidArgument
  Message: page_size: must be between 0 and 1000
  Details:
  1)\t{
    \t  "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    \t  "domain": "sendense",
    \t  "metadata": {
    \t    "field": "page_size"
    \t  },
    \t  "reason": "INVALID_ARGUMENT"
    \t}
  2)\t{
    \t  "@type": "type.googleapis.com/google.rpc.BadRequest",
    \t  "field_violations": [
    \t    {
    \t      "field": "page_size",
    \t      "description": "must be between 0 and 1000"
    \t    }
    \t  ]
    \t}"""


def problems(page: str, *outcomes: Outcome) -> list[str]:
    """What the checker says of a page and the outcomes of its calls."""
    parsed = parse(page)
    found = page_problems(parsed)
    for call, outcome in zip(parsed.calls, outcomes, strict=True):
        found += outcome_problems(call, outcome)
    return [str(problem) for problem in found]


def answered(text: str) -> Outcome:
    return Outcome(0, text, "")


def test_an_answer_of_the_same_shape_passes_with_other_ids_times_and_sizes() -> None:
    assert problems(PAGE, answered(ANSWER)) == []


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [
        ('"vm_name": "other"', '"name": "other"', "contexts[0].vm_name is not in the answer"),
        ('"vm_name": "other",', "", "contexts[0].vm_name is not in the answer"),
        ('"vm_name"', '"site": "demo", "vm_name"', "the answer has contexts[0].site, too"),
        (": 17", ': "17"', "total_backups_run is a text, not a number"),
        ('"1"', "1", "bytes_stored is a number, not a text"),
        ("TYPE_FULL", "TYPE_INCREMENTAL", "last_backup_type is 'BACKUP_TYPE_INCREMENTAL'"),
        ("2027-01-01T00:00:00Z", "yesterday", "last_backup_at is 'yesterday' (text)"),
        ("ctx-backup", "context", "context_id is 'context-pgtest1-1795450682-2' (text)"),
        ("00000000-", "", "instance_uuid is"),
        ('"contexts": [{', '"contexts": [{}, {', "contexts has 2 elements, not 1"),
    ],
)
def test_an_answer_of_another_shape_is_named(good: str, bad: str, expected: str) -> None:
    assert good in ANSWER
    assert expected in "\n".join(problems(PAGE, answered(ANSWER.replace(good, bad, 1))))


@pytest.mark.parametrize(
    ("good", "bad", "line"),
    [
        ("ContextService/ListContexts", "ContextService/ListAll", 6),
        ('"total_backups_run"', '"backups"', 10),
        ('"total_backups_run"', '"totalBackupsRun"', 16),
        ('"10098112"', "10098112", 19),
        ("BACKUP_TYPE_FULL", "BACKUP_TYPE_WHOLE", 10),
        ("# contexts.0.context_id", "# contexts.1.context_id", 26),
        ("# contexts.0.context_id", "# contexts.0.vm_name", 26),
        ('"total_backups_run": 2', '"total_backups_run": 0', 16),
    ],
)
def test_a_page_that_no_hub_can_make_true_is_named_with_its_line(
    good: str, bad: str, line: int
) -> None:
    rotten = PAGE.replace(good, bad, 1)
    assert rotten != PAGE
    found = [str(problem) for problem in page_problems(parse(rotten))]
    assert any(text.startswith(f"docs/api.md:{line}: ") for text in found), found


def test_a_call_that_fails_where_the_page_shows_an_answer_is_named() -> None:
    found = problems(PAGE, Outcome(69, "", ERROR))
    assert len(found) == 1
    assert "docs/api.md:10: the call ended with 69: ERROR:" in found[0]


def test_an_error_with_the_same_code_reason_and_fields_passes() -> None:
    page = ERROR_PAGE.replace("{error}", ERROR)
    assert problems(page, Outcome(67, "", ERROR + "\n")) == []


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [
        ("Code: InvalidArgument", "Code: NotFound", "the code is NotFound"),
        ("Message: page_size", "Message: size", "the message is"),
        ('"reason": "INVALID', '"reason": "BAD', "reason is 'BAD_ARGUMENT'"),
        ('"field": "page_size",', '"field": "page_token",', '"field": "page_token"'),
        ('"field": "page_size"\n', '"fields": "page_size"\n', "metadata.field is not in"),
        ('"domain": "sendense",', "", "domain is not in the answer"),
        ("google.rpc.BadRequest", "google.rpc.Help", "google.rpc.Help"),
    ],
)
def test_another_error_is_named(good: str, bad: str, expected: str) -> None:
    assert good in ERROR
    page = ERROR_PAGE.replace("{error}", ERROR)
    found = problems(page, Outcome(67, "", ERROR.replace(good, bad, 1)))
    assert expected in "\n".join(found)


@pytest.mark.parametrize("outcome", [Outcome(66, "", ERROR), Outcome(0, "{}", "")])
def test_an_error_with_another_exit_code_or_none_at_all_is_named(outcome: Outcome) -> None:
    assert problems(ERROR_PAGE.replace("{error}", ERROR), outcome)


def test_lines_of_text_have_to_be_equal() -> None:
    page = "## A\n```sh\ngrpcurl -plaintext $SENDENSE_HUB list\n```\n```text\none\ntwo\n```\n"
    assert problems(page, answered("one\ntwo\n")) == []
    assert problems(page, answered("one\n")) == ["docs/api.md:7: the line is missing"]
    assert problems(page, answered("one\n2\n")) == ["docs/api.md:7: the line is '2'"]
    assert problems(page, answered("one\ntwo\n3\n")) == ["docs/api.md:8: a line is missing: '3'"]


WATCHED = '{"backup": {"job_id": "backup-a-1759946759", "status": "BACKUP_STATUS_PENDING"}}'
MOVING = (
    '{"backup": {"job_id": "backup-a-1759946759", "status": "BACKUP_STATUS_RUNNING",'
    ' "bytes_read": "7", "disks": [{"disk_id": "1", "bytes_read": "7"}, {"disk_id": "2"}]}}'
)
DONE = (
    '{"backup": {"job_id": "backup-a-1759946759", "status": "BACKUP_STATUS_COMPLETED",'
    ' "bytes_read": "9", "disks": [{"disk_id": "1"}, {"disk_id": "2", "bytes_read": "9"}]}}'
)
STREAM_PAGE = f"""\
## A
```sh
grpcurl -plaintext -d '{{"job_id": "x"}}' $SENDENSE_HUB sendense.v1.BackupService/WatchBackup
```
```json
{WATCHED}
{DONE}
```
"""


@pytest.mark.parametrize(
    "messages", [(DONE,), (WATCHED, MOVING, DONE), (MOVING, MOVING, DONE)], ids=len
)
def test_a_stream_may_have_more_and_fewer_messages(messages: tuple[str, ...]) -> None:
    assert problems(STREAM_PAGE, answered("\n".join(messages))) == []


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (WATCHED,),
        (WATCHED, MOVING),
        (MOVING.replace("bytes_read", "bytes_sent"), DONE),
        (MOVING.replace('"7"', "7"), DONE),
        (WATCHED.replace("backup-a-1759946759", "job 1"), DONE),
        (WATCHED, DONE.replace("disk_id", "id")),
        (DONE.replace('"job_id"', '"id"'),),
    ],
)
def test_a_stream_with_another_end_or_with_strange_messages_is_named(
    messages: tuple[str, ...],
) -> None:
    assert problems(STREAM_PAGE, answered("\n".join(messages)))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("backup-pgtest1-1759946759", "job id"),
        ("backup-build-server-old-1759946759-2", "job id"),
        ("ctx-backup-pgtest1-1759946759", "context id"),
        ("ctx-backup-a-1759946759/backup-a-1759946760/disk-1.qcow2", "layer"),
        ("52 2a 13 b1 aa 59 ee 4b-a5 a1 d4 23 04 92 85 66/12", "change id"),
        ("2026-11-23T16:18:02.561442Z", "time"),
        ("2026-11-23 16:18:02", "text"),
        ("BACKUP_STATUS_FAILED", "constant"),
        ("Hard disk 1", "text"),
        ("/srv/backups/archive", "path"),
        ("/gNwGjQziDcpkPVbg0PAdGXSNzgN4LDcKRPXtnwYmTw=", "text"),
    ],
)
def test_texts_have_kinds(text: str, kind: str) -> None:
    assert kind_of(text) == kind


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("## A\n```json\n{}\n```\n", 3),
        ("## A\n```sh\ngrpcurl list\n```\n## B\n", 3),
        ("## A\n```sh\ngrpcurl list\n```\n", 3),
        ("## A\n```sh\ngrpcurl list\n```\n```sh\nls\n```\n", 3),
        ("## A\n```python\nprint()\n```\n", 3),
        ("## A\n```sh\nls\n", 2),
        ("## A\n## A\n", 2),
    ],
)
def test_a_block_that_nobody_would_check_is_refused(page: str, line: int) -> None:
    with pytest.raises(PageProblem) as caught:
        parse(page)
    assert caught.value.line == line


def test_a_variable_without_a_value_is_named() -> None:
    rotten = PAGE.replace("pgtest1", "'$VM'", 1)
    assert [str(problem) for problem in page_problems(parse(rotten))] == [
        "docs/api.md:6: $VM has no value yet"
    ]


def test_values_are_kept_for_later_calls_and_directions_are_followed() -> None:
    page = parse(
        "## A\n```sh\nmake demo-up\n```\n" + PAGE + "\n<!-- test: the agent is stopped -->\n"
        "<!-- test: AGAIN=contexts.0.context_id -->\n```sh\nls\n```\n"
    )
    assert isinstance(page.steps[0], Setup)
    assert [step.name for step in page.steps if isinstance(step, Keep)] == ["CONTEXT", "AGAIN"]
    seen: list[object] = []

    def shell(command: str, kept: object) -> Outcome:
        if command == "ls":
            seen.append(dict(kept))  # type: ignore[call-overload]
        return answered(ANSWER)

    found, outcomes = walk(page, shell, seen.append)
    assert (found, len(outcomes)) == ([], 1)
    context = "ctx-backup-pgtest1-1795450682-2"
    assert seen == ["the agent is stopped", {"CONTEXT": context, "AGAIN": context}]


def test_a_command_that_fails_is_named() -> None:
    page = parse("## A\n```sh\nsendense-simulator write\n```\n")
    found, _ = walk(page, lambda *_: Outcome(2, "", "no such VM"), print)
    assert [str(problem) for problem in found] == ["docs/api.md:3: ended with 2: no such VM"]


@pytest.mark.parametrize("text", ['{"a": 1', '{"a": 1, "a": 2}', "{'a': 1}", '{"a" 1}', "[1,]"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(JsonProblem):
        documents(text)

"""The tables of docs/api.md against the code: fields, reasons and sections are those that there are."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.descriptor import Descriptor
from grpc import StatusCode

import hub
from shared.errors import SendenseError
from tests.api_page.contract import (
    HEALTH_CHECK,
    INTERNAL_SERVICES,
    find_method,
    public_methods,
    public_services,
)
from tests.api_page.page import Page, Setup, parse
from tests.api_page.statuses import EXIT_CODE_BASE
from tests.toolchain import BIN

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "api.md"
PROTOS: Final = ROOT / "protos" / "sendense" / "v1"
METHODS: Final = sorted(public_methods())
# Told by the hub of any call; the page names them once.
GENERAL: Final = {"INVALID_ARGUMENT", "CATALOG_UNAVAILABLE", "INTERNAL"}
_REASON: Final = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b")
_CODES: Final = re.compile(r"`([^`]+)`")
_RPC: Final = re.compile(r"((?:[ \t]*//.*\n)+)[ \t]*rpc (\w+)\(")
_MAKE: Final = re.compile(r"^make (.+)$", re.MULTILINE)
_TARGET: Final = re.compile(r"^([a-z-]+):", re.MULTILINE)
_LINK: Final = re.compile(r"\]\((?P<file>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")


@pytest.fixture(scope="module")
def page() -> Page:
    return parse(PAGE.read_text())


@cache
def _statuses() -> dict[str, set[str]]:
    """Reason of every error of the hub to the status codes that it is told with."""
    for module in pkgutil.walk_packages(hub.__path__, "hub."):
        if ".versions." not in module.name and not module.name.endswith((".env", ".__main__")):
            importlib.import_module(module.name)
    found: dict[str, set[str]] = {}

    def collect(kind: type[SendenseError]) -> None:
        # Other tests of the process may have loaded the agent's errors, too.
        if kind.__module__.startswith(("hub.", "shared.")):
            found.setdefault(kind.code, set()).add(kind.status.name)
        for each in kind.__subclasses__():
            collect(each)

    collect(SendenseError)
    return found


def _rows(lines: list[str], heading: str) -> Iterator[list[str]]:
    """Cells of the rows of a section's tables that begin with a heading."""
    inside = False
    for line in lines:
        if not line.startswith("|"):
            inside = False
        elif line.startswith(f"| {heading} |"):
            inside = True
        elif inside and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def _section(page: Page, method: tuple[str, str]) -> list[str]:
    return page.sections[f"{method[0].rsplit('.', 1)[-1]}/{method[1]}"]


@pytest.mark.parametrize("method", METHODS, ids=".".join)
def test_every_rpc_has_a_section_with_a_call_of_it(page: Page, method: tuple[str, str]) -> None:
    section = f"{method[0].rsplit('.', 1)[-1]}/{method[1]}"
    assert section in page.sections
    assert method in {call.method for call in page.calls if call.section == section}


def test_every_section_of_a_service_is_one_of_its_rpcs(page: Page) -> None:
    sections = {name for name in page.sections if "/" in name}
    known = {f"{service.rsplit('.', 1)[-1]}/{method}" for service, method in METHODS}
    assert sections == known | {f"What the hub serves/{HEALTH_CHECK[1]}"}


def test_internal_services_are_named_and_not_called(page: Page) -> None:
    text = "\n".join(call.command.text for call in page.calls)
    for service in INTERNAL_SERVICES:
        assert f"describe {service}" in text
    assert not {call.method[0] for call in page.calls if call.method} & INTERNAL_SERVICES


@pytest.mark.parametrize("method", METHODS, ids=".".join)
def test_reasons_of_a_table_are_told_with_the_code_beside_them(
    page: Page, method: tuple[str, str]
) -> None:
    for code, reason, *_ in _rows(_section(page, method), "code"):
        assert code in _statuses()[reason.strip("`")], (method, reason)


@pytest.mark.parametrize("method", METHODS, ids=".".join)
def test_reasons_that_the_protos_name_are_in_the_table(page: Page, method: tuple[str, str]) -> None:
    shown = {row[1].strip("`") for row in _rows(_section(page, method), "code")}
    named = set(_REASON.findall(_comments()[method])) & _statuses().keys()
    assert named - GENERAL <= shown


@pytest.mark.parametrize("method", METHODS, ids=".".join)
def test_fields_of_a_table_are_fields_of_the_messages(page: Page, method: tuple[str, str]) -> None:
    descriptor = find_method(method)
    assert descriptor is not None
    known = set(_field_names(descriptor.input_type)) | set(_field_names(descriptor.output_type))
    for names, _ in _rows(_section(page, method), "field"):
        assert set(_CODES.findall(names)) <= known


def test_fields_of_a_chapter_are_fields_of_its_service(page: Page) -> None:
    tried = 0
    for service in public_services():
        known = {name for one in service.methods for name in _field_names(one.output_type)}
        for names, _ in _rows(page.sections[service.name], "field"):
            assert set(_CODES.findall(names)) <= known
            tried += 1
    assert tried > 20


def test_general_reasons_are_in_the_chapter_of_errors(page: Page) -> None:
    rows = list(_rows(page.sections["Errors"], "code"))
    assert {row[1].strip("`") for row in rows} == GENERAL
    for code, reason, *_ in rows:
        assert code in _statuses()[reason.strip("`")]


def test_exit_codes_are_those_of_grpcurl(page: Page) -> None:
    shown = {int(row[0]): row[1] for row in _rows(page.sections["Errors"], "exit code")}
    codes = {number: name for number, name in shown.items() if number > EXIT_CODE_BASE}
    assert codes == {EXIT_CODE_BASE + StatusCode[name].value[0]: name for name in codes.values()}
    told = {StatusCode[name].name for names in _statuses().values() for name in names}
    assert told - {StatusCode.CANCELLED.name} <= set(codes.values())


def test_links_lead_somewhere(page: Page) -> None:
    titles = [name.rsplit("/", 1)[-1] for name in page.sections]
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    tried = 0
    for match in _LINK.finditer(PAGE.read_text()):
        if match["file"].startswith("http"):
            continue
        if match["file"]:
            assert (PAGE.parent / match["file"]).exists(), match[0]
        else:
            assert match["anchor"] in anchors, match[0]
        tried += 1
    assert tried > 15


def test_what_the_page_has_its_reader_make_can_be_made(page: Page) -> None:
    made = [step.command.text for step in page.steps if isinstance(step, Setup)]
    assert len(made) == 1
    targets = {word for line in _MAKE.findall(made[0]) for word in line.split()}
    assert targets >= {"tools", "demo-up"}
    assert targets <= set(_TARGET.findall((ROOT / "Makefile").read_text()))
    assert f"PATH=$PWD/{BIN.relative_to(ROOT)}:$PATH" in made[0]


@cache
def _comments() -> dict[tuple[str, str], str]:
    """What the protos say above each RPC."""
    found = {}
    services = {service.name: service.full_name for service in public_services()}
    for file in PROTOS.glob("*.proto"):
        for body in re.split(r"^service ", file.read_text(), flags=re.MULTILINE)[1:]:
            name = body.split(" ", 1)[0]
            for comment, method in _RPC.findall(body):
                if name in services:
                    found[services[name], method] = comment
    assert found.keys() == set(METHODS)
    return found


def _field_names(message: Descriptor, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names of the fields of a message and of the messages in it."""
    for field in message.fields:
        yield field.name
        if field.message_type is not None and field.message_type.full_name not in above:
            yield from _field_names(field.message_type, above | {message.full_name})

"""How a command fails: one line on standard error and an exit code that means something."""

import json
import sys
from collections.abc import Sequence
from enum import IntEnum

import typer

from sendense import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    HubUnavailable,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SendenseError,
    TargetUnusable,
    Unavailable,
)
from sendense.cli.text import plain, with_sizes


class ExitCode(IntEnum):
    """Part of the contract: sdk/README.md and `sendense --help`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    HUB_UNREACHABLE = 3
    NOT_FOUND = 4
    REFUSED = 5
    DATA_DAMAGED = 6
    INTERRUPTED = 130


_CODES: tuple[tuple[type[SendenseError], ExitCode], ...] = (
    (HubUnavailable, ExitCode.HUB_UNREACHABLE),
    (NotFound, ExitCode.NOT_FOUND),
    (InvalidArgument, ExitCode.USAGE),
    (DataLoss, ExitCode.DATA_DAMAGED),
    (AlreadyExists, ExitCode.REFUSED),
    (FailedPrecondition, ExitCode.REFUSED),
    (ResourceExhausted, ExitCode.REFUSED),
    (Unavailable, ExitCode.REFUSED),
    (TargetUnusable, ExitCode.REFUSED),
)


def exit_code(error: SendenseError) -> ExitCode:
    """The exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def report(error: SendenseError, *, as_json: bool) -> ExitCode:
    """Print an error of the client."""
    code = exit_code(error)
    violations = error.violations if isinstance(error, InvalidArgument) else []
    _print(error.message, error.reason, code, error.metadata, violations, as_json=as_json)
    return code


def report_usage(error: typer.TyperException, *, as_json: bool) -> ExitCode:
    """Print an error of the command line itself."""
    context = getattr(error, "ctx", None)
    # What is wrong, without the validator's own words and ready for more behind it.
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    if not as_json and context is not None:
        message += f"; see '{context.command_path} --help'"
    _print(message, "USAGE", ExitCode.USAGE, {}, as_json=as_json)
    return ExitCode.USAGE


def report_interrupted(sentence: str, *, as_json: bool) -> ExitCode:
    """Say what Ctrl-C left behind."""
    if as_json:
        _print(sentence, "INTERRUPTED", ExitCode.INTERRUPTED, {}, as_json=True)
    else:
        sys.stderr.write(plain(sentence) + "\n")
        sys.stderr.flush()
    return ExitCode.INTERRUPTED


def report_defect(error: Exception, *, as_json: bool) -> ExitCode:
    """Print an error nobody expected: its kind helps whoever is told of it."""
    message = f"unexpected {type(error).__name__}: {error}"
    _print(message, "INTERNAL", ExitCode.FAILED, {}, as_json=as_json)
    return ExitCode.FAILED


def _print(
    message: str,
    reason: str,
    code: ExitCode,
    metadata: dict[str, str],
    violations: Sequence[tuple[str, str]] = (),
    *,
    as_json: bool,
) -> None:
    if as_json:
        error: dict[str, object] = {
            "reason": reason,
            "message": message,
            "metadata": metadata,
            "exit_code": int(code),
        }
        if violations:
            error["violations"] = [
                {"field": field, "problem": problem} for field, problem in violations
            ]
        text = json.dumps({"error": error}, ensure_ascii=False)
    else:
        fields = [plain(f"{field}: {problem}") for field, problem in violations]
        if len(fields) > 1:
            # The message has them all in one line.
            message = f"{len(fields)} values cannot be used"
        text = f"error: {plain(with_sizes(message))} ({plain(reason)})"
        if fields != [plain(message)]:
            text = "\n  ".join([text, *fields])
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

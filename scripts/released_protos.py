#!/usr/bin/env python3
"""Keep the protos compatible with those of the last release: `make breaking`, `make release-protos`.

Standard library only, Python 3.11. protos/released holds an image of the protos
(all files in one, as buf makes it) for each release: a tag does not travel with
every copy of the sources, a file does.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from steps import ROOT, VENV_PYTHON, fail, say

PROTOS = ROOT / "protos"
RELEASED = PROTOS / "released"
BUF = VENV_PYTHON.parent / "buf"
BREAKS = 100  # exit code of buf when it found something
TIMEOUT_S = 120

Version = tuple[int, int, int]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="compare today's protos with the last release's")
    check.add_argument(
        "--tree", type=Path, default=ROOT, help="with the buf.yaml and protos/ to check"
    )
    release = commands.add_parser("release", help="keep today's protos as those of a release")
    release.add_argument("version", help="x.y.z")
    given = parser.parse_args(arguments)
    try:
        if given.command == "check":
            check_compatible(given.tree)
        else:
            keep(given.version)
    except (OSError, subprocess.SubprocessError) as problem:
        fail(str(problem))
    return 0


def check_compatible(tree: Path) -> None:
    """End with what breaks a peer of the last release; buf.yaml says which rules hold."""
    newest = images()[-1][1]
    compared = run([BUF, "breaking", tree, "--against", newest])
    if compared.returncode == BREAKS:
        fail(
            f"the protos break peers of release {newest.stem}:\n{compared.stdout}"
            "Leave what is there as it is, and add a new field, message or RPC."
        )
    if compared.returncode != 0:
        fail(f"the protos cannot be compared with {newest}:\n{compared.stdout}")


def keep(text: str) -> None:
    """Write the image of today's protos and tag the commit they are of."""
    version = parse(text)
    if version is None:
        fail(f"{text!r} is no version of the form x.y.z")
    name = ".".join(map(str, version))
    tag = f"protos-v{name}"
    image = RELEASED / f"{name}.binpb"
    if version <= images()[-1][0]:
        fail(f"{images()[-1][1].name} is there already; a release needs a higher version")
    if git("tag", "--list", tag):
        fail(f"the tag {tag} is there already")
    if dirty := git("status", "--porcelain", "--", "protos"):
        fail(f"commit the protos first:\n{dirty}")
    check_compatible(ROOT)
    built = run([BUF, "build", ROOT, "--output", image])
    if built.returncode != 0:
        fail(f"the protos cannot be built:\n{built.stdout}")
    try:
        git("tag", tag)
    except subprocess.SubprocessError:
        image.unlink()
        raise
    say(f"tagged {tag}, wrote {image.relative_to(ROOT)}; commit that file and push both")


def images() -> list[tuple[Version, Path]]:
    """The images that are kept, oldest release first. Ends with an error when there is none."""
    found = [(version, file) for file in RELEASED.glob("*.binpb") if (version := parse(file.stem))]
    if not found:
        fail(f"{RELEASED} has no image of released protos to compare with")
    return sorted(found)


def parse(text: str) -> Version | None:
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", text, re.ASCII)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def git(*arguments: str) -> str:
    done = run(["git", *arguments])
    if done.returncode != 0:
        raise subprocess.SubprocessError(f"git {' '.join(arguments)}: {done.stdout.strip()}")
    return done.stdout.rstrip()


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

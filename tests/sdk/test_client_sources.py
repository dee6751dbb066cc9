"""The sources of the clients: they hold what a strict compiler asks, and the READMEs' examples work."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.sdk.conftest import STEP_TIMEOUT_S, Sources, run
from tests.toolchain import ROOT, environment, tool


def _example(readme: Path, language: str) -> str:
    """The README's one block in that language."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(), re.M | re.S)
    assert len(blocks) == 1, f"{readme} has {len(blocks)} examples in {language}"
    return str(blocks[0])


def _commands(readme: Path) -> list[str]:
    """The README's commands: what stands in its blocks without a language, a line each."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", readme.read_text(), re.M | re.S)
    return [line for language, text in blocks if not language for line in text.splitlines()]


def _run_its_command(sources: Sources, language: str) -> None:
    """The README's command that runs the example, typed as it stands where no hub is.

    PATH has build/tools/bin and the system's folders.
    """
    root = sources.go.parents[1]
    commands = _commands(root / "sdk" / language / "README.md")
    (command,) = (line for line in commands if line.startswith(f"cd sdk/{language} && "))
    assert "127.0.0.1:8443" in command
    done = subprocess.run(
        ["sh", "-c", command.replace("127.0.0.1:8443", "127.0.0.1:1")],
        cwd=root,
        env={**environment(), "PATH": f"{tool('node').parent}:{os.defpath}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
    )
    assert "error: Unavailable: " in done.stderr, done.stdout + done.stderr


def test_the_go_client_and_its_readme_pass_vet_and_run_as_it_says(sources: Sources) -> None:
    folder = sources.go / "examples" / "readme"
    folder.mkdir()
    (folder / "main.go").write_text(_example(sources.go / "README.md", "go"))
    run([tool("go"), "vet", "./..."], sources.go)
    _run_its_command(sources, "go")


def test_the_typescript_client_and_its_readme_pass_the_type_check_and_run_as_it_says(
    sources: Sources,
) -> None:
    """Strict, the types of the generated code and of the libraries included."""
    readme = sources.typescript / "examples" / "readme.ts"
    readme.write_text(_example(sources.typescript / "README.md", "ts"))
    _run_its_command(sources, "typescript")  # which compiles them first


@pytest.mark.parametrize(
    ("language", "programs"), [("go", {"go"}), ("typescript", {"node", "npm"})]
)
def test_the_readmes_commands_need_no_programs_but_those_of_make_tools(
    language: str, programs: set[str]
) -> None:
    commands = _commands(ROOT / "sdk" / language / "README.md")
    needed = {step.split()[0] for line in commands for step in line.split("&&")}
    assert needed == {"make", "export", "cd", *programs}
    assert commands.index("make clients") + 1 == commands.index(
        'export PATH="$PWD/build/tools/bin:$PATH"'
    )
    for name in programs:
        tool(name)

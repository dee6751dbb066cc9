"""The sources of the clients: they hold what a strict compiler asks, and the READMEs' examples work."""

import re
from pathlib import Path

from tests.sdk.conftest import Sources, run
from tests.toolchain import tool


def _example(readme: Path, language: str) -> str:
    """The README's one block in that language."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(), re.M | re.S)
    assert len(blocks) == 1, f"{readme} has {len(blocks)} examples in {language}"
    return str(blocks[0])


def test_the_go_client_and_the_example_of_its_readme_pass_vet(sources: Sources) -> None:
    folder = sources.go / "examples" / "readme"
    folder.mkdir()
    (folder / "main.go").write_text(_example(sources.go / "README.md", "go"))
    run([tool("go"), "vet", "./..."], sources.go)


def test_the_typescript_client_and_the_example_of_its_readme_pass_the_type_check(
    sources: Sources,
) -> None:
    """Strict, the types of the generated code and of the libraries included."""
    readme = sources.typescript / "examples" / "readme.ts"
    readme.write_text(_example(sources.typescript / "README.md", "ts"))
    run([tool("node"), "node_modules/.bin/tsc", "--noEmit"], sources.typescript)

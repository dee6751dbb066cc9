"""Programs that die, for every test of this folder that asks for them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.installation import Installation, installation
from tests.crash.rounds import Scene, running_scene
from tests.crash.summary import Tally
from tests.model.conftest import pytest_collection_modifyitems as without_long_runs

_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything here is marked; soak tests run with `-m soak` alone."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.crash)
    without_long_runs(config, items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call":
        item.stash[_FAILED] = call.excinfo is not None
    return report


class Stage:
    """Keeps one scene for many tests; what a failed one left is thrown away."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._scene: Scene | None = None

    def scene(self) -> Scene:
        if self._scene is None:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="crash-")))
            self._scene = self._stack.enter_context(running_scene(folder))
        return self._scene

    def clear(self) -> None:
        self._scene = None
        self._stack.close()


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.clear()


@pytest.fixture
def scene(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Hub, agent and three VMs that have been backed up: the test process's own, used again."""
    yield stage.scene()
    if request.node.stash.get(_FAILED, True):
        stage.clear()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Installation]:
    """An installation of the test's own, not started."""
    with installation(tmp_path / "installation") as made:
        yield made


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """What the test counts is told at the end of the run."""
    made = Tally(record_property)
    yield made
    made.note()

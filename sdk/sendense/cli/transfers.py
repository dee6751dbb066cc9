"""Live display of byte transfers: bars on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from sendense.cli.text import duration, plain, size

# Between two plain lines about the same transfer.
PLAIN_INTERVAL_S: Final = 5.0


class Transfers(Protocol):
    """Shows transfers, each under a key; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def update(
        self, key: int, label: str, *, total: int | None, done: int, moved: int, ended: bool = False
    ) -> None:
        """`done` of `total` bytes were read; `moved` bytes crossed the network for them.

        A total of 0 is not known yet, None never will be. `ended`: no more will
        come, even when `done` is less than `total`.
        """

    def say(self, line: str) -> None:
        """A remark between the transfers."""


def show_transfers(console: Console, *, moved_label: str) -> Transfers:
    """The display that suits the console; `moved_label` names the network bytes ("sent")."""
    if console.is_terminal:
        return LiveTransfers(console, moved_label)
    return PlainTransfers(console, moved_label)


class LiveTransfers:
    """A bar per transfer with bytes, rate and time left."""

    def __init__(self, console: Console, moved_label: str) -> None:
        self._moved_label = moved_label
        self._tasks: dict[int, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Bytes(),
            _Moved(moved_label),
            _Rate(),
            _Left(),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(
        self, key: int, label: str, *, total: int | None, done: int, moved: int, ended: bool = False
    ) -> None:
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = self._progress.add_task(
                plain(label), total=None, moved=0, ended=False
            )
        self._progress.update(task, total=total or None, completed=done, moved=moved, ended=ended)

    def say(self, line: str) -> None:
        self._progress.console.print(Text(plain(line)))


class PlainTransfers:
    """A line when a transfer begins and ends, and every few seconds between."""

    def __init__(self, console: Console, moved_label: str) -> None:
        self._console = console
        self._moved_label = moved_label
        self._shown: dict[int, tuple[float, int | None, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def update(
        self, key: int, label: str, *, total: int | None, done: int, moved: int, ended: bool = False
    ) -> None:
        now = time.monotonic()
        before = self._shown.get(key)
        if total == 0 or (before is not None and before[1:] == (total, done)):
            return
        going_on = (total is None or done < total) and not ended
        if before is not None and going_on and now - before[0] < PLAIN_INTERVAL_S:
            return
        self._shown[key] = (now, total, done)
        text = f"{label}: {size(done)}"
        if total is not None:
            text += f" of {size(total)} ({100 * done // total} %)"
        text += f", {size(moved)} {self._moved_label}"
        if before is not None and done > before[2] and now > before[0]:
            rate = (done - before[2]) / (now - before[0])
            text += f", {size(rate)}/s"
            if total is not None and going_on:
                text += f", {duration((total - done) / rate)} left"
        self.say(text)

    def say(self, line: str) -> None:
        self._console.print(Text(plain(line)), soft_wrap=True)


class _Bytes(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = size(task.total) if task.total is not None else "?"
        return Text(f"{size(task.completed)} of {total}", style="progress.download")


class _Moved(ProgressColumn):
    def __init__(self, label: str) -> None:
        self._label = label
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(f"{size(task.fields['moved'])} {self._label}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{size(speed)}/s" if speed else "", style="progress.data.speed")


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = task.time_remaining
        if task.finished or task.fields["ended"] or left is None:
            return Text("")
        return Text(f"{duration(left)} left", style="progress.remaining")

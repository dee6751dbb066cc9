"""The demo that a newcomer sees first: the main job, proven, in three processes."""

import io
import json
from pathlib import Path

from rich.console import Console

from tools.demo.run import run_demo


def test_the_demo_proves_every_restore_point(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    shown = io.StringIO()
    result = run_demo(tmp_path, state, Console(file=shown, width=110))
    assert result.good, shown.getvalue()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["restore_points"], summary["disks"]) == (3, 2)
    assert summary["identical"] is True
    assert summary["layers_clean"] is True
    assert summary["chain_linear"] is True
    # A third of a GiB of data in disks of 107 GiB.
    assert 300 << 20 < summary["bytes_read"] < 600 << 20
    assert summary["bytes_sent"] <= summary["bytes_stored"] < summary["bytes_read"]

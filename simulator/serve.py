"""Running a site as a process: from a site file, until a signal."""

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulator.control import ControlServer
from simulator.site import SimulatedSite
from simulator.site_file import SiteFileError, default_site, load_site


class CannotServe(Exception):
    """The site cannot be started; the text says why."""


def serve(
    state_dir: Path,
    site_file: Path | None,
    *,
    listen: str,
    port: int,
    nfc_port: int,
    ready_file: Path | None,
    record_snapshots: bool,
    announce: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM. Raises CannotServe before anything is served."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        spec = load_site(site_file) if site_file else default_site()
        site = SimulatedSite(
            state_dir,
            listen=listen,
            port=port,
            nfc_port=nfc_port,
            record_snapshots=record_snapshots,
            behaviour=spec.behaviour,
        )
    except SiteFileError as error:
        raise CannotServe(str(error)) from error
    except (OSError, OverflowError) as error:
        raise CannotServe(
            f"cannot start on {listen}, ports {port} and {nfc_port}: {error}"
        ) from error
    try:
        spec.build(site)
        control = ControlServer(state_dir / "control.sock", site)
    except (SiteFileError, OSError) as error:
        site.close()
        raise CannotServe(str(error)) from error
    try:
        control.start()
        site.start()
        if ready_file:
            _write_ready_file(ready_file, _facts(site, control.path))
        announce(f"simulated ESXi at https://{site.address}, NFC on {site.nfc_port}")
        stop.wait()  # for as long as the user wants
    finally:
        if ready_file:
            ready_file.unlink(missing_ok=True)
        control.close()
        site.close()


def _facts(site: SimulatedSite, control: Path) -> dict[str, Any]:
    return {
        "address": site.address,
        "nfc_port": site.nfc_port,
        "certificate_sha256": site.certificate_sha256,
        "user": site.user,
        "password_file": str(site.password_file.resolve()),
        "control": str(control.resolve()),
    }


def _write_ready_file(path: Path, facts: dict[str, Any]) -> None:
    """Whole or not at all: whoever waits for it reads it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)

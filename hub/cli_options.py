"""What the commands of `sendense-hub` share."""

from pathlib import Path
from typing import Annotated

import typer

# -h is what many try first.
HELP_NAMES = {"help_option_names": ["-h", "--help"]}

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file; without it, SENDENSE_HUB_* of the environment."),
]

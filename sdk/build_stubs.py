"""Build hook: makes the Python stubs of `sendense.v1` from the protos.

The stubs are never committed; every install (editable or wheel) makes them
anew, so they cannot disagree with the contract.
"""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsBuildHook(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "sdist":
            return  # the source distribution carries the protos themselves
        generate_stubs(Path(self.root))


def generate_stubs(root: Path) -> None:
    """Write the stubs of every proto below `root`. Raises RuntimeError when protoc refuses one."""
    from importlib.resources import files

    from grpc_tools import protoc

    # In the repository the protos lie beside sdk/, in a source distribution inside it.
    candidates = [root.parent / "protos", root / "protos"]
    proto_root = next((p for p in candidates if (p / "sendense" / "v1").is_dir()), None)
    if proto_root is None:
        raise RuntimeError(f"no protos found in any of {[str(p) for p in candidates]}")
    sources = sorted(str(p) for p in proto_root.glob("sendense/v1/*.proto"))
    binaries = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={proto_root}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy_grpc={_plugin(binaries, 'protoc-gen-mypy_grpc')}",
            f"--python_out={root}",
            f"--pyi_out={root}",
            f"--grpc_python_out={root}",
            f"--mypy_grpc_out={root}",
            *sources,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc refused the protos in {proto_root} (status {status})")


def _plugin(binaries: Path, name: str) -> str:
    import shutil

    found = shutil.which(name, path=str(binaries)) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"the protoc plugin {name} is not installed beside {sys.executable}")
    return found


if __name__ == "__main__":
    generate_stubs(Path(__file__).resolve().parent)

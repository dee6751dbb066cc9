"""Names in a repository: built from ids, checked before they touch the file system."""

from pathlib import PurePosixPath

from shared.errors import InvalidArgument

LAYER_SUFFIX = ".qcow2"
MANIFEST_SUFFIX = ".manifest"
PARTIAL_SUFFIX = ".partial"
JOB_FACTS = "job.json"
REPOSITORY_FACTS = "sendense-repository.json"
# Of files that a test of the repository writes.
PROBE_PREFIX = "sendense-probe-"
# What a new file system has in its root.
OF_THE_FILE_SYSTEM = frozenset({"lost+found"})

_NAME_BYTES_LIMIT = 255


def component(field: str, name: str) -> str:
    """`name` if it can be one component of a path. Raises InvalidArgument."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(field, "is not valid Unicode") from error
    if name in ("", ".", ".."):
        raise InvalidArgument(field, f"{name!r} cannot be a folder's name")
    if "/" in name or "\0" in name:
        raise InvalidArgument(field, f"{name!r} has a slash or a NUL in it")
    if length > _NAME_BYTES_LIMIT:
        raise InvalidArgument(field, f"{length} bytes are too long for a folder's name")
    return name


def job_folder(context_id: str, job_id: str) -> str:
    """The job's folder, relative to the repository."""
    return f"{component('context_id', context_id)}/{component('job_id', job_id)}"


def layer_path(context_id: str, job_id: str, disk_index: int) -> str:
    """The layer's path, relative to the repository."""
    if disk_index < 0:
        raise InvalidArgument("disk_index", f"{disk_index} is negative")
    return f"{job_folder(context_id, job_id)}/disk-{disk_index}{LAYER_SUFFIX}"


def manifest_path(layer: str) -> str:
    """The path of a layer's manifest."""
    return layer.removesuffix(LAYER_SUFFIX) + MANIFEST_SUFFIX


def checked_layer_path(path: str) -> str:
    """`path` if it is one that `layer_path` makes. Raises InvalidArgument."""
    parts = PurePosixPath(path).parts
    if len(parts) != 3 or "/".join(parts) != path or not path.endswith(LAYER_SUFFIX):
        raise InvalidArgument("layer_path", f"{path!r} is not <context>/<job>/disk-<n>.qcow2")
    for part in parts:
        component("layer_path", part)
    return path


def backing_name(layer: str, base: str) -> str:
    """How a layer's header names its base: relative to the layer, so that both can be moved."""
    context, job, _ = layer.split("/")
    base_context, base_job, base_file = base.split("/")
    if (context, job) == (base_context, base_job):
        return base_file
    if context == base_context:
        return f"../{base_job}/{base_file}"
    return f"../../{base}"

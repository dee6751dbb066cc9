"""The repository's folder: who it belongs to, its layers, what is left over in it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hub.repository.base_reader import BaseReader
from hub.repository.chain import Chain
from hub.repository.errors import RepositoryUnusable, os_errors_of, translated
from hub.repository.facts import NOTHING_DURABLE, LayerBase, LayerIdentity, Space
from hub.repository.file_calls import file_calls
from hub.repository.files import (
    Descriptors,
    create_file_durably,
    make_folders,
    sync_folder,
    unlink_if_there,
    write_file_durably,
    write_probe,
)
from hub.repository.journal import SealedManifest
from hub.repository.layer_writer import LayerWriter
from hub.repository.left_layer import LeftLayer
from hub.repository.leftovers import KnownJobs, Leftovers, remove_if_empty
from hub.repository.lineage import check_base, open_base, open_lineage
from hub.repository.manifest import ManifestHeader
from hub.repository.mark import FORMAT, facts_bytes, mark_bytes, read_mark
from hub.repository.paths import (
    JOB_FACTS,
    OF_THE_FILE_SYSTEM,
    PARTIAL_SUFFIX,
    REPOSITORY_FACTS,
    backing_name,
    checked_layer_path,
    job_folder,
    layer_path,
)
from hub.repository.probe import room
from hub.repository.removal import remove_file, remove_folder
from hub.repository.reserve import require_reserve
from hub.repository.resumption import LayerState, RecoveredLayer, ResumedLayer
from sendense.qcow2_format import (
    BACKING_NAME_LIMIT,
    CapacityInvalid,
    check_capacity,
)
from shared.errors import InvalidArgument


class Repository:
    """A folder of layers. Thread-safe: it holds no state but its path and id."""

    def __init__(self, path: Path, repository_id: str) -> None:
        """Use `create` or `open`."""
        self.path = path
        self.repository_id = repository_id

    @classmethod
    def create(cls, path: Path, *, repository_id: str, name: str) -> "Repository":
        """Make the folder (its parent exists), or adopt an empty one or one of this id.

        A folder within another repository is refused: that one's start-up would
        take it for a context.

        Raises RepositoryUnusable, RepositoryFull.
        """
        try:
            _require_outermost(path)
            if not path.is_dir():
                file_calls().mkdir(path, 0o750)
                sync_folder(path.parent)
            entries = {entry.name for entry in path.iterdir()}
        except FileNotFoundError as error:
            raise RepositoryUnusable(str(path), "its parent folder does not exist") from error
        except (FileExistsError, NotADirectoryError) as error:
            raise RepositoryUnusable(str(path), "is not a folder") from error
        except OSError as error:
            raise translated(error, path) from error
        if REPOSITORY_FACTS in entries:
            return cls.open(path, repository_id=repository_id)
        strangers = sorted(
            entry
            for entry in entries - OF_THE_FILE_SYSTEM
            # Left by a `create` that did not end.
            if not (entry.startswith(REPOSITORY_FACTS) and entry.endswith(PARTIAL_SUFFIX))
        )
        if strangers:
            raise RepositoryUnusable(str(path), f"is not empty: it has {strangers[0]!r}")
        return cls._marked(path, repository_id, name)

    @classmethod
    def adopt(cls, path: Path, *, repository_id: str, name: str) -> "Repository":
        """Take over a folder with files of another system, which stay as they are; or one of this id.

        Raises RepositoryUnusable, RepositoryFull.
        """
        try:
            _require_outermost(path)
            if not path.is_dir():
                raise RepositoryUnusable(str(path), "is no folder")
        except OSError as error:
            raise translated(error, path) from error
        return cls._marked(path, repository_id, name)

    @classmethod
    def _marked(cls, path: Path, repository_id: str, name: str) -> "Repository":
        with os_errors_of(path):
            if not create_file_durably(path / REPOSITORY_FACTS, mark_bytes(repository_id, name)):
                # Somebody else was quicker; it is theirs unless they wanted the same.
                return cls.open(path, repository_id=repository_id)
        return cls(path, repository_id)

    @staticmethod
    def id_in(path: Path) -> str | None:
        """The id in the folder's mark; None without a mark of this format."""
        try:
            facts = json.loads((path / REPOSITORY_FACTS).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            return None
        found = facts.get("repository_id")
        return found if isinstance(found, str) and found else None

    @classmethod
    def open(cls, path: Path, *, repository_id: str) -> "Repository":
        """Open the folder of the repository of that id. Raises RepositoryUnusable."""
        repository = cls(path, repository_id)
        repository._check_identity()
        return repository

    def space(self) -> Space:
        """Room of its file system. Raises RepositoryUnusable."""
        try:
            return room(self.path)
        except OSError as error:
            raise RepositoryUnusable(str(self.path), error.strerror or str(error)) from error

    def check_writable(self) -> None:
        """Write and remove a small file. Raises RepositoryUnusable; RepositoryFull, also when
        less than RESERVE_BYTES is free."""
        self._check_identity()
        with os_errors_of(self.path):
            require_reserve(self.path)
            write_probe(self.path)

    def new_layer(self, identity: LayerIdentity, base: LayerBase | None) -> LayerWriter:
        """Begin the layer of a job's disk: a full without a base, else an increment.

        Raises InvalidArgument (ids, capacity), LayerDamaged (the base is not
        what the catalog says, or cannot be read), RepositoryUnusable,
        RepositoryFull, LayerWriteFailed.
        """
        layer, header = self._prepared(identity, base, b"")
        return LayerWriter(self.path, layer, header)

    def resume_layer(
        self, identity: LayerIdentity, base: LayerBase | None, *, plan_digest: bytes, change_id: str
    ) -> ResumedLayer:
        """Go on with the layer of a job's disk, which nobody writes now, or begin it.

        Only a layer of the same disk, base and plan counts; an empty `plan_digest` is like
        no other. One that is sealed, or was all but renamed, is returned as it is, and an
        unfinished one goes on behind its last good frame. Else what is there is removed.
        Raises what `new_layer` raises; LayerWriteFailed also when a sealed layer of another
        disk, or of a job that was completed, is in its place, which stays.
        """
        layer, header = self._prepared(identity, base, plan_digest)
        left = LeftLayer(self.path, layer, identity, base)

        def is_same(there: ManifestHeader) -> bool:
            return bool(plan_digest) and there == header

        with os_errors_of(layer):
            if (found := left.sealed(change_id, is_same)) is not None:
                return ResumedLayer(None, *found)
            reopened = left.reopen(is_same)
            if reopened is not None:
                return ResumedLayer(
                    LayerWriter(self.path, layer, header, reopened),
                    journal_bytes_cut=reopened.journal_bytes_cut,
                    layer_bytes_cut=reopened.layer_bytes_cut,
                )
            left.remove()
        return ResumedLayer(LayerWriter(self.path, layer, header))

    def recover_layer(
        self, identity: LayerIdentity, base: LayerBase | None, *, change_id: str
    ) -> RecoveredLayer:
        """Look at the layer of a running job's disk, cut what is not whole, and close it.

        For start-up, when nobody writes. Creates nothing, and leaves alone what no
        upload could go on with. Raises RepositoryUnusable, LayerWriteFailed,
        RepositoryFull, InvalidArgument.
        """
        layer = layer_path(identity.context_id, identity.job_id, identity.disk_index)
        self._check_identity()
        left = LeftLayer(self.path, layer, identity, base)
        with os_errors_of(layer):
            if (found := left.sealed(change_id, left.is_own)) is not None:
                return RecoveredLayer(LayerState.SEALED, NOTHING_DURABLE, *found)
            reopened = left.reopen(left.is_own)
        if reopened is None:
            return RecoveredLayer(LayerState.NONE)
        reopened.files.suspend()
        return RecoveredLayer(
            LayerState.REOPENED,
            reopened.durable,
            journal_bytes_cut=reopened.journal_bytes_cut,
            layer_bytes_cut=reopened.layer_bytes_cut,
        )

    def check_layer(self, base: LayerBase) -> bytes:
        """Open a layer, by its manifest, and all below it, as an increment's base.

        Returns its root digest. Raises LayerDamaged, InvalidArgument for a path
        that cannot be a layer's.
        """
        checked_layer_path(base.path)
        with Descriptors(self.path) as files:
            newest: SealedManifest = open_lineage(files, base.path)[0]
            check_base(newest, base)
            return newest.footer.root_digest

    def open_base(self, base: LayerBase, capacity_bytes: int) -> BaseReader:
        """Open the base of a disk of that size, to read what it holds.

        Raises LayerDamaged (it is not what the catalog says, cannot be read, is larger
        than the disk), InvalidArgument for a path that cannot be a layer's.
        """
        checked_layer_path(base.path)
        return BaseReader(self.path, base, capacity_bytes)

    def open_chain(self, layer_paths: Sequence[str]) -> Chain:
        """Open a layer and those below it, newest first, as the catalog names them.

        Raises LayerDamaged, InvalidArgument for paths that cannot be layers.
        """
        if not layer_paths:
            raise InvalidArgument("layer_paths", "a chain has at least one layer")
        return Chain(self.path, [checked_layer_path(path) for path in layer_paths])

    def write_job_facts(self, context_id: str, job_id: str, facts: Mapping[str, object]) -> None:
        """Write the job's `job.json` beside its layers, replacing it whole; one caller at a time.

        Raises RepositoryUnusable, RepositoryFull, LayerWriteFailed; also when the
        job's folder is not there: without layers there is nothing to tell of.
        """
        folder = job_folder(context_id, job_id)
        self._check_identity()
        with os_errors_of(f"{folder}/{JOB_FACTS}"):
            # What a crash left of an earlier attempt: nobody else writes these now.
            for path in (self.path / folder).iterdir():
                if path.name.startswith(JOB_FACTS) and path.name.endswith(PARTIAL_SUFFIX):
                    unlink_if_there(path)
            write_file_durably(self.path / folder / JOB_FACTS, facts_bytes(facts))

    def job_facts(self, context_id: str, job_id: str) -> dict[str, Any] | None:
        """What the job's `job.json` says; None without one, {} when it cannot be understood.

        Raises RepositoryUnusable, LayerWriteFailed.
        """
        path = self.path / job_folder(context_id, job_id) / JOB_FACTS
        self._check_identity()
        with os_errors_of(path):
            try:
                facts = json.loads(path.read_bytes())
            except FileNotFoundError:
                return None
            except (ValueError, RecursionError):
                return {}
        return facts if isinstance(facts, dict) else {}

    def remove_job(self, context_id: str, job_id: str) -> None:
        """Remove a job's folder and all in it, and the context's when that was its last.

        A folder that is not there is fine. Raises RepositoryUnusable,
        LayerWriteFailed; what is left can be removed by calling again.
        """
        folder = job_folder(context_id, job_id)
        self._check_identity()
        remove_folder(self.path, folder)
        with os_errors_of(folder):
            remove_if_empty((self.path / folder).parent)

    def remove_layer_file(self, path: str) -> None:
        """Remove one file by its relative path, and no folder; for layers that were imported.

        A file that is not there is fine. Raises RepositoryUnusable,
        LayerWriteFailed, InvalidArgument for a path that leads elsewhere.
        """
        self._check_identity()
        remove_file(self.path, path)

    def remove_leftovers(
        self, known: KnownJobs = KnownJobs(), stopped: Callable[[], bool] = lambda: False
    ) -> list[str]:
        """Remove what the hub's last run left unfinished; for start-up, when nothing is written.

        See `Leftovers`; it ends early once it was `stopped`. Returns the paths of
        what went, relative. Raises RepositoryUnusable, LayerWriteFailed.
        """
        leftovers = Leftovers(self.path, known, stopped=stopped)
        leftovers.remove()
        return leftovers.removed

    def _prepared(
        self, identity: LayerIdentity, base: LayerBase | None, plan_digest: bytes
    ) -> tuple[str, ManifestHeader]:
        """The path and header of a layer that may be begun; its folder is there then."""
        layer = layer_path(identity.context_id, identity.job_id, identity.disk_index)
        try:
            check_capacity(identity.capacity_bytes)
        except CapacityInvalid as error:
            raise InvalidArgument("capacity_bytes", str(error)) from error
        self._check_identity()
        root_digest = b""
        if base is not None:
            root_digest = self._checked_base(layer, identity, base)
        with os_errors_of(layer):
            make_folders(self.path, job_folder(identity.context_id, identity.job_id))
        return layer, ManifestHeader(identity, base, root_digest, plan_digest)

    def _checked_base(self, layer: str, identity: LayerIdentity, base: LayerBase) -> bytes:
        """Open the whole chain below, so that a broken one is told before the upload."""
        if len(backing_name(layer, checked_layer_path(base.path)).encode()) > BACKING_NAME_LIMIT:
            raise InvalidArgument("job_id", "the ids are too long for a QCOW2 backing file name")
        with Descriptors(self.path) as files:
            return open_base(files, base, identity.capacity_bytes)[0].footer.root_digest

    def _check_identity(self) -> None:
        """Raise RepositoryUnusable unless this repository's mark is in the folder."""
        read_mark(self.path, self.repository_id)


def _require_outermost(path: Path) -> None:
    """Raises RepositoryUnusable unless the path is absolute and in no repository; OSError."""
    if not path.is_absolute():
        raise RepositoryUnusable(str(path), "the path must be absolute")
    for above in path.parents:
        if (above / REPOSITORY_FACTS).exists():
            raise RepositoryUnusable(str(path), f"lies within the repository {above}")

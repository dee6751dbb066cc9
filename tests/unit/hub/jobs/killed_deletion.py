"""Deletes in processes that kill themselves: before the 1st step, before the 2nd, and so on.

A program, run by test_delete_killed.py: `killed_deletion <state folder> job|context <id>`.
Steps are commits of the catalog and removals of files and folders. For each one a
copy of the state is made beside it, `<state folder>-<number>`; the number of the
copies is printed. The last process came to its end.
"""

import os
import shutil
import signal
import sqlite3
import sys
from itertools import count
from pathlib import Path

from sqlalchemy import event

from hub.catalog.engine import Catalog
from hub.jobs.delete import delete_backup, delete_context
from hub.jobs.parts import Parts

STEPS = ("os.remove", "os.rmdir")
DATABASE, REPOSITORY = "catalog.db", "repository"
MAX_STEPS = 200


def copied(state: Path, number: int) -> Path:
    """A copy of the state, its catalog telling of the repository in the copy."""
    copy = state.with_name(f"{state.name}-{number}")
    shutil.copytree(state, copy)
    connection = sqlite3.connect(copy / DATABASE)
    with connection:
        connection.execute("UPDATE backup_repositories SET path = ?", (str(copy / REPOSITORY),))
    connection.close()
    return copy


def delete(state: Path, kind: str, name: str, steps: int) -> None:
    """Delete, and be killed right before the step after so many."""
    done = 0

    def step(*args: object) -> None:
        nonlocal done
        if done == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    catalog = Catalog(f"sqlite:///{state / DATABASE}")
    event.listen(catalog.engine, "commit", step)
    sys.addaudithook(lambda what, args: step() if what in STEPS else None)
    parts = Parts(catalog)
    if kind == "job":
        delete_backup(parts, name, cascade=True)
    else:
        delete_context(parts, name)


def main(state: Path, kind: str, name: str) -> None:
    for steps in count():
        assert steps < MAX_STEPS, "the deletion does not end"
        copy = copied(state, steps)
        child = os.fork()
        if child == 0:
            delete(copy, kind, name, steps)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            print(steps + 1)
            return
        assert os.WIFSIGNALED(status), f"the deletion failed at step {steps}"
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

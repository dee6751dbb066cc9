"""Property filters of container views."""

from typing import Any

from pyVmomi import vim, vmodl

PC = vmodl.query.PropertyCollector


def view_filter(view: Any, kind: Any, paths: list[str], *, everything: bool = False) -> Any:
    return PC.FilterSpec(
        objectSet=[
            PC.ObjectSpec(
                obj=view,
                skip=True,
                selectSet=[
                    PC.TraversalSpec(
                        name="members", type=vim.view.ContainerView, path="view", skip=False
                    )
                ],
            )
        ],
        propSet=[PC.PropertySpec(type=kind, pathSet=paths, all=everything)],
    )

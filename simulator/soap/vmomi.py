"""pyVmomi's types, for the server's side.

They are made at run time, and the published type stubs describe the client's side only:
here they are untyped on purpose, in one place.
"""

from typing import Any, Final

import pyVmomi
from pyVmomi import SoapAdapter as _adapter
from pyVmomi import VmomiSupport as _support

_package: Any = pyVmomi
adapter: Any = _adapter
support: Any = _support
vim: Any = _package.vim
vmodl: Any = _package.vmodl

API_VERSION: Final = "8.0.3.0"
SERVER_VERSION: Final[str] = support.versionMap[f"vim25/{API_VERSION}"]
NAMESPACE: Final = "urn:vim25"

DataObject = Any  # a pyVmomi data object
Reference = Any  # a pyVmomi managed object: a type and a moid
Fault = Any  # a pyVmomi MethodFault

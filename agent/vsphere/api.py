"""pyVmomi's types, which it makes at run time: its stubs declare no constructors."""

from typing import Any

from pyVmomi import SoapAdapter as _SoapAdapter
from pyVmomi import VmomiSupport as _VmomiSupport
from pyVmomi import vim as _vim
from pyVmomi import vmodl as _vmodl

vim: Any = _vim
vmodl: Any = _vmodl
VmomiSupport: Any = _VmomiSupport
SoapStubAdapter: Any = _SoapAdapter.SoapStubAdapter

"""What a process leaves out so that it begins sooner."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


class _Unused(ModuleType):
    """In the place of torch's compiler: what optimizers ask of it while nothing is compiled, else the real one."""

    @staticmethod
    def graph_break(*_: Any, **__: Any) -> None:
        """Only what is being compiled could be broken."""

    @staticmethod
    def disable(function: Any, *_: Any, **__: Any) -> Any:
        return function

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # which inspect asks of every module there is
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER], torch._dynamo
        return getattr(import_module(COMPILER), name)


def without_compiler() -> None:
    """Keep ``torch.optim`` from importing torch's compiler, which takes long, for nothing.

    Whoever compiles gets it all the same: whatever else is asked of the module, its submodules too, loads it.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = torch._dynamo = _Unused(COMPILER)

"""Compilation of the loops to an object file, in a process of its own.

numba optimizes each function together with all functions that it calls, and emits machine code for it, at
every level of the call graph. Here it only translates functions. They are then linked, and optimized once,
which takes a quarter of the time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock

from parallelmlp_search.kernels.numba.library import ENTRY_POINTS, TARGET_VARIABLE, object_name


def _translate_only() -> None:
    """Make numba translate functions to LLVM's language and nothing more, for the rest of this process."""
    from numba.core import codegen
    from numba.core.dispatcher import Dispatcher
    from numba.core.types import misc

    class Library(codegen.JITCodeLibrary):  # type: ignore[misc]
        def _optimize_functions(self, module: Any) -> None:
            module.data_layout = self._codegen._data_layout

        def finalize(self) -> None:
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            return 0

    codegen.JITCPUCodegen._library_class = Library
    codegen.JITCPUCodegen.set_env = lambda self, name, environment: None
    template = Dispatcher.get_call_template

    def call_template(self: Any, arguments: Any, keywords: Any) -> Any:
        # otherwise each constant among the arguments is another function to translate
        return template(self, [misc.unliteral(argument) for argument in arguments], keywords)

    setattr(Dispatcher, "get_call_template", call_template)  # noqa: B010 - mypy refuses an assignment


def _linked(functions: dict[str, Any]) -> Any:
    """Translate entry points and everything that they call, as one module of LLVM."""
    import llvmlite.binding as llvm
    import numba

    from parallelmlp_search.kernels.numba.decorators import OPTIONS, WITHOUT_WRAPPERS

    names, libraries = {}, {}

    def visit(library: Any) -> None:
        if id(library) not in libraries:
            libraries[id(library)] = library
            for other in library._linking_libraries:
                visit(other)

    for name, function in functions.items():
        dispatcher = numba.njit(**OPTIONS, **WITHOUT_WRAPPERS)(function)
        dispatcher.compile((numba.types.int64,))
        (result,) = dispatcher.overloads.values()
        names[result.fndesc.llvm_func_name] = f"pmlp_{name}"
        visit(result.library)
    module = llvm.parse_assembly("")
    for library in libraries.values():
        module.link_in(library._final_module, preserve=True)
    for function in module.functions:
        if function.name in names:
            function.name = names[function.name]
        elif not function.is_declaration:
            function.linkage = "internal"
    return module


def compiler_features(target: str) -> str:
    """Return the features of a kind of CPU that its name does not imply, in LLVM's notation."""
    # LLVM avoids the widest vectors, which slowed down the clock of the first CPUs that had them
    return "-prefer-256-bit" if target == "x86-64-v4" else ""


def compile_loops(target: str) -> bytes:
    """Return the object file of the loops for a kind of CPU. The process can compile nothing else with numba.

    Parameters
    ----------
    target
        Name of the kind of CPU, as LLVM knows it.

    Returns
    -------
    bytes
        Contents of the object file.
    """
    features = compiler_features(target)
    os.environ |= {TARGET_VARIABLE: target, "NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": features}
    _translate_only()
    from numba.core.registry import cpu_target

    from parallelmlp_search.kernels.numba import batches, loops, prediction, ranking, training

    known = vars(training) | vars(prediction) | vars(batches) | vars(loops) | vars(ranking)
    functions = {name: known[name] for name in ENTRY_POINTS}
    module = _linked(functions)
    codegen = cpu_target.target_context.codegen()
    manager, builder = codegen._module_pass_manager()
    manager.run(module, builder)
    compiled: bytes = codegen._tm.emit_object(module)
    return compiled


def store_loops(target: str, folder: Path) -> None:
    """Compile the loops for a kind of CPU and write the object file, unless another process does."""
    os.environ[TARGET_VARIABLE] = target
    path = folder / object_name()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{target}.lock"):
        if not path.is_file():
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(compile_loops(target))
            temporary.replace(path)


if __name__ == "__main__":
    store_loops(sys.argv[1], Path(sys.argv[2]))

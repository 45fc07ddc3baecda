"""Machine code of the compiled loops: where it is stored, how it is made, and how it is loaded.

The loops are an object file per kind of CPU. A wheel contains the files of common CPUs; where none fits, a
separate process compiles one with numba, once per user and version of the loops. Loading needs llvmlite, and
takes milliseconds. A process that only loads the file does not import numba.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from parallelmlp_search._optional import is_installed
from parallelmlp_search.exceptions import CompilationError
from parallelmlp_search.kernels.numba.arguments import Integers

USE_VARIABLE = "PMLP_COMPILED"
"""Environment variable with the rule for the use of the compiled loops, see `dispatch`."""

TARGET_VARIABLE = "PMLP_TARGET"
"""Environment variable that chooses the kind of CPU instead of the one of this machine."""

ENTRY_POINTS = (
    "backward_activations",
    "binary_logits",
    "cross_entropy",
    "dropout_noise",
    "forward_activations",
    "forward_activations_in_place",
    "gather_batches",
    "member_outputs",
    "member_steps",
    "optimizer_step",
    "output_workspace_size",
    "ranked_areas",
    "workspace_size",
)
"""Names of the functions in an object file."""

_FEATURES = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
}
_SHIPPED = Path(__file__).parent / "objects"


@cache
def _can_load() -> bool:
    return is_installed("llvmlite")


@cache
def target() -> str:
    """Return the kind of CPU whose machine code is used: a name that LLVM knows."""
    chosen = os.environ.get(TARGET_VARIABLE)
    if chosen:
        return chosen
    if platform.machine().lower() not in ("x86_64", "amd64") or not _can_load():
        return "generic"
    import llvmlite.binding

    present = llvmlite.binding.get_host_cpu_features()
    for name, features in _FEATURES.items():
        if all(present.get(feature) for feature in features):
            return name
    return "x86-64"


@cache
def _digest() -> str:
    """Digest of all sources that are compiled into each other."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def object_name() -> str:
    """Return the name of the object file for this machine and these sources."""
    return f"{sys.platform}-{platform.machine()}-{target()}-{_digest()}.o"


def cache_folder() -> Path:
    """Return the folder of compiled object files: ``PMLP_CACHE``, or that of the user's caches."""
    if chosen := os.environ.get("PMLP_CACHE"):
        return Path(chosen)
    home = Path.home()
    folders = {"win32": home / "AppData" / "Local", "darwin": home / "Library" / "Caches"}
    caches = os.environ.get("XDG_CACHE_HOME") or folders.get(sys.platform, home / ".cache")
    return Path(caches) / "parallelmlp_search"


def find() -> Path | None:
    """Return the object file for this machine, or None if it has to be compiled first or cannot be used."""
    if not _can_load():
        return None
    paths = (folder / object_name() for folder in (_SHIPPED, cache_folder()))
    return next((path for path in paths if path.is_file()), None)


@cache
def can_compile() -> bool:
    """Return True if numba is installed."""
    return is_installed("numba")


def _start(errors: int) -> subprocess.Popen[bytes]:
    """Start a process that compiles the loops and stores the object file."""
    module = "parallelmlp_search.kernels.numba.compilation"
    command = [sys.executable, "-m", module, target(), str(cache_folder())]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=errors)


_background: list[subprocess.Popen[bytes]] = []


def compile_in_background() -> None:
    """Start to compile the loops. The process goes on when this one ends, so that the next one finds them."""
    wanted = os.environ.get(USE_VARIABLE) != "0" and can_compile()
    if wanted and not _background and find() is None:
        _background.append(_start(subprocess.DEVNULL))


def ensure_compiled() -> Path:
    """Return the object file for this machine, and compile it before if necessary.

    Returns
    -------
    Path
        The file. Processes that ask at the same time wait for the same compilation.

    Raises
    ------
    CompilationError
        If numba fails or the file cannot be stored.
    """
    if (found := find()) is not None:
        return found
    _, errors = _start(subprocess.PIPE).communicate()
    if (found := find()) is None:
        reason = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise CompilationError(
            f"the loops could not be compiled into {str(cache_folder())!r} ({reason}): "
            f"set PMLP_COMPILED=0 to train without them, or PMLP_CACHE to a folder that can be written"
        )
    return found


class Loops:
    """Compiled loops of an object file; each takes what `arguments.pack` returns and returns an integer."""

    def __init__(self, path: Path) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
            codemodel="jitdefault", jit=True
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(path.read_bytes()))
        self._engine.finalize_object()
        # numba returns a status, and takes pointers to the result and to an exception before the arguments
        kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        self._functions: dict[str, Any] = {
            name: kind(self._engine.get_function_address(f"pmlp_{name}")) for name in ENTRY_POINTS
        }

    def run(self, name: str, arguments: Integers) -> int:
        """Run a loop. The interpreter's lock is released.

        Parameters
        ----------
        name
            One of :data:`ENTRY_POINTS`.
        arguments
            What `arguments.pack` returns.

        Returns
        -------
        int
            Result of the loop.
        """
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        address = arguments.__array_interface__["data"][0]
        status = self._functions[name](ctypes.byref(result), ctypes.byref(error), address)
        if status:
            raise RuntimeError(f"the compiled loop {name} failed with status {status}")
        return result.value


@cache
def loops() -> Loops:
    """Return the compiled loops, loaded once per process; they are compiled before if necessary."""
    return Loops(ensure_compiled())

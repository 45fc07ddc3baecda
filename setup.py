"""Build of the wheel: it contains the machine code of the compiled loops for common CPUs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
TARGETS = ("x86-64-v4", "x86-64-v3") if IS_X86 else ("generic",)
PACKAGE = Path("parallelmlp_search", "kernels", "numba")


class BuildLoops(build_py):
    """Copy the package and compile the loops, except for an editable installation or without numba."""

    def run(self) -> None:
        """Compile for all kinds of CPU at once."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib).absolute() / PACKAGE / "objects"
        module = "parallelmlp_search.kernels.numba.compilation"
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", module, target, str(folder)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
            )
            for target in TARGETS
        ]
        for target, process in zip(TARGETS, processes, strict=True):
            if process.wait():
                self.warn(f"the loops were not compiled for {target}: they will be when they are first used")
        for lock in folder.glob("*.lock"):
            lock.unlink()


class BuildWheel(bdist_wheel):
    """Wheel for one platform and any version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of the wheel."""
        self.root_is_pure = False
        return "py3", "none", super().get_tag()[2]


setup(cmdclass={"build_py": BuildLoops, "bdist_wheel": BuildWheel})

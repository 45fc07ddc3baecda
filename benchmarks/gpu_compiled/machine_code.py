"""Registers, spills and instructions of compiled kernels, from the disassembler that Triton includes."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import triton

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.+?)\s*;", re.MULTILINE)
_LOCAL_STORE = re.compile(r"^(?:@!?U?P\w+ )?STL(?:\.(64|128|U8|U16|S8|S16))?\b")
_JUMP = re.compile(r"^(@!?U?P\w+ )?(BRA(?:\.\w+)*|EXIT|RET(?:\.\w+)*|BRX(?:\.\w+)*)\b.*?(0x[0-9a-f]+)?$")
_PRODUCT = re.compile(r"\b(FFMA\w*|HMMA|HGMMA|UTC\w*MMA|DFMA)\b")

_STORED_BYTES = {None: 4, "64": 8, "128": 16, "U8": 1, "S8": 1, "U16": 2, "S16": 2}


@dataclass(frozen=True)
class Instruction:
    """Address and text of an instruction, such as ``@P0 BRA 0x1f0``."""

    address: int
    text: str


@dataclass(frozen=True)
class Usage:
    """Resources of a kernel per thread.

    Attributes
    ----------
    registers
        Number of registers.
    spill_bytes
        Bytes of the instructions that store registers in local memory.
    """

    registers: int
    spill_bytes: int


def _run(tool: str, *arguments: str) -> str:
    # cuobjdump looks for nvdisasm on the path
    environment = os.environ | {"PATH": f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [str(TOOLS / tool), *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def disassemble(cubin: bytes) -> tuple[Usage, list[Instruction]]:
    """Return the resources and the instructions of the only kernel of a binary."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        resources, listing = _run("cuobjdump", "-res-usage", str(path)), _run("cuobjdump", "-sass", str(path))
    instructions = parse(listing)
    registers = re.search(r"REG:(\d+)", resources)
    assert registers is not None, resources
    return Usage(int(registers[1]), spill_bytes(instructions)), instructions


def parse(listing: str) -> list[Instruction]:
    """Return the instructions of a listing."""
    return [Instruction(int(address, 16), text) for address, text in _INSTRUCTION.findall(listing)]


def spill_bytes(instructions: Sequence[Instruction]) -> int:
    """Return the bytes that are stored in local memory, counted as the assembler counts spill stores."""
    stores = [_LOCAL_STORE.match(one.text) for one in instructions]
    return sum(_STORED_BYTES[store[1]] for store in stores if store is not None)


def step_instructions(instructions: Sequence[Instruction], n_tiles: int) -> tuple[int, int]:
    """Return the instructions of a training step of one warp, and those that multiply matrices.

    The longest loop is that over steps, and the longest loop inside it that over tiles of rows. Of two
    branches the longer one counts.

    Parameters
    ----------
    instructions
        Instructions of the persistent kernel.
    n_tiles
        Tiles of a minibatch.

    Returns
    -------
    tuple of int
    """
    places = {one.address: number for number, one in enumerate(instructions)}
    jumps = {}
    for number, one in enumerate(instructions):
        match = _JUMP.match(one.text)
        if match is not None and ".DIV" not in match[2]:
            target = None if match[3] is None else places.get(int(match[3], 16))
            jumps[number] = (match[1] is not None, match[2].startswith("BRA"), target)
    loops = [
        (target, number) for number, (_, jumps_there, target) in jumps.items()
        if jumps_there and target is not None and target <= number
    ]  # fmt: skip
    head, end = max(loops, key=lambda loop: loop[1] - loop[0])
    inner = [loop for loop in loops if head <= loop[0] and loop[1] < end]
    tiles = max(inner, key=lambda loop: loop[1] - loop[0], default=(end, end - 1))

    def cost(number: int) -> tuple[int, int]:
        times = n_tiles if tiles[0] <= number <= tiles[1] else 1
        return times, times * bool(_PRODUCT.search(instructions[number].text))

    # longest way to each instruction of the loop, in the order of addresses: jumps back end a way
    best: dict[int, tuple[int, int]] = {head: cost(head)}
    for number in range(head, end + 1):
        if number not in best:
            continue
        conditional, jumps_there, target = jumps.get(number, (True, False, None))
        following = [number + 1] if conditional else []
        if jumps_there and target is not None and target > number:
            following.append(target)
        for other in following:
            if other <= end:
                more = cost(other)
                way = best[number][0] + more[0], best[number][1] + more[1]
                best[other] = max(best.get(other, (0, 0)), way)
    return best[end]


def are_ordered(instructions: Sequence[Instruction]) -> bool:
    """Return True if addresses increase."""
    return all(one.address < other.address for one, other in pairwise(instructions))

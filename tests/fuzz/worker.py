"""Process that fuzzes one harness: ``python -m tests.fuzz.worker HARNESS CORPUS CRASHES [options]``."""

from __future__ import annotations

import json
import random
import sys
import traceback
from hashlib import sha256
from pathlib import Path

import atheris

MAX_CHANGES = 3

INSTRUMENTED = (
    "parallelmlp_search._checks", "parallelmlp_search._files", "parallelmlp_search._reading",
    "parallelmlp_search._schema", "parallelmlp_search.data", "parallelmlp_search.runs",
    "parallelmlp_search.search", "parallelmlp_search.space", "tomllib", "yaml", "zipfile",
)  # fmt: skip
"""Modules whose branches guide the fuzzer."""

with atheris.instrument_imports(include=list(INSTRUMENTED)):
    import tomllib  # noqa: F401
    import zipfile  # noqa: F401

    import yaml  # noqa: F401

    from tests.faults.damage import change_value
    from tests.fuzz.harnesses import check
    from tests.fuzz.seeds import SEEDS


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change values of a JSON file half of the time, and bytes otherwise."""
    rng = random.Random(seed)
    if rng.random() < 0.5:
        try:
            value = json.loads(data[1:])
            for _ in range(rng.randint(1, MAX_CHANGES)):
                value, _ = change_value(value, rng)
            changed = data[:1] + json.dumps(value).encode()
        except (ValueError, RecursionError):
            pass
        else:
            if len(changed) <= max_size:
                return changed
    mutated: bytes = atheris.Mutate(data, max_size)
    return mutated


class Defects:
    """Exceptions that are no refusals, each place once; the input of each is kept."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.places: set[tuple[type, str, int]] = set()

    def one_input(self, data: bytes) -> None:
        """Run the harness. Fuzzing goes on after an exception; only a crash of the process ends it."""
        try:
            check(self.name, data)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = (type(error), frame.filename, frame.lineno or 0)
            if place not in self.places:
                self.places.add(place)
                path = self.folder / f"exception-{sha256(data).hexdigest()[:16]}"
                path.write_bytes(data)
                print(f"\n{path}", file=sys.stderr)
                traceback.print_exception(error)


def main() -> None:
    """Write the seeds into the corpus and fuzz."""
    name, corpus, crashes = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for data in SEEDS[name]():
        (corpus / sha256(data).hexdigest()).write_bytes(data)
    defects = Defects(name, crashes)
    arguments = [sys.argv[0], str(corpus), f"-artifact_prefix={crashes}/", *sys.argv[4:]]
    atheris.Setup(arguments, defects.one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

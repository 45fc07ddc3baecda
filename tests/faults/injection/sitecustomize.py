"""Installs the fault of the environment variable ``PMLP_FAULT`` in a process with this folder on its path."""

import json
import os

if "PMLP_FAULT" in os.environ:
    import injector

    injector.install(json.loads(os.environ["PMLP_FAULT"]))

"""Store a study in a journal and open it in optuna-dashboard.

Run it from the repository: python examples/optuna_dashboard.py
It needs an extra: pip install 'parallelmlp-search[dashboard]'
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pandas as pd

from parallelmlp_search.integrations.optuna import RefinementSampler, open_storage, optimize

DATA = Path(__file__).parents[1] / "datasets" / "credit_g.csv.gz"

# as `optuna-dashboard FILE --port PORT` in a shell; -P, because this file has the name of the package
SERVE = ["-P", "-c", "import sys; from optuna_dashboard._cli import main; sys.exit(main())"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str, server: subprocess.Popen[bytes], timeout: float = 30.0) -> str:
    """Return a page as soon as the server has started."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError as error:
            starting = isinstance(error.reason, ConnectionRefusedError) and server.poll() is None
            if not starting or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = pd.read_csv(DATA)
    X, y = table.drop(columns="class"), table["class"]

    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "credit.log"  # sqlite:///credit.db works too
        study = optuna.create_study(
            study_name="credit",
            storage=open_storage(f"journal:{journal}"),
            direction="maximize",
            sampler=RefinementSampler(seed=0, n_startup_trials=16),
        )
        optimize(study, X, y, "small", n_trials=32, max_epochs=3)

        port = free_port()
        command = [sys.executable, *SERVE, str(journal), "--port", str(port), "--quiet"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            root = f"http://127.0.0.1:{port}"
            page = fetch(f"{root}/dashboard", server)
            print("page:", page[page.index("<title>") : page.index("</title>")].removeprefix("<title>"))
            studies = json.loads(fetch(f"{root}/api/studies", server))
            for one in studies["study_summaries"]:
                seen = json.loads(fetch(f"{root}/api/studies/{one['study_id']}?after=0", server))["trials"]
                states = [trial["state"] for trial in seen]
                best = max(trial["values"][0] for trial in seen if trial["state"] == "Complete")
                print(
                    f"the dashboard shows study {one['study_name']!r} with {len(seen)} trials, "
                    f"{states.count('Complete')} complete, best ROC-AUC {best:.3f}"
                )
        finally:
            server.terminate()
            server.wait(timeout=10)
    print("stopped")


if __name__ == "__main__":
    main()

"""Train a deep network in slices of depth, compare it with its serial twin, and predict the speed-up.

Run it from the repository: python examples/deep_slices.py
With one rank per slice, each on its own core or GPU: torchrun --nproc-per-node 2 examples/deep_slices.py
With twice as many ranks, two replicas of the network share each minibatch.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from parallelmlp_search import MLPConfig
from parallelmlp_search.parareal import (
    LOOPBACK,
    Communicator,
    DistributedParareal,
    Recipe,
    decompose,
    deep_mlp,
    exit_rank,
    init_communicator,
    measure_device_speed,
    output_gradient,
    predict_steps,
    recommended_slices,
)

DATA = Path(__file__).parents[1] / "datasets" / "satimage.csv.gz"
SLICES, BATCH, EPOCHS = 2, 128, 4
CONFIG = MLPConfig(widths=(48,) * 32, residual=True, normalization="layer")


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Return scaled features and class numbers, shuffled."""
    table = pd.read_csv(DATA).sample(frac=1.0, random_state=0)
    labels = torch.from_numpy(table.pop("classes").astype("category").cat.codes.to_numpy("int64"))
    return torch.from_numpy(StandardScaler().fit_transform(table).astype("float32")), labels


def serial_network() -> nn.Sequential:
    torch.manual_seed(0)
    return deep_mlp(CONFIG, n_inputs=36, n_outputs=6)


def train(slices: int, communicator: Communicator) -> float | None:
    """Train and return the accuracy on the last quarter of the rows; None on ranks without the last slice."""
    X, y = rows()
    n_train = len(X) * 3 // 4
    network = decompose(serial_network(), slices, X[:BATCH])  # finds shapes, cuts and coarse networks
    n_steps = EPOCHS * (n_train // BATCH)
    recipe = Recipe(total_steps=n_steps, learning_rate=2e-3, weight_decay=1e-2)
    engine = DistributedParareal(network, communicator, recipe, X[:BATCH])
    for step in range(n_steps):
        batch = torch.arange(step * BATCH, (step + 1) * BATCH) % n_train
        mine = batch.tensor_split(communicator.n_replicas)[communicator.replica_index]
        engine.step(X[mine], output_gradient("cross_entropy", y[mine], share=len(mine) / BATCH))
    with engine.weights(engine.optimizer.average):
        outputs = engine.predict(X[n_train:])
    return None if outputs is None else float((outputs.argmax(dim=1) == y[n_train:]).float().mean())


def forecast() -> None:
    """Print the predicted speed-up of more devices, connected like two processes of one host."""
    example = torch.randn(BATCH, 36)
    model = serial_network()
    speed = measure_device_speed(model, example)
    found = predict_steps(model, example, (2, 4, 8, 16), speed=speed, link=LOOPBACK)
    for row in found:
        print(f"{row.slices:2d} devices: {row.speedup:.1f} times as fast, {100 * row.efficiency:.0f} % busy")
    print("recommended slices:", recommended_slices(found))


def main() -> None:
    torch.set_num_threads(1)
    if "RANK" in os.environ:  # started by torchrun
        communicator = init_communicator(SLICES)
        accuracy = train(SLICES, communicator)
        if accuracy is not None and communicator.replica_index == 0:
            print(f"accuracy over {SLICES * communicator.n_replicas} ranks: {accuracy:.3f}")
        exit_rank()
    print(f"accuracy of the serial network: {train(1, Communicator()):.3f}")
    print(f"accuracy in {SLICES} slices: {train(SLICES, Communicator()):.3f}")
    forecast()


if __name__ == "__main__":
    main()

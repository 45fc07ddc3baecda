"""Pack plain networks, call the modified matrix multiplication, and extract a network again.

Run it from the repository: python examples/packed_networks.py
"""

from __future__ import annotations

import time

import torch
from torch import nn

from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.kernels.matmul import modified_matmul
from parallelmlp_search.packing import MatmulLayout
from parallelmlp_search.packing.pack import extract, pack


def network(width: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, width), activation(), nn.Linear(width, 3))


def pack_and_extract() -> None:
    """Pack networks of different widths and activations into one flat tensor, and extract one of them."""
    torch.manual_seed(0)
    networks = [network(width, kind) for width in range(1, 101) for kind in (nn.ReLU, nn.Tanh)]
    layout, parameters = pack(networks)
    rows = torch.randn(64, 16)

    with torch.no_grad():
        packed = PackedNetwork(layout, n_rows=64).predict(parameters, rows)  # (P, C, N)
        alone = torch.stack([member(rows).T for member in networks])
    in_order = alone[torch.tensor(layout.members)]
    print(f"{layout.n_members} networks in {len(layout.buckets)} buckets, {parameters.numel():,} numbers")
    print(f"largest difference from the single networks: {(packed - in_order).abs().max():.1e}")

    member = extract(parameters, layout, 123)
    print("member 123 as a plain network:", member)
    torch.testing.assert_close(member(rows), networks[123](rows))


def multiply() -> None:
    """Multiply the hidden neurons of all members by the weights of their networks, with each backend."""
    widths = tuple(width for width in range(1, 101) for _ in range(10))
    layout = MatmulLayout(in_widths=widths, out_widths=(3,) * len(widths))
    activations = torch.randn(layout.n_in, 64)
    weight = torch.randn(layout.n_weights, requires_grad=True)
    results = {}
    for backend in ("loop", "reference", "batched"):
        for _ in range(2):  # the first call also fills the cache
            start = time.perf_counter()
            result = modified_matmul(activations, weight, layout, backend=backend)
            (gradient,) = torch.autograd.grad(result.square().sum(), weight)
        results[backend] = result.view(layout.n_members, 3, 64), gradient
        print(f"{backend:10s} {1000 * (time.perf_counter() - start):6.1f} ms")
    for backend in ("reference", "batched"):
        for found, expected in zip(results[backend], results["loop"], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    print("all backends agree")


if __name__ == "__main__":
    pack_and_extract()
    multiply()

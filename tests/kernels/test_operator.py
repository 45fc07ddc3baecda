"""Custom operator: contract, autocast, compilation, and choice of the backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from parallelmlp_search.engine import Population
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.kernels.matmul import BACKEND_DTYPES, BACKENDS, choose_backend, modified_matmul
from parallelmlp_search.kernels.operator import operator
from parallelmlp_search.kernels.triton import availability, ragged_launch
from parallelmlp_search.kernels.triton.launch import PersistentTraining
from parallelmlp_search.packing import DataShape, MatmulLayout
from parallelmlp_search.space import MLPConfig

RAGGED = MatmulLayout((2, 3, 40, 7, 7), (3, 3, 2, 5, 50))


def _arguments(device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(RAGGED.n_in, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(RAGGED.n_weights, generator=generator, dtype=torch.float64)
    return tuple(t.to(device, dtype).requires_grad_() for t in (activations, weight))  # type: ignore[return-value]


def test_a_layout_round_trips_through_its_runs() -> None:
    assert RAGGED.flat_runs == [1, 2, 3, 1, 3, 3, 1, 40, 2, 1, 7, 5, 1, 7, 50]
    assert MatmulLayout.from_runs(RAGGED.flat_runs) == RAGGED
    assert MatmulLayout.from_runs([3, 2, 5]) == MatmulLayout((2, 2, 2), (5, 5, 5))


@pytest.mark.parametrize("backend", ["batched", "triton"])
def test_the_operator_passes_opcheck(backend: str, device: str) -> None:
    # schema, registration of the gradient, fake tensors, and ahead-of-time compilation with dynamic shapes
    torch.library.opcheck(operator, (*_arguments(device), RAGGED.flat_runs, backend))


def test_fake_tensors_have_the_shape_of_the_result() -> None:
    with FakeTensorMode():
        activations, weight = torch.empty(RAGGED.n_in, 9), torch.empty(RAGGED.n_weights)
        assert modified_matmul(activations, weight, RAGGED).shape == (RAGGED.n_out, 9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tracing_leaves_no_fake_tensor_in_caches(backend: str, device: str) -> None:
    layout = MatmulLayout((2, 3, 5), (4, 1, 2))  # a layout that no other test uses
    real = torch.ones(layout.n_in, 4, device=device), torch.ones(layout.n_weights, device=device)
    with FakeTensorMode():
        activations = torch.empty(layout.n_in, 4, device=device)
        weight = torch.empty(layout.n_weights, device=device)
        assert modified_matmul(activations, weight, layout, backend=backend).shape == (7, 4)
    result = modified_matmul(*real, layout, backend=backend)
    assert result[:, 0].tolist() == [2, 2, 2, 2, 3, 5, 5]


def test_torch_compile_needs_no_graph_break(device: str) -> None:
    activations, weight = _arguments(device)

    def function(a: Tensor, w: Tensor) -> Tensor:
        return modified_matmul(a, w, RAGGED, backend="batched").sin()

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(activations, weight), function(activations, weight))


@pytest.mark.parametrize("backend", ["auto", "batched", "triton"])
def test_autocast_casts_like_products_of_torch(backend: str, device: str) -> None:
    activations, weight = _arguments(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        result = modified_matmul(activations, weight, RAGGED, backend=backend)
        double = modified_matmul(activations.double(), weight.double(), RAGGED, backend="batched")
    assert result.dtype == torch.bfloat16
    assert double.dtype == torch.float64
    bias = torch.randn(RAGGED.n_out, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        shifted = modified_matmul(activations, weight, RAGGED, bias=bias, backend=backend)
    # a bias of float32 is cast as well, as by torch.nn.functional.linear
    assert shifted.dtype == torch.bfloat16
    assert torch.equal(shifted, result + bias.bfloat16().unsqueeze(1))
    result.float().sum().backward()
    assert activations.grad is not None
    assert activations.grad.dtype == torch.float32
    rounded = modified_matmul(activations.bfloat16(), weight.bfloat16(), RAGGED, backend=backend)
    assert torch.equal(result, rounded)
    # casting changes the result
    assert not torch.equal(result.float(), modified_matmul(activations, weight, RAGGED, backend=backend))


TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 6e-3}
"""Relative to the largest entry; a few units in the last place of each dtype."""


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_dtypes_of_each_backend(backend: str, dtype: torch.dtype, device: str) -> None:
    if backend != "auto":
        assert dtype in BACKEND_DTYPES[backend]
    expected_arguments = [t.detach().double().requires_grad_() for t in _arguments(device, dtype)]
    expected = modified_matmul(*expected_arguments, RAGGED, backend="loop")
    expected.sum().backward()
    arguments = _arguments(device, dtype)
    result = modified_matmul(*arguments, RAGGED, backend=backend)
    result.sum().backward()
    assert result.dtype == dtype
    pairs = [(result, expected)]
    pairs += [(a.grad, b.grad) for a, b in zip(arguments, expected_arguments, strict=True)]
    for got, wanted in pairs:
        error = (got.double() - wanted).abs().max() / wanted.abs().max()
        assert error < TOLERANCE[dtype]


def test_a_second_derivative_is_an_error(device: str) -> None:
    activations, weight = _arguments(device)
    result = modified_matmul(activations, weight, RAGGED)
    (gradient,) = torch.autograd.grad(result.sum(), activations, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


def test_unsupported_and_mixed_dtypes_are_an_error() -> None:
    activations, weight = (t.detach() for t in _arguments("cpu"))
    words = r"activations must be one of float64, .* got torch\.int64"
    with pytest.raises(InvalidParameterError, match=words):
        modified_matmul(activations.long(), weight.long(), RAGGED)
    with pytest.raises(
        InvalidParameterError, match=r"weight must have the dtype of activations, torch.float32"
    ):
        modified_matmul(activations, weight.double(), RAGGED)
    with pytest.raises(InvalidParameterError, match="bias must have the dtype of activations"):
        modified_matmul(activations, weight, RAGGED, bias=torch.zeros(RAGGED.n_out, dtype=torch.float64))


def test_triton_needs_a_device_or_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    activations, weight = (t.detach() for t in _arguments("cpu"))
    with pytest.raises(InvalidParameterError, match="must have its tensors on a CUDA device, but got cpu"):
        modified_matmul(activations, weight, RAGGED, backend="triton")


def test_without_triton_other_backends_work_and_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from parallelmlp_search.exceptions import MissingDependencyError

    monkeypatch.setattr(availability, "_is_installed", lambda: False)
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    activations, weight = (t.detach() for t in _arguments("cpu"))
    assert modified_matmul(activations, weight, RAGGED).shape == (RAGGED.n_out, 6)
    with pytest.raises(MissingDependencyError, match=r"parallelmlp-search\[gpu\]"):
        modified_matmul(activations, weight, RAGGED, backend="triton")


UNIFORM = MatmulLayout((8,) * 50, (3,) * 50)
WIDE = MatmulLayout(tuple(range(512, 524)), (512,) * 12)


@pytest.mark.parametrize(
    ("layout", "device", "dtype", "installed", "expected"),
    [
        (RAGGED, "cuda", torch.float32, True, "triton"),
        (RAGGED, "cuda", torch.bfloat16, True, "triton"),
        (RAGGED, "cuda", torch.float64, True, "batched"),
        (RAGGED, "cuda", torch.float32, False, "batched"),
        (UNIFORM, "cuda", torch.float32, True, "batched"),
        (WIDE, "cuda", torch.float32, True, "batched"),
        (RAGGED, "cpu", torch.float32, True, "batched"),
    ],
)
def test_the_backend_is_chosen_by_layout_device_and_dtype(
    layout: MatmulLayout,
    device: str,
    dtype: torch.dtype,
    installed: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(availability, "_is_installed", lambda: installed)
    assert choose_backend(layout, device, dtype) == expected


def test_tf32_follows_the_setting_of_torch(device: str) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert availability.tile_precision(torch.float32) == "ieee"
        assert ragged_launch._settings(torch.float32)["PRECISION"] == "ieee"
        torch.set_float32_matmul_precision("high")
        assert availability.tile_precision(torch.float32) == "tf32"
        assert availability.tile_precision(torch.float64) == "ieee"
        # the setting reaches the launches
        assert ragged_launch._settings(torch.float32)["PRECISION"] == "tf32"
        assert ragged_launch._settings(torch.float64)["PRECISION"] == "ieee"
        layout = Population.create([MLPConfig(widths=(4,))], DataShape(3, 1)).layout
        training = PersistentTraining(
            layout, [0], loss="binary_logits", batch_sizes=[8], weighted=False, device=device
        )
        assert [entry.settings["PRECISION"] for lane in training.lanes for entry in lane.launches] == ["tf32"]
    finally:
        torch.set_float32_matmul_precision(before)

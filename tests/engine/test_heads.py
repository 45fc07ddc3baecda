"""Heads map outputs to probabilities and to values in the units of the target."""

from __future__ import annotations

import math

import torch

from parallelmlp_search.engine.heads import head_predictions, stable_head_predictions
from parallelmlp_search.inference.outputs import mean_predictions
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.packing import Head


def test_two_classes_share_one_logit() -> None:
    head = Head(task="binary", n_predictions=2)
    assert (head.n_outputs, head.default_loss) == (1, "binary_logits")
    logits = torch.tensor([[[-800.0, -1.0, 0.0, 40.0]]], dtype=torch.float64)
    predictions = head_predictions(head, logits)
    assert predictions.shape == (1, 2, 4)
    torch.testing.assert_close(predictions[:, 1:], torch.sigmoid(logits))
    # 1 - sigmoid(40) would be lost to rounding, sigmoid(-40) is not
    assert 0 < float(predictions[0, 0, 3]) < 1e-17
    torch.testing.assert_close(predictions.sum(dim=1), torch.ones(1, 4, dtype=torch.float64))


def test_many_classes() -> None:
    head = Head(task="multiclass", n_predictions=5)
    assert (head.n_outputs, head.default_loss) == (5, "cross_entropy")
    outputs = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head_predictions(head, outputs), torch.softmax(outputs, dim=1))


def test_a_regression_is_scaled_back_and_clipped_output_by_output() -> None:
    head = Head(
        task="regression",
        n_predictions=2,
        location=(10.0, -1.0),
        scale=(2.0, 0.5),
        lower=(9.0, -2.0),
        upper=(11.0, 2.0),
    )
    assert (head.n_outputs, head.default_loss) == (2, "squared_error")
    outputs = torch.tensor([[[0.0, 0.25, 5.0, -5.0], [0.0, 2.0, 10.0, -10.0]]])
    expected = torch.tensor([[[10.0, 10.5, 11.0, 9.0], [-1.0, 0.0, 2.0, -2.0]]])
    torch.testing.assert_close(head_predictions(head, outputs), expected)


def test_a_log_link_multiplies_and_never_overflows() -> None:
    head = Head("regression", 2, (0.0, 0.0), (2.0, 0.5), (0.0, 0.0), (1e6, 0.6), link="log")
    outputs = torch.tensor([[[0.0, 1.0, 1e4, -1e4], [0.0, 1.0, 1e4, -1e4]]])
    found = head_predictions(head, outputs)
    expected = [[2.0, 2.0 * math.e, 1e6, 2.0 * math.exp(-20)], [0.5, 0.6, 0.6, 0.5 * math.exp(-20)]]
    torch.testing.assert_close(found, torch.tensor([expected]))
    plain = mean_predictions([head], outputs.permute(0, 2, 1)[None].numpy())
    torch.testing.assert_close(torch.from_numpy(plain.T).float(), found[0])
    assert Head(**head.to_dict()) == head
    assert "link" not in Head("binary", 2).to_dict()


def test_every_default_loss_exists() -> None:
    for task in ("binary", "multiclass", "regression"):
        assert get_loss(Head(task=task, n_predictions=2).default_loss)  # type: ignore[arg-type]


def test_equal_rows_tie_at_any_place() -> None:
    outputs = torch.randn(40, 1, 1, generator=torch.Generator().manual_seed(0)).expand(40, 1, 51).contiguous()
    head = Head("binary", 2)
    stable = stable_head_predictions(head, outputs)
    assert stable.dtype == torch.float32
    assert bool((stable == stable[:, :, :1]).all())
    torch.testing.assert_close(stable, head_predictions(head, outputs))

"""Devices by name, and settings that a device does not have."""

from __future__ import annotations

import warnings

import pytest

from parallelmlp_search.exceptions import DeviceWarning, InvalidParameterError
from parallelmlp_search.search.problem.devices import resolve_device, warn_of_precision


def test_a_device_is_known_by_name() -> None:
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(InvalidParameterError, match="auto, cpu, cuda or cuda:N, but got 'tpu'"):
        resolve_device("tpu")


def test_only_the_cpu_warns_of_a_precision() -> None:
    with pytest.warns(DeviceWarning, match="precision 'tf32' has no effect on the CPU"):
        warn_of_precision("tf32", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_precision("ieee", "cpu")
        warn_of_precision("tf32", "cuda:1")

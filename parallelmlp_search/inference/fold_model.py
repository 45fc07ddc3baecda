"""Packed networks of one fold, and the preprocessing that was fitted on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.data.target_curve import TargetCurve
from parallelmlp_search.inference.ensemble import EnsembleFold
from parallelmlp_search.inference.networks import member_blocks
from parallelmlp_search.packing import Architecture, Head, Layout
from parallelmlp_search.space import MLPConfig


@dataclass(frozen=True, eq=False)
class FoldModel:
    """Packed networks of one fold, and the preprocessing that was fitted on it.

    Attributes
    ----------
    encoder, head
        Preprocessing of the inputs, and outputs.
    layout, parameters
        Layout of the networks and the flat buffer of their parameters.
    curves
        For each network, the map from its outputs to a target that was transformed, or None; empty for none.
    """

    encoder: TableEncoder
    head: Head
    layout: Layout
    parameters: NDArray[Any]
    curves: tuple[TargetCurve | None, ...] = ()

    def architecture(self, config: MLPConfig) -> Architecture:
        """Architecture of a configuration on rows of this fold."""
        return architecture_of(config, self.encoder, self.head)

    def networks(self) -> EnsembleFold:
        """Architecture and parameters of each network."""
        layout = self.layout
        members = range(layout.n_members)
        found = [(layout.architecture(n), member_blocks(self.parameters, layout, n)) for n in members]
        return EnsembleFold(self.encoder, self.head, found, self.curves)


def architecture_of(config: MLPConfig, encoder: TableEncoder, head: Head) -> Architecture:
    """Return the architecture of a configuration on encoded rows.

    Parameters
    ----------
    config, encoder, head
        Configuration, and the encoder and head of a fold.

    Returns
    -------
    Architecture
    """
    return Architecture.of(config, head.data_shape(encoder.n_outputs, encoder.groups))

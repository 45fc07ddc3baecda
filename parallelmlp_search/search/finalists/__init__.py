"""Finalists: cross-fitting, snapshot selection, evaluation, postprocessing, refit, resulting model."""

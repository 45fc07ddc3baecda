"""Explanation of a trained model: what it learned, whether it holds on new rows, and where it is wrong.

``tables`` and ``scoring`` prepare the rows, ``importance``, ``dependence``, ``attributions``, ``worst`` and
``slices`` each make a table, and ``explainer`` calls them. ``explanation`` holds the tables and their files.
"""

from parallelmlp_search.explain.explainer import explain_model
from parallelmlp_search.explain.explanation import Explanation
from parallelmlp_search.explain.rows import ExplainedRows
from parallelmlp_search.explain.settings import ExplainSettings

__all__ = ["ExplainSettings", "ExplainedRows", "Explanation", "explain_model"]

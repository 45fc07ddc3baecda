"""HTML for notebooks: summaries of searches, and live progress."""

from parallelmlp_search.report.notebook.progress import NotebookReport, in_notebook
from parallelmlp_search.report.notebook.summary import search_card

__all__ = ["NotebookReport", "in_notebook", "search_card"]

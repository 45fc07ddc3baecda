"""Reports for users: live progress, summaries, tables.

``wording`` holds the texts that all reports share, ``terminal`` the output in a terminal.
"""

from parallelmlp_search.report.terminal.columns import profile_lines, profile_page
from parallelmlp_search.report.terminal.console import ConsoleReport
from parallelmlp_search.report.terminal.promotion import forecast_page, promotion_page
from parallelmlp_search.report.terminal.summary import (
    environment_page,
    evaluation_table,
    leaderboard_table,
    search_summary,
    trial_page,
)

__all__ = [
    "ConsoleReport",
    "environment_page",
    "evaluation_table",
    "forecast_page",
    "leaderboard_table",
    "profile_lines",
    "profile_page",
    "promotion_page",
    "search_summary",
    "trial_page",
]

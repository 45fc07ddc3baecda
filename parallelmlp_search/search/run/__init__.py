"""Run state: trials, time budget, journal, run directory, progress reports, workers."""

"""Terminal output: live progress, run summaries, promotion pages."""

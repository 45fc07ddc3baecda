"""Figures of a finished search, of the errors of its model, and of an explanation, drawn with plotly."""

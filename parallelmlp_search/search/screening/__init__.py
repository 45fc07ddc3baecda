"""Screening: rungs of successive halving, and the rounds that train trials on them."""

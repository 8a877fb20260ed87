"""Experiments: many learners on the same streams, orders and budget, and what came out."""

"""Experiments: many learners compared on the same streams, orders and budget."""

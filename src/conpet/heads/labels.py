"""Labels: a linear map from representations to one output per label."""

from __future__ import annotations


class LabelHead:
    """Classifies into the task's labels."""

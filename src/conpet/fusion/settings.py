"""Settings of the fusions; imports no torch, so that wrong settings are reported at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from conpet.config import FusionConfig


class CalibratedFusionConfig(FusionConfig):
    """Settings of the calibrated fusion.

    Attributes:
        skip_above: Modules are not run on inputs whose likeliest label has at least this probability without them. None
            means that they always are.
    """

    skip_above: Annotated[float, Field(gt=0, le=1)] | None = 0.9

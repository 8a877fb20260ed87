"""The folder shared by all workspaces: embedded models and the state cache."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def conpet_home() -> Path:
    """Return the folder named by `CONPET_HOME`, else the platform's cache folder for conpet (not created here)."""
    named = os.environ.get("CONPET_HOME")
    return Path(named).expanduser() if named else user_cache_path("conpet", appauthor=False)

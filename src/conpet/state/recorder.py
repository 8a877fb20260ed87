"""Records the predictions of a process, if the workspace's settings say so."""

from __future__ import annotations

import secrets
import sqlite3
import warnings
from collections.abc import Sequence
from dataclasses import replace

from conpet.config import LogConfig
from conpet.data import Example
from conpet.errors import ConfigError, reason_of
from conpet.review.queue import ReviewQueue
from conpet.store.prediction_log import PredictionLog
from conpet.types import Prediction


class Recorder:
    """Appends predictions to the log. An answer is never lost: what cannot be written is counted, with a warning.

    What is too old is deleted, also from the review.

    Args:
        log: The log.
    """

    def __init__(self, log: PredictionLog) -> None:
        self._log = log
        self._review = ReviewQueue(log)
        self._failing = False

    def begin(self, config: LogConfig) -> bool:
        """Return whether the next predictions are recorded.

        Raises:
            ReadOnlyError: They are to be recorded, but nothing can be written.
            ConfigError: The file records the predictions of another workspace.
        """
        if config.predictions == "off":
            return False
        self._log.require_writable()
        return True

    def record(
        self, config: LogConfig, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> list[Prediction]:
        """Append predictions; return them with the id under which they are found."""
        request = secrets.token_hex(8)
        try:
            self._log.append(self._log.rows(request, examples, predictions, with_text=config.predictions == "text"))
            self._failing = False
        except (OSError, sqlite3.Error) as error:
            self._log.lost(len(predictions))
            if not self._failing:
                self._failing = True
                warnings.warn(
                    f"predictions are not recorded until this is mended: {reason_of(error)}. They are answered all the "
                    "same, and the record will say how many are missing",
                    stacklevel=2,
                )
            return list(predictions)
        try:
            self._log.keep_for(config.keep_days)
            self._review.keep_for(config.keep_days)
        except (OSError, ConfigError, sqlite3.Error) as error:
            warnings.warn(
                f"recorded predictions that are too old cannot be deleted yet: {reason_of(error)}", stacklevel=2
            )
        return [replace(one, request_id=request) for one in predictions]

"""Benchmark data sets, read from their own files."""

from __future__ import annotations

from conpet.data.formats.catalog import DATA_SETS, DataSet, read_data

__all__ = ["DATA_SETS", "DataSet", "read_data"]

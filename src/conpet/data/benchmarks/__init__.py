"""Benchmark data sets, read from their own files."""

from __future__ import annotations

from conpet.data.benchmarks.catalog import DATA_SETS, DataSet, data_folders, find_data, how_to_get, read_data

__all__ = ["DATA_SETS", "DataSet", "data_folders", "find_data", "how_to_get", "read_data"]

"""Proofs about the server: swaps under load, faults, hostile input. Results: `benchmarks/results/serving-*.json`."""

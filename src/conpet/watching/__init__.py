"""Watching: have the inputs, or what the workspace makes of them, changed? Without labels, with stated false alarms."""

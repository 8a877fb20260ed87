"""The decision to answer, to ask or to decline, and what it is calibrated on."""

"""Tests of conpet; they mirror `src/conpet`."""

"""Imported by the fork server alone, once: the processes it forks find everything loaded and used before."""

from tests.crash.crash_child import warm_up

warm_up()

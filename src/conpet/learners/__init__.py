"""Learners: methods that learn one task after another over a frozen backbone."""

from conpet.registry import Registry

METHODS = Registry("method", {"dynamic": "conpet.learners.dynamic:DynamicLearner"})

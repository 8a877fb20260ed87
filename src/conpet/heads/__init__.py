"""Heads: what a task ends in."""

from conpet.registry import Registry

HEADS = Registry("head", "conpet.heads", {"labels": "conpet.heads.labels:LabelHead"})

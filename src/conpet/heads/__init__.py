"""Heads: the output layer of a task."""

from conpet.registry import Registry

HEADS = Registry("head", "conpet.heads", {"labels": "conpet.heads.labels:LabelHead"}, base="conpet.heads.base:Head")

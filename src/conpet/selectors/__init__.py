"""Selectors: predict which tasks an input may belong to."""

from conpet.registry import Registry

SELECTORS = Registry(
    "selector",
    "conpet.selectors",
    {
        "learned": "conpet.selectors.learned:LearnedSelector",
        "linear": "conpet.selectors.linear:LinearSelector",
        "prototypes": "conpet.selectors.linear:PrototypeSelector",
    },
    base="conpet.selectors.base:Selector",
    configs={"learned": "conpet.selectors.settings:LearnedSelectorConfig"},
)

"""Selectors: predict which tasks an input may belong to."""

from conpet.registry import Registry

SELECTORS = Registry(
    "selector",
    "conpet.selectors",
    {
        "learned": "conpet.selectors.learned:LearnedSelector",
        "closed-form": "conpet.selectors.closed_form:ClosedFormSelector",
        "prototypes": "conpet.selectors.closed_form:PrototypeSelector",
    },
    base="conpet.selectors.base:Selector",
    configs={"learned": "conpet.selectors.settings:LearnedSelectorConfig"},
)

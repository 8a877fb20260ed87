"""The commands that change a workspace: one function each, run in a transaction that ends in a commit."""

from conpet.commands.extend import extend, owners_of
from conpet.commands.learn import learn, learn_batch
from conpet.commands.merge import merge
from conpet.commands.remove import remove
from conpet.commands.rename import rename
from conpet.commands.retire import retire
from conpet.commands.rollback import rollback
from conpet.commands.split_label import split_label
from conpet.commands.tune import tune
from conpet.commands.upgrade import upgrade

__all__ = [
    "extend",
    "learn",
    "learn_batch",
    "merge",
    "owners_of",
    "remove",
    "rename",
    "retire",
    "rollback",
    "split_label",
    "tune",
    "upgrade",
]

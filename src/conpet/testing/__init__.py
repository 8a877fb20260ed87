"""For whoever adds a method: a stream that is learned in a second, and the contracts everything registered keeps.

from conpet.testing import check_learner_contract

def test_my_method():
check_learner_contract("my-method")
"""

from conpet.testing.combining import check_rule_contract, random_evidence
from conpet.testing.learning import LEARNER_CHECKS, check_learner_contract
from conpet.testing.selecting import check_selector_contract, check_selector_scores
from conpet.testing.toy import tiny_settings, toy_stream
from conpet.testing.trial import ContractError, Trial, ask, learner_of

__all__ = [
    "LEARNER_CHECKS",
    "ContractError",
    "Trial",
    "ask",
    "check_learner_contract",
    "check_rule_contract",
    "check_selector_contract",
    "check_selector_scores",
    "learner_of",
    "random_evidence",
    "tiny_settings",
    "toy_stream",
]

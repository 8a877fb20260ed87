"""Contract tests for components, and a small stream that is learned in a second.

    from conpet.testing import check_method_contract

    def test_my_method():
        check_method_contract(MyMethod)

Each check takes a registered name, a class, or an instance.
"""

from conpet.testing.checks import ContractError, Trial, ask, live_of
from conpet.testing.components import check_head_contract, check_module_contract, check_schedule_contract
from conpet.testing.fusion import check_fusion_contract, random_evidence
from conpet.testing.methods import METHOD_CHECKS, check_method_contract
from conpet.testing.readers import check_reader_contract
from conpet.testing.selectors import check_selector_contract, check_selector_scores
from conpet.testing.toy import tiny_settings, toy_stream

__all__ = [
    "METHOD_CHECKS",
    "ContractError",
    "Trial",
    "ask",
    "check_fusion_contract",
    "check_head_contract",
    "check_method_contract",
    "check_module_contract",
    "check_reader_contract",
    "check_schedule_contract",
    "check_selector_contract",
    "check_selector_scores",
    "live_of",
    "random_evidence",
    "tiny_settings",
    "toy_stream",
]

"""Learners: methods that learn one task after another over a frozen backbone."""

from conpet.registry import Registry

METHODS = Registry(
    "method",
    {
        "crl": "conpet.learners.crl:CrlLearner",
        "dynamic": "conpet.learners.dynamic:DynamicLearner",
        "ea-emr": "conpet.learners.ea_emr:EaEmrLearner",
        "emr": "conpet.learners.emr:EmrLearner",
        "ewc": "conpet.learners.ewc:EwcLearner",
        "der++": "conpet.learners.derpp:DerppLearner",
        "lwf": "conpet.learners.lwf:LwfLearner",
        "a-gem": "conpet.learners.agem:AGemLearner",
        "o-lora": "conpet.learners.o_lora:OLoraLearner",
        "sequential": "conpet.learners.sequential:SequentialLearner",
        "joint": "conpet.learners.joint:JointLearner",
        "ncm": "conpet.learners.closed:NcmLearner",
        "lda": "conpet.learners.closed:LdaLearner",
        "ridge": "conpet.learners.closed:RidgeLearner",
        "ranpac": "conpet.learners.closed:RanpacLearner",
        "klda": "conpet.learners.closed:KldaLearner",
    },
)

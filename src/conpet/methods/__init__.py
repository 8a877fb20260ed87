"""Continual-learning methods over a frozen backbone, by name."""

from conpet.registry import Registry

METHODS = Registry(
    "method",
    "conpet.methods",
    {
        "crl": "conpet.methods.crl:CrlMethod",
        "dynamic": "conpet.methods.dynamic:DynamicMethod",
        "ea-emr": "conpet.methods.ea_emr:EaEmrMethod",
        "emr": "conpet.methods.emr:EmrMethod",
        "ewc": "conpet.methods.ewc:EwcMethod",
        "der++": "conpet.methods.derpp:DerppMethod",
        "lwf": "conpet.methods.lwf:LwfMethod",
        "a-gem": "conpet.methods.agem:AGemMethod",
        "o-lora": "conpet.methods.o_lora:OLoraMethod",
        "sequential": "conpet.methods.sequential:SequentialMethod",
        "joint": "conpet.methods.joint:JointMethod",
        "ncm": "conpet.methods.closed_form:NcmMethod",
        "lda": "conpet.methods.closed_form:LdaMethod",
        "ridge": "conpet.methods.closed_form:RidgeMethod",
        "ranpac": "conpet.methods.closed_form:RanpacMethod",
        "klda": "conpet.methods.closed_form:KldaMethod",
        "logistic": "conpet.methods.closed_form:LogisticMethod",
    },
    base="conpet.methods.base:Method",
    configs={
        "crl": "conpet.methods.settings:CrlConfig",
        "ea-emr": "conpet.methods.settings:EaEmrConfig",
        "ewc": "conpet.methods.settings:EwcConfig",
        "der++": "conpet.methods.settings:DerppConfig",
        "lwf": "conpet.methods.settings:LwfConfig",
        "o-lora": "conpet.methods.settings:OLoraConfig",
    },
)

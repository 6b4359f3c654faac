"""All policies by name: the ``"module:Class"`` of the config dataclass whose ``build(spec)`` makes the policy."""

POLICIES: dict[str, str] = {
    "compass_base": "omnibody.policies.compass.base:CompassBaseCfg",
    "compass_residual": "omnibody.policies.compass.residual:CompassResidualCfg",
    "compass_generalist": "omnibody.policies.compass.generalist:CompassGeneralistCfg",
    "diffusion": "omnibody.policies.diffusion.config:DiffusionCfg",
    "diffusion_l": "omnibody.policies.diffusion.config:LargeDiffusionCfg",
}

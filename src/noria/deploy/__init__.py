"""Into production and back: gates, releases, routes, canaries, rollbacks.

Declarations are here; the verbs are in `noria.deploy.gates`, `noria.deploy.canary`,
`noria.deploy.releases`, `noria.deploy.environments`, `noria.deploy.guarding` and `noria.deploy.experiments`.
"""

from noria.deploy.bandit_declarations import Bandit
from noria.deploy.declarations import (
    ABTest,
    Canary,
    Gate,
    at_least,
    at_most,
    beats_production,
    latency,
    no_leakage,
    samples_reproduced,
)

__all__ = [
    "ABTest",
    "Bandit",
    "Canary",
    "Gate",
    "at_least",
    "at_most",
    "beats_production",
    "latency",
    "no_leakage",
    "samples_reproduced",
]

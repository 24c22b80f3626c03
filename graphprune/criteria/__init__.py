"""Criteria: how much a model would lose with a weight, or with a unit of many. See :mod:`graphprune.criteria.base`."""

from graphprune.criteria.base import Criterion, DataCriterion, LossCriterion
from graphprune.criteria.bn_scale import BNScale
from graphprune.criteria.even import Even
from graphprune.criteria.fisher import Fisher
from graphprune.criteria.gradient import Gradient
from graphprune.criteria.l1 import L1
from graphprune.criteria.l2 import L2
from graphprune.criteria.magnitude import Magnitude
from graphprune.criteria.random import Random
from graphprune.criteria.taylor import Taylor
from graphprune.criteria.wanda import Wanda

DATA_FREE: dict[str, type[Criterion]] = {
    "l1": L1,
    "l2": L2,
    "bn-scale": BNScale,
    "random": Random,
    "even": Even,
}
"""Criteria that need no data, by their command-line names."""

__all__ = [
    "DATA_FREE",
    "L1",
    "L2",
    "BNScale",
    "Criterion",
    "DataCriterion",
    "Even",
    "Fisher",
    "Gradient",
    "LossCriterion",
    "Magnitude",
    "Random",
    "Taylor",
    "Wanda",
]

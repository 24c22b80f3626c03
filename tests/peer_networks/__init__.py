"""Small networks with the topologies on which pruning libraries test themselves, and on which their users got stuck.

Written anew from what the tests and issue lists of such libraries are *about*: concatenation and splits, reused
modules, parameters outside modules, views, groups, several inputs and outputs. Each takes milliseconds.
"""

from tests.peer_networks import graphs, groups, joins, kinds, parameters, sequences, sharing, views
from tests.peer_networks.base import NETWORKS

__all__ = ["NETWORKS", "graphs", "groups", "joins", "kinds", "parameters", "sequences", "sharing", "views"]

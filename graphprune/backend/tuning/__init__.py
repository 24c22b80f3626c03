"""Choice by measurement: which format and tile computes each layer fastest on this machine, remembered on disk."""

from graphprune.backend.tuning.cache import Decision, TuningCache, default_folder
from graphprune.backend.tuning.candidates import Candidate, candidates
from graphprune.backend.tuning.tuner import Tuner

__all__ = ["Candidate", "Decision", "Tuner", "TuningCache", "candidates", "default_folder"]

"""Small models as people write them, for the whole way from trace to re-export; one file for each kind of data."""

from tests.user_models.images import IMAGE_MODELS
from tests.user_models.sequences import SEQUENCE_MODELS
from tests.user_models.signals import SIGNAL_MODELS

USER_MODELS = {**SEQUENCE_MODELS, **IMAGE_MODELS, **SIGNAL_MODELS}
"""Name -> function that returns a model and its example inputs."""

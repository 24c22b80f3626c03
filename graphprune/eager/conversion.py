"""Loads state dicts that the transformers library wrote under other names than the model's own.

``save_pretrained`` writes some models in the format of their first release (other names, experts apart); the library
converts them back when it loads. This module asks it to.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def load_converted(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Load ``tensors`` into ``model`` by the library's own conversion; say whether that gave every tensor a value.

    Returns False, with the model untouched, if ``model`` is none of that library or its version has no conversion.
    """
    if "transformers" not in sys.modules or not callable(getattr(model, "save_pretrained", None)):
        return False
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig
    except ImportError:
        return False
    library_model: Any = model
    mapping: Any = get_model_conversion_mapping(library_model)
    settings = LoadStateDictConfig(weight_mapping=mapping)
    information = convert_and_load_state_dict_in_model(library_model, dict(tensors), settings)[0]
    library_model.tie_weights()
    given = set(model.state_dict()) - set(information.missing_keys)
    own = model.state_dict(keep_vars=True)
    loaded = {id(own[name]) for name in given}
    problems = [*information.mismatched_keys, *information.unexpected_keys, *information.conversion_errors]
    return not problems and all(id(value) in loaded for value in own.values())

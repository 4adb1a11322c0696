"""From RLlib's `model={...}` settings to a network."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from athlete.core import Model
from athlete.models.cnn import ConvNet, Filters, conv_shapes
from athlete.models.dense import ACTIVATIONS
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU
from athlete.models.separate import Separate
from athlete.ops.masks import observed_space
from athlete.spaces import Box, Space

MODEL_DEFAULTS: dict[str, Any] = {
    "fcnet_hiddens": [64, 64],  # units of each layer
    "fcnet_activation": "tanh",
    "conv_filters": None,  # [filters, kernel, stride] of each convolution; None: by the image's size; []: none
    "conv_activation": "relu",
    "use_layer_norm": False,  # layer normalisation before each activation
    "vf_share_layers": False,  # one torso for policy and value
    "free_log_std": True,  # Box actions: one log standard deviation an action, independent of the observation
    "use_gru": False,  # a gated recurrent unit behind the layers
    "gru_cell_size": 64,
    "max_seq_len": 16,  # timesteps that gradients flow back through
    "custom_model": None,  # an athlete.core.Model of your own: takes the place of the layers above
}

# What RLlib's users may set and what Athlete says to it.
_NOT_YET = {
    "use_lstm": "there is no LSTM yet; use_gru=True gives a recurrent network of the same kind",
    "use_attention": "there is no attention network yet; use_gru=True gives a network with memory",
    "custom_model_config": "give custom_model an instance with its settings, such as MyModel(width=32)",
}


def check_model(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a name that is not in MODEL_DEFAULTS or a value that cannot be."""
    for name, value in settings.items():
        if name in _NOT_YET:
            if value in (False, None, [], {}):
                continue
            raise ValueError(f"model={{{name!r}: {value!r}}}: {_NOT_YET[name]}")
        if name not in MODEL_DEFAULTS:
            near = difflib.get_close_matches(name, MODEL_DEFAULTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(MODEL_DEFAULTS)}"
            raise ValueError(f"model={{{name!r}: {value!r}}}: a model has no {name!r}; {hint}")
        _check_value(name, value)


def _check_value(name: str, value: Any) -> None:
    if name == "fcnet_hiddens" and not (
        isinstance(value, list | tuple) and all(isinstance(size, int) and size > 0 for size in value)
    ):
        raise ValueError(f"model={{'fcnet_hiddens': {value!r}}}: expected a list of layer sizes such as [64, 64]")
    if name in ("use_layer_norm", "vf_share_layers", "free_log_std", "use_gru") and not isinstance(value, bool):
        raise ValueError(f"model={{{name!r}: {value!r}}}: expected True or False")
    if name == "conv_filters" and value is not None and not _are_filters(value):
        raise ValueError(
            f"model={{'conv_filters': {value!r}}}: expected [filters, kernel size, stride] for each convolution, "
            "such as [[16, 3, 1]]"
        )
    if name in ("fcnet_activation", "conv_activation") and not (isinstance(value, str) and value in ACTIVATIONS):
        raise ValueError(f"model={{{name!r}: {value!r}}}: there are {', '.join(ACTIVATIONS)}")
    if name in ("gru_cell_size", "max_seq_len") and (not isinstance(value, int) or value is True or value < 1):
        raise ValueError(f"model={{{name!r}: {value!r}}}: expected a whole number of at least 1")
    if name == "custom_model" and value is not None and not isinstance(value, Model):
        raise ValueError(
            f"model={{'custom_model': {value!r}}}: expected an instance of athlete.core.Model, "
            f"got {type(value).__name__}"
        )


def make_model(settings: Mapping[str, Any]) -> Model:
    """The network that `settings` (over MODEL_DEFAULTS) describe."""
    check_model(settings)
    chosen = {**MODEL_DEFAULTS, **settings}
    layers = (tuple(chosen["fcnet_hiddens"]), chosen["fcnet_activation"], chosen["use_layer_norm"])
    if chosen["custom_model"] is not None:
        model = chosen["custom_model"]
    elif chosen["use_gru"]:
        model = GRU(chosen["gru_cell_size"], *layers)
    else:
        model = MLP(*layers)
    return model if chosen["vf_share_layers"] else Separate(model)


def _are_filters(value: Any) -> bool:
    """Whether `value` is `[[filters, kernel size, stride], ...]`."""
    layers = value if isinstance(value, list | tuple) else [None]
    return all(
        isinstance(layer, list | tuple)
        and len(layer) == 3
        and all(isinstance(number, int) and number is not True and number > 0 for number in layer)
        for layer in layers
    )


def with_convolutions(model: Model, settings: Mapping[str, Any], obs_space: Space) -> Model:
    """`model` behind the convolutions of `settings`, where observations are images: a Box of height, width, channels.

    A mask of actions beside the image does not count.

    Raises ValueError for `conv_filters` that do not fit the observations.
    """
    chosen = {**MODEL_DEFAULTS, **settings}
    obs_space = observed_space(obs_space)
    image = isinstance(obs_space, Box) and len(obs_space.shape) == 3
    filters = chosen["conv_filters"]
    if filters is None:
        filters = _default_filters(obs_space.shape) if image and chosen["custom_model"] is None else []
    if not filters:
        return model
    if not image:
        raise ValueError(
            f"model={{'conv_filters': {filters!r}}}: convolutions need observations that are a Box of [height, width, "
            f"channels], and these are {obs_space}; leave conv_filters out"
        )
    height, width, channels = obs_space.shape
    layers = tuple(tuple(layer) for layer in filters)
    conv_shapes((height, width, channels), layers)
    return ConvNet((height, width, channels), layers, model, chosen["conv_activation"], chosen["use_layer_norm"])


def _default_filters(shape: tuple[int, ...]) -> Filters:
    """MinAtar's layer (Young & Tian 2019, arXiv:1903.03176) for grids, Atari's of Mnih et al. 2015 for pictures."""
    side = min(shape[:2])
    if side >= 36:
        return (32, 8, 4), (64, 4, 2), (64, 3, 1)
    return ((16, 3, 1),) if side >= 3 else ()


def is_recurrent(model: Model) -> bool:
    """Whether the model has a carry."""
    import jax

    return bool(jax.tree.leaves(jax.eval_shape(lambda: model.start(1))))

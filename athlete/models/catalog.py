"""From RLlib's `model={...}` settings to a network."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from athlete.core import Array, Key, Model, Spec
from athlete.distributions import LOG_STD_RANGE, output_size
from athlete.models.attention import GTrXL
from athlete.models.cnn import ConvNet, Filters, Shape, conv_shapes
from athlete.models.dense import ACTIVATIONS
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU, LSTM
from athlete.models.resnet import ResNet
from athlete.models.separate import Separate
from athlete.models.streams import Streams, without_streams
from athlete.ops.features import are_channels_first, feature_size, images_in
from athlete.ops.random import wrap
from athlete.spaces import Space

NATURE: Filters = ((32, 8, 4), (64, 4, 2), (64, 3, 1))

MODEL_DEFAULTS: dict[str, Any] = {
    "fcnet_hiddens": [64, 64],  # units of each layer
    "fcnet_activation": "tanh",
    "post_fcnet_hiddens": [],  # units of more layers behind these
    "post_fcnet_activation": "relu",  # of those, where fcnet_hiddens is empty; else all have fcnet_activation
    # [filters, kernel, stride] of each convolution, or "impala"; None: by the image's size; []: none
    "conv_filters": None,
    "conv_activation": "relu",
    "use_layer_norm": False,  # layer normalisation before each activation
    "vf_share_layers": False,  # one torso for policy and value
    "free_log_std": True,  # Box actions: one log standard deviation an action, independent of the observation
    "log_std_init": 0.0,  # where that starts, on the scale on which the bounds of actions are -1 and 1
    "use_gru": False,  # a gated recurrent unit behind the layers
    "gru_cell_size": 64,
    "use_lstm": False,  # a long short-term memory behind the layers
    "lstm_cell_size": 256,
    "lstm_use_prev_action": False,  # any network: see the last action, one-hot or in [-1, 1], after the observation
    "lstm_use_prev_reward": False,  # any network: see the last reward
    "use_attention": False,  # GTrXL, a gated transformer, behind the layers
    "attention_num_transformer_units": 1,
    "attention_dim": 64,  # of what passes from unit to unit
    "attention_num_heads": 1,
    "attention_head_dim": 32,
    "attention_memory_inference": 50,  # timesteps before its own that a step attends to, in acting
    "attention_memory_training": None,  # the same in learning; None: as in acting, which it has to be
    "attention_position_wise_mlp_dim": 32,
    "attention_init_gru_gate_bias": 2.0,  # the larger, the more passes a unit unchanged at the start
    "max_seq_len": 16,  # timesteps that gradients flow back through
    "custom_model": None,  # an athlete.core.Model of your own: takes the place of the layers above
}

# What RLlib's users may set and what Athlete says to it.
_NOT_YET = {
    "custom_model_config": "give custom_model an instance with its settings, such as MyModel(width=32)",
}


# What Stable-Baselines3 calls it -> ours.
_ELSEWHERE = {"net_arch": "fcnet_hiddens", "activation_fn": "fcnet_activation"}

_registered: dict[str, Any] = {}  # networks of the user's own by name

LEAST_PICTURE = 36  # pixels on both sides: what the strides of Mnih et al. 2015 leave something of


def register_custom_model(name: str, model: Any) -> None:
    """Let `model={"custom_model": name}` mean a network, or a class of networks with `custom_model_config` as fields.

    Raises ValueError for what is no `athlete.core.Model`.
    """
    if not isinstance(model, Model) and not (isinstance(model, type) and issubclass(model, Model)):
        raise ValueError(
            f"register_custom_model({name!r}, {getattr(model, '__name__', model)!r}): networks are JAX's here; write "
            "it as an athlete.core.Model, or in Flax (FlaxModel) or Equinox (EquinoxModel)"
        )
    _registered[name] = model


def registered_model(name: str, settings: Mapping[str, Any]) -> Model:
    """The network that was given to `register_custom_model`. Raises ValueError where there is none of this name."""
    where = f"model={{'custom_model': {name!r}}}"
    if name not in _registered:
        known = ", ".join(_registered) or "none yet"
        raise ValueError(f"{where}: give an instance, or a name that register_custom_model was given: {known}")
    model = _registered[name]
    if isinstance(model, type):
        return model(**settings)
    if settings:
        raise ValueError(f"{where}: it was registered as an instance, and custom_model_config is for a class")
    return model


def check_model(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a name that is not in MODEL_DEFAULTS or a value that cannot be."""
    for name, value in settings.items():
        if name in _NOT_YET:
            if value in (False, None, [], {}):
                continue
            raise ValueError(f"model={{{name!r}: {value!r}}}: {_NOT_YET[name]}")
        if name not in MODEL_DEFAULTS:
            near = [_ELSEWHERE[name]] if name in _ELSEWHERE else difflib.get_close_matches(name, MODEL_DEFAULTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(MODEL_DEFAULTS)}"
            raise ValueError(f"model={{{name!r}: {value!r}}}: a model has no {name!r}; {hint}")
        _check_value(name, value)
    if settings.get("log_std_init") and not settings.get("free_log_std", True):
        raise ValueError(
            f"model={{'log_std_init': {settings['log_std_init']!r}}}: with free_log_std=False the network gives the "
            "log standard deviation, and nothing starts there; leave one of them out"
        )
    _check_memory(settings)


# Switches of networks with memory, of which one at most is on.
MEMORIES = ("use_gru", "use_lstm", "use_attention")


def merged_models(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with `changes`; another kind of memory, or a network of the user's own, takes the place of theirs."""
    chosen = [kind for kind in (*MEMORIES, "custom_model") if changes.get(kind)]
    off = {kind: False for kind in MEMORIES if chosen and kind not in chosen}
    return {**settings, **changes, **off}


def _check_memory(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings of memory that do not go together."""
    chosen = {**MODEL_DEFAULTS, **settings}
    if len(on := [name for name in MEMORIES if chosen[name]]) > 1:
        raise ValueError(f"model: {' and '.join(on)} are both on; a network has one kind of memory")
    acting, learning = chosen["attention_memory_inference"], chosen["attention_memory_training"]
    if learning not in (None, acting):
        raise ValueError(
            f"model={{'attention_memory_training': {learning!r}}}: attention_memory_inference is {acting!r}, and the "
            "network that learns must remember as far as the one that acted; leave attention_memory_training out"
        )


def _check_value(name: str, value: Any) -> None:
    if name in ("fcnet_hiddens", "post_fcnet_hiddens") and not (
        isinstance(value, list | tuple) and all(isinstance(size, int) and size > 0 for size in value)
    ):
        raise ValueError(f"model={{{name!r}: {value!r}}}: expected a list of layer sizes such as [64, 64]")
    if isinstance(MODEL_DEFAULTS[name], bool) and not isinstance(value, bool):
        raise ValueError(f"model={{{name!r}: {value!r}}}: expected True or False")
    if name == "conv_filters" and value is not None and not _are_filters(value):
        raise ValueError(
            f"model={{'conv_filters': {value!r}}}: expected [filters, kernel size, stride] for each convolution, "
            "such as [[16, 3, 1]], or 'impala' for its residual network"
        )
    if name.endswith("_activation") and not (isinstance(value, str) and value in ACTIVATIONS):
        raise ValueError(f"model={{{name!r}: {value!r}}}: there are {', '.join(ACTIVATIONS)}")
    if _is_size(name) and (not isinstance(value, int) or value is True or value < 1):
        raise ValueError(f"model={{{name!r}: {value!r}}}: expected a whole number of at least 1")
    if type(MODEL_DEFAULTS[name]) is float and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise ValueError(f"model={{{name!r}: {value!r}}}: expected a number")
    if name == "log_std_init" and not LOG_STD_RANGE[0] <= value <= LOG_STD_RANGE[1]:
        low, high = LOG_STD_RANGE
        raise ValueError(f"model={{{name!r}: {value!r}}}: expected a number between {low:g} and {high:g}")
    if name == "custom_model" and value is not None and not isinstance(value, Model):
        raise ValueError(
            f"model={{'custom_model': {value!r}}}: expected an instance of athlete.core.Model, "
            f"got {type(value).__name__}"
        )


def _is_size(name: str) -> bool:
    return type(MODEL_DEFAULTS[name]) is int


def make_model(settings: Mapping[str, Any]) -> Model:
    """The network that `settings` (over MODEL_DEFAULTS) describe."""
    check_model(settings)
    chosen = {**MODEL_DEFAULTS, **settings}
    first, more = chosen["fcnet_hiddens"], chosen["post_fcnet_hiddens"]
    activation = chosen["post_fcnet_activation" if more and not first else "fcnet_activation"]
    layers = ((*first, *more), activation, chosen["use_layer_norm"])
    if chosen["custom_model"] is not None:
        model = chosen["custom_model"]
    elif chosen["use_gru"]:
        model = GRU(chosen["gru_cell_size"], *layers)
    elif chosen["use_lstm"]:
        model = LSTM(chosen["lstm_cell_size"], *layers)
    elif chosen["use_attention"]:
        model = _attention(chosen, layers)
    else:
        model = MLP(*layers)
    return model if chosen["vf_share_layers"] else Separate(model)


def with_streams(model: Model, hiddens: Sequence[int]) -> Model:
    """`model` with layers of `hiddens` rectified units of its own for each head, where there are any."""
    return Streams(model, tuple(hiddens)) if hiddens else model


def _attention(chosen: Mapping[str, Any], layers: tuple[tuple[int, ...], str, bool]) -> GTrXL:
    return GTrXL(
        num_transformer_units=chosen["attention_num_transformer_units"],
        dim=chosen["attention_dim"],
        num_heads=chosen["attention_num_heads"],
        head_dim=chosen["attention_head_dim"],
        memory=chosen["attention_memory_inference"],
        position_wise_mlp_dim=chosen["attention_position_wise_mlp_dim"],
        init_gru_gate_bias=float(chosen["attention_init_gru_gate_bias"]),
        hiddens=layers[0],
        activation=layers[1],
        layer_norm=layers[2],
    )


def _are_filters(value: Any) -> bool:
    """Whether `value` is `[[filters, kernel size, stride], ...]` or the name of a network."""
    if value == "impala":
        return True
    layers = value if isinstance(value, list | tuple) else [None]
    return all(
        isinstance(layer, list | tuple)
        and len(layer) == 3
        and all(isinstance(number, int) and number is not True and number > 0 for number in layer)
        for layer in layers
    )


def with_layer_of_pictures(settings: Mapping[str, Any], obs_space: Space) -> dict[str, Any]:
    """`settings` with the layer of 512 rectified units that Mnih et al. 2015 have behind their convolutions.

    Only where these are chosen for the observations, and neither layers nor an activation are given.
    """
    given = {"conv_filters", "custom_model", "fcnet_hiddens", "fcnet_activation"} & settings.keys()
    if given or not any(min(_channels_last(shape)[:2]) >= LEAST_PICTURE for _, shape in images_in(obs_space)):
        return dict(settings)
    return {**settings, "fcnet_hiddens": [512], "fcnet_activation": "relu"}


def with_space(settings: Mapping[str, Any], obs_space: Space) -> dict[str, Any]:
    """`settings` with a `custom_model` that asks for it, a `FlaxModel` or an `EquinoxModel`, told what it sees."""
    custom = settings.get("custom_model")
    if getattr(custom, "obs_space", obs_space) is not None:
        return dict(settings)
    return {**settings, "custom_model": dataclasses.replace(custom, obs_space=obs_space)}  # type: ignore[type-var]


def with_convolutions(model: Model, settings: Mapping[str, Any], obs_space: Space) -> Model:
    """`model` behind the convolutions of `settings`, where observations have images: Boxes of height, width, channels,
    or of channels, height, width where the first axis is much the shortest.

    Each image of a Dict or Tuple has convolutions of its own; all else, and what is shown of the previous step, passes
    them by. A mask of actions does not count.

    Raises ValueError for `conv_filters` that do not fit the observations.
    """
    chosen = {**MODEL_DEFAULTS, **settings}
    images, filters = images_in(obs_space), chosen["conv_filters"]
    if filters is None and chosen["custom_model"] is not None:
        return model
    if filters and not images:
        raise ValueError(
            f"model={{'conv_filters': {filters!r}}}: convolutions need observations that are a Box of [height, width, "
            f"channels] or contain one, and these are {obs_space}; leave conv_filters out"
        )
    for offset, shape in images:  # the last image's are applied first, so that the others stay where they are
        model = _behind_image(model, chosen, offset, shape)
    return model


def _behind_image(model: Model, chosen: Mapping[str, Any], offset: int, shape: Shape) -> Model:
    """`model` behind the convolutions of one image, or as it is where there are none for so small a one."""
    filters, channels_first = chosen["conv_filters"], are_channels_first(shape)
    shape = _channels_last(shape)
    if filters == "impala":
        return ResNet(shape, model=model, offset=offset, channels_first=channels_first)
    layers = _default_filters(shape) if filters is None else tuple(tuple(layer) for layer in filters)
    if not layers:
        return model
    conv_shapes(shape, layers)
    return ConvNet(shape, layers, model, chosen["conv_activation"], chosen["use_layer_norm"], offset, channels_first)


def _channels_last(shape: Shape) -> Shape:
    return (shape[1], shape[2], shape[0]) if are_channels_first(shape) else shape


def _default_filters(shape: Shape) -> Filters:
    """MinAtar's layer (Young & Tian 2019, arXiv:1903.03176) for grids, Atari's of Mnih et al. 2015 for pictures."""
    side = min(shape[:2])
    if side >= LEAST_PICTURE:
        return NATURE
    return ((16, 3, 1),) if side >= 3 else ()


def check_custom_model(model: Model, spec: Spec) -> None:
    """Raise ValueError where a network does not give each head that it is asked for with its number of outputs."""
    model = without_streams(model)
    heads = {"policy": (output_size(spec.action), 0.01), "value": (1, 1.0)}
    obs = jax.ShapeDtypeStruct((1, 2, feature_size(spec.obs)), np.float32)

    def outputs(key: Key, obs: Array, first: Array) -> dict[str, Array]:
        return model.apply(model.init(key, spec.obs, heads), model.start(2), obs, first)[1]

    first = jax.ShapeDtypeStruct((1, 2), bool)
    found = jax.eval_shape(outputs, jax.eval_shape(lambda: wrap(np.zeros(2, np.uint32))), obs, first)
    for name, (size, _) in heads.items():
        if name not in found or found[name].shape != (1, 2, size):
            there = f"the shape {found[name].shape}" if name in found else f"nothing; there is {list(found)}"
            raise ValueError(
                f"model={{'custom_model': ...}}: {model}: for observations [T=1, B=2, {obs.shape[-1]}] and "
                f"actions {spec.action} its head {name!r} must give the shape {(1, 2, size)}, and gave {there}. `init` "
                "is told how many outputs each head has: {name: (outputs, scale)}"
            )


def is_recurrent(model: Model) -> bool:
    """Whether the model has a carry."""
    return bool(jax.tree.leaves(jax.eval_shape(lambda: model.start(1))))

"""Models as JSON: every double comes back bit for bit, and nothing that is read can run."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from hllm.errors import InvalidInput
from hllm.hmm.autoregressive import AutoregressiveHMM
from hllm.hmm.base import BaseHMM
from hllm.hmm.categorical import CategoricalHMM
from hllm.hmm.gaussian import GaussianHMM

FORMAT = "hllm.hmm/1"
CLASSES: dict[str, type[BaseHMM]] = {cls.__name__: cls for cls in (GaussianHMM, CategoricalHMM, AutoregressiveHMM)}


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}  # JSON has no word for it
    return value


def _revived(value: Any) -> Any:
    if isinstance(value, list):
        return [_revived(each) for each in value]
    if isinstance(value, dict):
        return float(value["float"])
    return value


def to_dict(model: BaseHMM) -> dict[str, Any]:
    """A fitted model as what JSON can hold: class, settings, parameters. A generator as random_state becomes None.

    Raises NotFitted, or InvalidInput for parameters that are not usable.
    """
    model._check()
    settings = model.get_params()
    if not isinstance(settings["random_state"], (int, np.integer, type(None))):
        settings["random_state"] = None
    return {
        "format": FORMAT,
        "class": type(model).__name__,
        "settings": {name: _plain(value) for name, value in settings.items()},
        "parameters": {name: _plain(getattr(model, name)) for name in model.PARAMETERS.values()},
    }


def from_dict(stored: Any) -> BaseHMM:
    """The model that ``to_dict`` told of. Raises InvalidInput if it is not one, or its parameters are not usable."""
    if not isinstance(stored, dict) or stored.get("format") != FORMAT or str(stored.get("class")) not in CLASSES:
        raise InvalidInput(f"this is no stored model: expected format {FORMAT!r} and a class of {sorted(CLASSES)}")
    cls = CLASSES[stored["class"]]
    settings, parameters = stored.get("settings"), stored.get("parameters")
    if not isinstance(settings, dict) or not isinstance(parameters, dict):
        raise InvalidInput("a stored model has settings and parameters")
    strange = set(settings) - set(cls._settings())
    if strange or set(parameters) != set(cls.PARAMETERS.values()):
        raise InvalidInput(f"the stored {cls.__name__} has other names: {sorted(strange) or sorted(parameters)}")
    try:
        model = cls(**{name: _revived(value) for name, value in settings.items()})
        for name, value in parameters.items():
            setattr(model, name, np.array(_revived(value), dtype=np.float64))
        model._check_settings()
        model._check()
    except InvalidInput:
        raise
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise InvalidInput(f"the stored {cls.__name__} is damaged: {error}") from error
    return model


def save(model: BaseHMM, path: str | os.PathLike[str]) -> None:
    """Writes a fitted model as JSON; a file that is there is replaced whole or not at all."""
    text = json.dumps(to_dict(model), indent=1, allow_nan=False)
    target = Path(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(target)


def load(path: str | os.PathLike[str]) -> BaseHMM:
    """Reads what ``save`` wrote. Raises InvalidInput if it is not that, OSError if it cannot be read."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from error
    return from_dict(stored)

"""Constructors that several test modules use."""

from collections.abc import Sequence

from edgepose.build import build_model, build_smoother, build_tracker
from edgepose.config import load_config
from edgepose.inference.failover import SingleModel
from edgepose.pipeline import Pipeline
from edgepose.protocols import LoadedModel, Sink


def load_model(name: str) -> LoadedModel:
    """Load a model with the default configuration."""
    return build_model(load_config(None, {"model.name": name}))


def pipeline_of(model: LoadedModel, sinks: Sequence[Sink] = ()) -> Pipeline:
    """Return a pipeline of the default configuration around a model."""
    config = load_config(None)
    return Pipeline(
        SingleModel(model),
        build_tracker(config),
        build_smoother(config.smoothing),
        sinks,
        node="test",
        camera="main",
    )

"""Bodies of requests and answers of the Open Inference Protocol."""

from __future__ import annotations

from typing import Annotated
from typing import Any

import msgspec


class Tensor(msgspec.Struct, omit_defaults=True):
  """A tensor of the Open Inference Protocol; data in row-major order."""

  name: str
  shape: list[Annotated[int, msgspec.Meta(ge=0, le=2**31)]]
  datatype: str
  data: list[Any] | msgspec.UnsetType = msgspec.UNSET
  parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class WantedOutput(msgspec.Struct):
  name: str
  parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class InferRequest(msgspec.Struct):
  """A request of the Open Inference Protocol, version 2."""

  inputs: list[Tensor]
  id: str = ''
  outputs: list[WantedOutput] = []
  parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class InferAnswer(msgspec.Struct, omit_defaults=True):
  model_name: str
  model_version: str
  outputs: list[Tensor]
  id: str = ''
  parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class TensorDescription(msgspec.Struct):
  name: str
  datatype: str
  shape: list[int]


class ModelDescription(msgspec.Struct):
  """The model that answers now; `refused`: a newer bundle, and why not it.

  `time_unit`: what numbers count that are times; None where none are read.
  """

  name: str
  versions: list[str]
  platform: str
  inputs: list[TensorDescription]
  outputs: list[TensorDescription]
  fields: list[str]
  context_fields: list[str]
  history_length: int
  top_k: int
  real_time: list[str]
  time_unit: str | None
  refused: str | None


class Models(msgspec.Struct):
  models: list[ModelDescription]

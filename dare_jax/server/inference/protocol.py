"""The protocol's calls: descriptions of server and models, and inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from dare_jax.bundle import scoring
from dare_jax.server import messages
from dare_jax.server import problems
from dare_jax.server import scorer as scorer_lib
from dare_jax.server import served as served_lib
from dare_jax.server.inference import bodies
from dare_jax.server.inference import requests
from dare_jax.server.inference import tensors

HEADER = 'Inference-Header-Content-Length'
OUTPUTS = {
  'logit': 'FP32',
  'probability': 'FP32',
  'unknown': 'BOOL',
  'found_position': 'INT32',
  'found_weight': 'FP32',
}
_OUTPUT_DTYPES = {
  'FP32': np.dtype('<f4'),
  'BOOL': np.dtype(np.bool_),
  'INT32': np.dtype('<i4'),
}
_ALWAYS = ('logit', 'probability', 'unknown')
_DECODER = msgspec.json.Decoder(bodies.InferRequest)


def server_description() -> dict[str, Any]:
  """Returns the server's metadata, as `GET /v2` has it."""
  import dare_jax

  return {
    'name': 'dare_jax',
    'version': dare_jax.__version__,
    'extensions': ['binary_tensor_data'],
  }


def describe(slot: served_lib.Slot) -> bodies.ModelDescription:
  """Returns a model's metadata; -1 in a shape is any number."""
  bundle = slot.known.bundle
  fields, times = slot.known.messages.fields, slot.known.messages.times
  tensor = bodies.TensorDescription
  return bodies.ModelDescription(
    name=bundle.name,
    versions=[bundle.version],
    platform='dare_jax',
    inputs=[
      tensor('user_id', 'BYTES', [-1]),
      *[tensor(f'history.{f}', 'BYTES', [-1, -1]) for f in fields],
      *([] if times is None else [tensor('history.time', 'INT64', [-1, -1])]),
      tensor('history_length', 'INT64', [-1]),
      *[tensor(f'candidates.{f}', 'BYTES', [-1, -1]) for f in fields],
      *[tensor(f'context.{f}', 'BYTES', [-1]) for f in bundle.context_fields],
      *([] if times is None else [tensor('time', 'INT64', [-1])]),
    ],
    outputs=[
      tensor(name, kind, [-1, -1, *_last_axis(slot.known, name)])
      for name, kind in OUTPUTS.items()
    ],
    fields=list(fields),
    context_fields=list(bundle.context_fields),
    history_length=bundle.history_length,
    top_k=bundle.top_k,
    real_time=list(bundle.real_time),
    time_unit=None if times is None else times.unit,
    refused=slot.refused,
  )


def _last_axis(served: served_lib.Served, name: str) -> list[int]:
  if name == 'unknown':
    return [len(served.messages.fields)]
  return [served.bundle.top_k] if name.startswith('found') else []


def infer(
  scorer: scorer_lib.Scorer,
  served: served_lib.Served,
  body: bytes,
  header: str | None,
) -> tuple[bytes, int | None]:
  """Returns the answer, and the length of its JSON where tensors follow.

  Args:
    scorer: the scorer of the bundle.
    served: the bundle that answers.
    body: the body of the request.
    header: the length of its JSON where binary tensors follow, else None.

  Raises:
    Problem: the request is wrong.
  """
  size = len(body) if header is None else _size(header, len(body))
  request = messages.decode(_DECODER, body[:size])
  wanted = {one.name: one.parameters for one in request.outputs}
  inputs = _inputs(request, body[size:])
  binary_all = request.parameters.get('binary_data_output') is True
  made, blobs = [], []
  for name, array in outputs(scorer, served, inputs, [*wanted]).items():
    tensor = bodies.Tensor(name, list(array.shape), OUTPUTS[name])
    if wanted.get(name, {}).get('binary_data', binary_all) is True:
      blobs.append(array.tobytes())
      tensor.parameters = {'binary_data_size': array.nbytes}
    else:
      tensor.data = array.ravel().tolist()
    made.append(tensor)
  bundle = served.bundle
  head = msgspec.json.encode(
    bodies.InferAnswer(bundle.name, bundle.version, made, request.id)
  )
  return b''.join([head, *blobs]), len(head) if blobs else None


def outputs(
  scorer: scorer_lib.Scorer,
  served: served_lib.Served,
  inputs: dict[str, Any],
  wanted: Sequence[str],
) -> dict[str, np.ndarray]:
  """Returns name -> array of the outputs, each of its type in `OUTPUTS`.

  Args:
    scorer: the scorer of the bundle.
    served: the bundle that answers.
    inputs: name -> (shape, values in row-major order).
    wanted: names of outputs; empty: those that are always there.

  Raises:
    Problem: the request is wrong.
  """
  for name in wanted:
    if name not in OUTPUTS:
      raise problems.bad(
        f'outputs.{name}', f'expected one of {", ".join(OUTPUTS)}'
      )
  explain = any(name.startswith('found') for name in wanted)
  asked = requests.of_users(served, inputs, explain)
  arrays = _arrays(served, scorer.score_many(served, asked))
  return {
    name: np.ascontiguousarray(arrays[name], _OUTPUT_DTYPES[OUTPUTS[name]])
    for name in wanted or _ALWAYS
  }


def _size(header: str, most: int) -> int:
  sound = header.isascii() and header.isdecimal() and len(header) < 12
  if not sound or int(header) > most:
    raise problems.bad(
      HEADER, f'expected a number up to {most}, the length of the body'
    )
  return int(header)


def _inputs(request: bodies.InferRequest, tail: bytes) -> dict[str, Any]:
  """Returns name -> (shape, values) of all inputs, read from JSON or binary."""
  found: dict[str, Any] = {}
  for tensor in request.inputs:
    name = f'inputs.{tensor.name}'
    if tensor.data is msgspec.UNSET:
      size = tensor.parameters.get('binary_data_size')
      if not isinstance(size, int) or not 0 <= size <= len(tail):
        raise problems.bad(
          name, 'expected data, or binary_data_size of what follows the JSON'
        )
      values = tensors.binary(name, tensor.datatype, tail[:size])
      tail = tail[size:]
    else:
      values = tensors.plain(name, tensor.datatype, tensor.data)
    found[tensor.name] = tensors.shaped(name, tensor.shape, values)
  if tail:
    raise problems.bad('inputs', f'{len(tail)} bytes belong to no tensor')
  return found


def _arrays(
  served: served_lib.Served, scored: Sequence[scorer_lib.Scored]
) -> dict[str, np.ndarray]:
  logits = np.stack([np.asarray(one.scores.logit) for one in scored])
  fields = served.messages.fields
  arrays = {
    'logit': logits,
    'probability': scoring.probabilities(logits),
    'unknown': np.stack(
      [np.stack([one.unknown[f] for f in fields], axis=-1) for one in scored]
    ),
  }
  if scored[0].shown.events is not None:
    masks = np.stack([np.asarray(one.scores.mask) for one in scored])
    for name, key in (
      ('found_position', 'distance'),
      ('found_weight', 'weight'),
    ):
      values = np.stack(
        [np.asarray(getattr(one.scores, key)) for one in scored]
      )
      arrays[name] = np.where(masks, values, 0)
  return arrays

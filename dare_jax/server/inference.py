"""The Open Inference Protocol, version 2, over HTTP: tensors in, tensors out.

Inputs of b users, with c candidates each and up to l behaviors, oldest first:

- `user_id` [b], or `history.FIELD` [b, l] for every field, of which in each row
  the first `history_length` [b] count, all where that is not given;
- `history.time` [b, l] and `time` [b] of models that read times;
- `candidates.FIELD` [b, c] for every field;
- `context.FIELD` [b] for every context field.

Raw values are BYTES (text) or whole numbers. Outputs: `logit` and `probability`
FP32 [b, c], `unknown` BOOL [b, c, fields]; where asked for by name,
`found_position` INT32 and `found_weight` FP32 [b, c, top_k]: position 1 is the
most recent behavior, 0 stands for none. Tensors may be binary, as in the
protocol's extension for binary data.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import msgspec
import numpy as np

from dare_jax.bundle import scoring
from dare_jax.server import messages
from dare_jax.server import problems
from dare_jax.server import scorer as scorer_lib
from dare_jax.server import served as served_lib

HEADER = 'Inference-Header-Content-Length'
_DTYPES = {
  **{f'INT{bits}': np.dtype(f'<i{bits // 8}') for bits in (8, 16, 32, 64)},
  **{f'UINT{bits}': np.dtype(f'<u{bits // 8}') for bits in (8, 16, 32, 64)},
}
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
_DECODER = msgspec.json.Decoder(messages.InferRequest)
_MOST_USERS = 1024


def server_description() -> dict[str, Any]:
  """Returns the server's metadata, as `GET /v2` has it."""
  import dare_jax

  return {
    'name': 'dare_jax',
    'version': dare_jax.__version__,
    'extensions': ['binary_tensor_data'],
  }


def describe(slot: served_lib.Slot) -> messages.ModelDescription:
  """Returns a model's metadata; -1 in a shape is any number."""
  bundle = slot.known.bundle
  fields, times = slot.known.messages.fields, slot.known.messages.times
  tensor = messages.TensorDescription
  return messages.ModelDescription(
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
  tensors, blobs = [], []
  for name, array in outputs(scorer, served, inputs, [*wanted]).items():
    tensor = messages.Tensor(name, list(array.shape), OUTPUTS[name])
    if wanted.get(name, {}).get('binary_data', binary_all) is True:
      blobs.append(array.tobytes())
      tensor.parameters = {'binary_data_size': array.nbytes}
    else:
      tensor.data = array.ravel().tolist()
    tensors.append(tensor)
  bundle = served.bundle
  head = msgspec.json.encode(
    messages.InferAnswer(bundle.name, bundle.version, tensors, request.id)
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
  asked = _requests(served, inputs, explain)
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


def _inputs(request: messages.InferRequest, tail: bytes) -> dict[str, Any]:
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
      values = binary(name, tensor.datatype, tail[:size])
      tail = tail[size:]
    else:
      values = plain(name, tensor.datatype, tensor.data)
    found[tensor.name] = shaped(name, tensor.shape, values)
  if tail:
    raise problems.bad('inputs', f'{len(tail)} bytes belong to no tensor')
  return found


def shaped(
  name: str, shape: Sequence[int], values: list[Any]
) -> tuple[Sequence[int], list[Any]]:
  """Returns an input, if its shape has as many values as there are."""
  count = math.prod(shape)
  if min(shape, default=0) < 0 or len(values) != count:
    raise problems.bad(
      name, f'the shape {shape} has {count} values, got {len(values)}'
    )
  return shape, values


def plain(name: str, kind: str, data: Any) -> list[Any]:
  """Returns the values of a tensor in JSON, which may be nested."""
  while data and all(isinstance(row, list) for row in data):
    data = [value for row in data for value in row]
  expected = str if kind == 'BYTES' else int
  if kind != 'BYTES' and kind not in _DTYPES:
    raise _kind(name, kind)
  if any(type(value) is not expected for value in data):
    raise problems.bad(name, f'expected values of {kind}')
  return _checked(name, data)


def binary(name: str, kind: str, blob: bytes) -> list[Any]:
  """Returns the values of a binary tensor."""
  if kind in _DTYPES:
    dtype = _DTYPES[kind]
    if len(blob) % dtype.itemsize:
      raise problems.bad(name, f'{len(blob)} bytes are no tensor of {kind}')
    return _checked(name, np.frombuffer(blob, dtype).tolist())
  if kind != 'BYTES':
    raise _kind(name, kind)
  values, place = [], 0
  while place < len(blob):
    size = int.from_bytes(blob[place : place + 4], 'little')
    text = blob[place + 4 : place + 4 + size]
    place += 4 + size
    if place > len(blob):
      raise problems.bad(name, 'the last of its texts is not whole')
    try:
      values.append(text.decode())
    except UnicodeDecodeError:
      raise problems.bad(name, f'{text!r:.60} is not UTF-8') from None
  return _checked(name, values)


def _kind(name: str, kind: str) -> problems.Problem:
  known = ', '.join(['BYTES', *_DTYPES])
  return problems.bad(name, f'datatype {kind!r:.40}: expected one of {known}')


def _checked(name: str, values: list[Any]) -> list[Any]:
  """Returns values that a log may have."""
  try:
    return msgspec.convert(values, list[messages.Raw])
  except msgspec.ValidationError as error:
    raise problems.bad(name, str(error)) from None


class _Rows:
  """Inputs, taken row by row as requests are made of them."""

  def __init__(self, inputs: dict[str, Any], count: int) -> None:
    self._inputs, self._count = dict(inputs), count

  def take(self, name: str, num_axes: int) -> list[Any]:
    """Returns the rows of an input that must be there; it is used up."""
    if name not in self._inputs:
      raise problems.bad(f'inputs.{name}', 'this input is missing')
    shape, values = self._inputs.pop(name)
    if len(shape) != num_axes or shape[0] != self._count:
      raise problems.bad(
        f'inputs.{name}',
        f'expected {num_axes} axes, the first of {self._count}; got {shape}',
      )
    if num_axes == 1:
      return values
    width = shape[1]
    return [
      values[row * width : (row + 1) * width] for row in range(self._count)
    ]

  def has(self, name: str) -> bool:
    return name in self._inputs

  def check_all_used(self) -> None:
    for name in self._inputs:
      raise problems.bad(f'inputs.{name}', 'the model has no such input')


def _requests(
  served: served_lib.Served, inputs: dict[str, Any], explain: bool
) -> list[Any]:
  """Returns a `ScoreRequest` for each user."""
  bundle, made = served.bundle, served.messages
  first = f'candidates.{made.fields[0]}'
  shape = inputs.get(first, ([0],))[0]
  count = shape[0] if shape else 0
  if not 0 < count <= _MOST_USERS or len(shape) != 2:
    raise problems.bad(
      f'inputs.{first}', f'expected a shape [1 to {_MOST_USERS}, candidates]'
    )
  if not 0 < shape[1] <= made.max_candidates:
    raise problems.bad(
      f'inputs.{first}', f'expected 1 to {made.max_candidates} candidates'
    )
  rows = _Rows(inputs, count)
  users = rows.take('user_id', 1) if rows.has('user_id') else None
  histories = [msgspec.UNSET] * count if users else _histories(rows, served)
  candidates = _structs(rows, 'candidates', made.fields, made.Candidate)
  context = [
    made.Context(*values)
    for values in zip(
      *[
        rows.take(f'context.{name}', 1)
        if rows.has(f'context.{name}') or name not in bundle.user_fields
        else [msgspec.UNSET] * count
        for name in made.context_fields
      ],
      strict=True,
    )
  ] or [made.Context()] * count
  moments: list[dict[str, Any]] = [{}] * count
  if made.times is not None and rows.has('time'):
    moments = [{'time': one} for one in rows.take('time', 1)]
  rows.check_all_used()
  return [
    made.ScoreRequest(
      candidates=candidates[row],
      user_id=users[row] if users else msgspec.UNSET,
      history=histories[row],
      context=context[row],
      explain=explain,
      **moments[row],
    )
    for row in range(count)
  ]


def _histories(rows: _Rows, served: served_lib.Served) -> list[Any]:
  lengths = None
  if rows.has('history_length'):
    lengths = rows.take('history_length', 1)
  made = served.messages
  fields: tuple[str, ...] = made.fields
  if made.times is not None and rows.has('history.time'):
    fields = (*fields, 'time')
  histories = _structs(rows, 'history', fields, made.Behavior)
  if lengths is None:
    return histories
  for row, length in enumerate(lengths):
    most = len(histories[row])
    if not isinstance(length, int) or not 0 <= length <= most:
      raise problems.bad(
        'inputs.history_length', f'expected 0 to {most}, got {length!r:.40}'
      )
  return [
    rows[:length] for rows, length in zip(histories, lengths, strict=True)
  ]


def _structs(
  rows: _Rows, side: str, fields: Sequence[str], kind: Any
) -> list[list[Any]]:
  """Returns, for each user, candidates or behaviors."""
  columns = [rows.take(f'{side}.{field}', 2) for field in fields]
  made = []
  for row in zip(*columns, strict=True):
    if len({len(values) for values in row}) > 1:
      raise problems.bad(f'inputs.{side}', 'its fields have different shapes')
    made.append([kind(*values) for values in zip(*row, strict=True)])
  return made


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

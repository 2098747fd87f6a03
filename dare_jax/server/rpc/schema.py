"""Messages of the Open Inference Protocol, version 2, as gRPC has them.

Names and numbers are those that the protocol has published; they are told to
protobuf as they are below, so that no generated code has to fit its version.
"""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory

PACKAGE = 'inference'
SERVICE = f'{PACKAGE}.GRPCInferenceService'
_PARAMETERS = ('parameters', 'InferParameter', 'map')
_TENSOR = {
  1: ('name', 'string'),
  2: ('datatype', 'string'),
  3: ('shape', 'int64', 'repeated'),
}
_FULL_TENSOR = {
  **_TENSOR,
  4: _PARAMETERS,
  5: ('contents', 'InferTensorContents'),
}
# Message -> number -> name, type, and whether it is repeated, a map or one of
# several.
_MESSAGES: dict[str, dict[int, tuple[str, ...]]] = {
  'ServerLiveRequest': {},
  'ServerLiveResponse': {1: ('live', 'bool')},
  'ServerReadyRequest': {},
  'ServerReadyResponse': {1: ('ready', 'bool')},
  'ModelReadyRequest': {1: ('name', 'string'), 2: ('version', 'string')},
  'ModelReadyResponse': {1: ('ready', 'bool')},
  'ServerMetadataRequest': {},
  'ServerMetadataResponse': {
    1: ('name', 'string'),
    2: ('version', 'string'),
    3: ('extensions', 'string', 'repeated'),
  },
  'ModelMetadataRequest': {1: ('name', 'string'), 2: ('version', 'string')},
  'ModelMetadataResponse.TensorMetadata': _TENSOR,
  'ModelMetadataResponse': {
    1: ('name', 'string'),
    2: ('versions', 'string', 'repeated'),
    3: ('platform', 'string'),
    4: ('inputs', 'ModelMetadataResponse.TensorMetadata', 'repeated'),
    5: ('outputs', 'ModelMetadataResponse.TensorMetadata', 'repeated'),
  },
  'InferParameter': {
    1: ('bool_param', 'bool', 'choice'),
    2: ('int64_param', 'int64', 'choice'),
    3: ('string_param', 'string', 'choice'),
    4: ('double_param', 'double', 'choice'),
    5: ('uint64_param', 'uint64', 'choice'),
  },
  'InferTensorContents': {
    1: ('bool_contents', 'bool', 'repeated'),
    2: ('int_contents', 'int32', 'repeated'),
    3: ('int64_contents', 'int64', 'repeated'),
    4: ('uint_contents', 'uint32', 'repeated'),
    5: ('uint64_contents', 'uint64', 'repeated'),
    6: ('fp32_contents', 'float', 'repeated'),
    7: ('fp64_contents', 'double', 'repeated'),
    8: ('bytes_contents', 'bytes', 'repeated'),
  },
  'ModelInferRequest.InferInputTensor': _FULL_TENSOR,
  'ModelInferRequest.InferRequestedOutputTensor': {
    1: ('name', 'string'),
    2: _PARAMETERS,
  },
  'ModelInferRequest': {
    1: ('model_name', 'string'),
    2: ('model_version', 'string'),
    3: ('id', 'string'),
    4: _PARAMETERS,
    5: ('inputs', 'ModelInferRequest.InferInputTensor', 'repeated'),
    6: ('outputs', 'ModelInferRequest.InferRequestedOutputTensor', 'repeated'),
    7: ('raw_input_contents', 'bytes', 'repeated'),
  },
  'ModelInferResponse.InferOutputTensor': _FULL_TENSOR,
  'ModelInferResponse': {
    1: ('model_name', 'string'),
    2: ('model_version', 'string'),
    3: ('id', 'string'),
    4: _PARAMETERS,
    5: ('outputs', 'ModelInferResponse.InferOutputTensor', 'repeated'),
    6: ('raw_output_contents', 'bytes', 'repeated'),
  },
}
# Method -> prefix of the names of its messages.
METHODS = (
  'ServerLive',
  'ServerReady',
  'ModelReady',
  'ServerMetadata',
  'ModelMetadata',
  'ModelInfer',
)


@functools.cache
def messages() -> dict[str, Any]:
  """Returns name -> class of all messages, 'ModelInferRequest' among them."""
  file = descriptor_pb2.FileDescriptorProto(
    name='dare_jax/open_inference.proto', package=PACKAGE, syntax='proto3'
  )
  made: dict[str, Any] = {}
  for name in sorted(_MESSAGES, key=lambda name: name.count('.')):
    outer, _, inner = name.rpartition('.')
    holder = made[outer].nested_type if outer else file.message_type
    made[name] = holder.add(name=inner or name)
    for number, told in _MESSAGES[name].items():
      _add(made[name], f'.{PACKAGE}.{name}', number, *told)
  # A pool of its own: a client's classes of the same names may be there, too.
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return {
    name: message_factory.GetMessageClass(
      pool.FindMessageTypeByName(f'{PACKAGE}.{name}')
    )
    for name in _MESSAGES
  }


def _add(
  message: Any, path: str, number: int, name: str, kind: str, form: str = ''
) -> None:
  """Adds a field to a description."""
  field = message.field.add(name=name, number=number)
  field.label = field.LABEL_OPTIONAL
  if form in ('repeated', 'map'):
    field.label = field.LABEL_REPEATED
  if form == 'choice':
    if not message.oneof_decl:
      message.oneof_decl.add(name='parameter_choice')
    field.oneof_index = 0
  if form == 'map':
    entry = message.nested_type.add(name='ParametersEntry')
    entry.options.map_entry = True
    _add(entry, path, 1, 'key', 'string')
    _add(entry, path, 2, 'value', kind)
    field.type, field.type_name = field.TYPE_MESSAGE, f'{path}.ParametersEntry'
  elif kind[0].isupper():
    field.type = field.TYPE_MESSAGE
    field.type_name = f'.{PACKAGE}.{kind}'
  else:
    field.type = getattr(field, f'TYPE_{kind.upper()}')

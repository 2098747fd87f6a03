"""The README of a bundle, with lines that score a user without dare_jax."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any

from dare_jax.logs import derived_fields

_TEXT = """# {model}, exported by dare_jax

A trained ranker: it scores candidates for a user with a history of behaviors.
All that it needs is in this folder, and reads with JAX and NumPy alone:

    pip install jax numpy flatbuffers

- `manifest.json`: what the model is, its metrics, and a hash of each file;
- `tables/`, `parameters/`: one `.npy` an array, to be memory-mapped; bfloat16
  lies as uint16, the manifest tells the dtype; a table of int8 has a scale for
  each row in `NAME.scale`;
- `programs/`: by `jax.export`, for {platforms}; the manifest tells kinds and
  shapes;
- `ids/`: raw values to the ids that the model reads.

## Score a user

```python
import json
import jax, numpy as np

folder = {folder!r}
manifest = json.load(open(f'{{folder}}/manifest.json'))
load = lambda file: np.load(f'{{folder}}/{{file}}', mmap_mode='r')
arrays = (manifest['tables'] | manifest['parameters']).items()
variables = {{n: load(x['file']).view(x['dtype']) for n, x in arrays}}
file = next(p['file'] for p in manifest['programs'] if p['kind'] == 'predict')
program = bytearray(open(f'{{folder}}/{{file}}', 'rb').read())
predict = jax.jit(jax.export.deserialize(program).call)

def ids(field, values):
  part = lambda name: load(f'ids/{{field}}.{{name}}.npy')
  if manifest['ids'][field]['kind'] == 'numbers':
    known = part('numbers').tolist()
  else:
    text, ends = part('bytes').tobytes(), part('offsets')
    known = [text[a:b].decode() for a, b in zip(ends, ends[1:])]
  found = dict(zip(known, part('ids').tolist()))
  return np.array([[found.get(value, 1) for value in values]], np.int32)

history = {history}  # oldest first
candidates = {candidates}
context = {context}
{derived}
slots = manifest['capacity']  # padding first, the most recent behavior last
place = lambda row: np.pad(row, ((0, 0), (slots, 0)))[:, -slots:]
past = {{f: place(ids(f, values)) for f, values in history.items()}}
count = np.array([min(len(history['item']), slots)], np.int32)
targets = {{f: ids(f, values) for f, values in candidates.items()}}
moment = {{f: ids(f, [value])[0] for f, value in context.items()}}
{times}real = np.ones(targets['item'].shape, bool)  # False where candidates pad
found = predict(variables, past, count, targets, real, moment)
print(found['logit'][0])  # of each candidate; a sigmoid makes probabilities
```

`predict` takes any number of users and candidates, and {slots} slots.
{more}

## Read again later

JAX reads programs of up to six months before, and none of newer versions; these
were written by jaxlib {jaxlib}. The tables outlive them. To write this folder
anew:

    {again}
"""
_TIMES = """\
# Seconds after a Monday at 00:00 UTC, of behaviors and of the moment.
past['time'] = place(np.array([60 * np.arange(count[0])], np.int32))
moment['time'] = np.array([86_400], np.int32)
"""
_CACHED = """\
For less work a request, keep a user's search keys: `encode_history` makes them,
`append` adds a behavior, `search` finds the behaviors that count for each
target, and `score` takes the ids of those. Programs with numbers in their names
are for those shapes, and search faster."""
_WHOLE = (
  'Programs with numbers in their names are for those shapes, and faster.'
)


@dataclasses.dataclass(frozen=True)
class Example:
  """Raw values to score: field -> values, and field -> value."""

  history: Mapping[str, Any]
  candidates: Mapping[str, Any]
  context: Mapping[str, Any]


def text(content: Mapping[str, Any], example: Example, place: str) -> str:
  """Returns the README.

  Args:
    content: what the manifest holds.
    example: raw values for the example of a request.
    place: the folder in which the bundle will lie.
  """
  predict = content['programs'][0]
  fixed = predict['shapes']['capacity']
  return _TEXT.format(
    model=content['model'],
    platforms=', '.join(predict['platforms']),
    folder=place,
    history=dict(example.history),
    candidates=dict(example.candidates),
    context=dict(example.context),
    derived=_derived(content['fields']),
    times=_TIMES if content['real_time'] else '',
    slots=fixed if isinstance(fixed, int) else f'{content["top_k"]} or more',
    more=_CACHED if content['has_cached_keys'] else _WHOLE,
    jaxlib=content['versions']['jaxlib'],
    again=content['command'],
  )


def _derived(fields: Iterable[str]) -> str:
  """Returns the lines that give the fields which follow from another one."""
  lines = [
    f'  rows[{field!r}] = rows[{derived_fields.source(field)!r}]\n'
    for field in fields
    if derived_fields.is_derived(field)
  ]
  if not lines:
    return ''
  return 'for rows in (history, candidates):  # these follow\n' + ''.join(lines)

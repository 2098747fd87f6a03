"""GPUs that are not here: what their compiler must know, and what it says."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import re
from typing import Any

from dare_jax import errors
from dare_jax.aot import traffic

_NAME = re.compile(r'(?P<card>\w+):(?P<shape>\d+x\d+x\d+)')


@dataclasses.dataclass(frozen=True)
class Card:
  """Figures of a card, as XLA's own descriptions of cards have them.

  From `xla/backends/gpu/target_config/specs` of github.com/openxla/xla, which
  were read from such cards.

  Attributes:
    kind: the name that the driver has for the card.
    capability: major version of the CUDA compute capability.
    cores: number of streaming multiprocessors.
    units: number of float32 units of a multiprocessor.
    clock_ghz: clock rate of the multiprocessors.
    memory_bytes: size of the card's memory.
    bytes_per_s: bandwidth of that memory.
    cache_bytes: size of the second-level cache.
    shared_bytes: shared memory of a multiprocessor; a block may have 1 KiB
      less.
  """

  kind: str
  capability: int
  cores: int
  units: int
  clock_ghz: float
  memory_bytes: int
  bytes_per_s: int
  cache_bytes: int
  shared_bytes: int


_H100 = Card(
  kind='NVIDIA H100 80GB HBM3',
  capability=9,
  cores=132,
  units=128,
  clock_ghz=1.98,
  memory_bytes=84_942_979_072,
  bytes_per_s=3_352_320_000_000,
  cache_bytes=52_428_800,
  shared_bytes=233_472,
)
CARDS = {
  'h100': _H100,
  'h200': dataclasses.replace(
    _H100,
    kind='NVIDIA H200 141GB HBM3e',
    memory_bytes=151_397_597_184,
    bytes_per_s=4_800_000_000_000,
  ),
  'a100': Card(
    kind='NVIDIA A100-SXM4-80GB',
    capability=8,
    cores=108,
    units=64,
    clock_ghz=1.41,
    memory_bytes=85_100_068_864,
    bytes_per_s=2_039_040_000_000,
    cache_bytes=41_943_040,
    shared_bytes=167_936,
  ),
  'b200': Card(
    kind='NVIDIA B200',
    capability=10,
    cores=148,
    units=128,
    clock_ghz=1.965,
    memory_bytes=191_514_411_008,
    bytes_per_s=7_672_320_000_000,
    cache_bytes=132_644_864,
    shared_bytes=233_472,
  ),
}


def card_of(topology: str) -> Card | None:
  """Returns the card of a topology such as h100:1x1x8; None: of no GPUs."""
  return CARDS.get(topology.partition(':')[0])


def devices_of(topology: str) -> list[Any]:
  """Returns abstract GPUs.

  Args:
    topology: a card and a shape: groups of hosts, hosts of each, GPUs of each
      host, such as h100:1x1x8.

  Raises:
    UsageError: another form, or no compiler for GPUs.
  """
  import jax
  from jax.experimental import topologies

  match = _NAME.fullmatch(topology)
  card = card_of(topology)
  if match is None or card is None:
    raise errors.UsageError(
      f'--topology={topology}: expected such as h100:1x1x8, groups of hosts x'
      ' hosts of each x GPUs of each.'
    )
  jax.config.update('jax_platforms', 'cpu')
  try:
    found = topologies.get_topology_desc(
      platform='cuda',
      topology_name='',
      target_config=description(card),
      topology=match['shape'],
    )
  except Exception as error:  # Whatever the plugin raises.
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise errors.UsageError(
      f'--topology={topology}: {reason}. It needs the compiler for GPUs'
      f' ({errors.install("gpu-aot")}).'
    ) from None
  return list(found.devices)


def description(card: Card) -> str:
  """Returns what the compiler reads of a card: a protocol buffer as text.

  >>> 'core_count: 132' in description(CARDS['h100'])
  True
  """
  fields = {
    'threads_per_block_limit': 1024,
    'threads_per_warp': 32,
    'shared_memory_per_block': 49_152,
    'shared_memory_per_core': card.shared_bytes,
    'shared_memory_per_block_optin': card.shared_bytes - 1024,
    'threads_per_core_limit': 2048,
    'core_count': card.cores,
    'fpus_per_core': card.units,
    'block_dim_limit_x': 2**31 - 1,
    'block_dim_limit_y': 2**16 - 1,
    'block_dim_limit_z': 2**16 - 1,
    'memory_bandwidth': card.bytes_per_s,
    'l2_cache_size': card.cache_bytes,
    'clock_rate_ghz': card.clock_ghz,
    'device_memory_size': card.memory_bytes,
    'registers_per_core_limit': 65_536,
    'registers_per_block_limit': 65_536,
  }
  lines = [f'  {name}: {value}' for name, value in fields.items()]
  return '\n'.join(
    [
      'gpu_device_info {',
      *lines,
      f'  cuda_compute_capability {{ major: {card.capability} }}',
      '}',
      'platform_name: "CUDA"',
      'dnn_version_info { major: 9 minor: 28 patch: 1 }',
      'runtime_version { major: 13 }',
      f'device_description_str: "{card.kind}"',
    ]
  )


# Of CUDA, major: the least of which XLA's model of time has figures.
_LEAST_MODELLED = 9
_COMPUTATION = re.compile(r'(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$')
# The first is the whole model's; others, of parts of it, may follow.
_TIME = re.compile(r'"exec_time_us":"?([\d.e+-]+)')
_BODY = re.compile(r' while\(.*body=%?(?P<name>[\w.\-]+)')
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(
  r'(?: call\(.*to_apply|true_computation|false_computation)=%?([\w.\-]+)'
)


def options(card: Card) -> dict[str, str | bool]:
  """Returns what has the compiler put each operation's time into a program.

  Nothing for cards of which its model has no figures: it fails there.
  """
  if card.capability < _LEAST_MODELLED:
    return {}
  return {'xla_gpu_collect_cost_model_stats': True}


def estimate_us(text: str) -> float:
  """Returns the time of a program, the sum of its operations' times.

  What a loop does counts as often as it runs; of two branches, both do. What
  the compiler's model does not know, such as Pallas kernels, has no time.
  Exchanges between cards are left out: the model has no time for some, and has
  sums over cards go round them one after another, some 9 microseconds for each
  card, which libraries for them do not do. It is a lower bound, from a model.

  >>> text = '''ENTRY %main (a: f32[8]) -> f32[8] {
  ...   ROOT %x = fusion(), backend_config={"exec_time_us":2.5}
  ... }'''
  >>> estimate_us(text)
  2.5

  Args:
    text: the text of a program that was compiled with `options`; the result is
      0 for any other.
  """

  def time(line: str) -> float:
    match = _TIME.search(line)
    if match is None or traffic.is_collective(line):
      return 0.0
    return float(match[1])

  return _total(text, time)


def passed_on(text: str) -> float:
  """Returns the bytes that a program's operations write, loops as they run.

  Each operation writes its results to memory, where the next ones read them:
  what a program holds on the chip is inside of one operation.

  >>> passed_on('''ENTRY %main (a: f32[8]) -> f32[8] {
  ...   %x = (f32[8]{0}, s32[8]{0}) fusion(%a), kind=kCustom
  ...   ROOT %y = f32[8]{0} get-tuple-element(%x), index=0
  ... }''')
  64.0

  Args:
    text: the text of a compiled program.
  """
  return _total(text, lambda line: float(traffic.result_bytes(line)))


def _total(text: str, of_line: Callable[[str], float]) -> float:
  """Returns the sum over all operations, those of loops as often as they run.

  Of two branches, both count.
  """
  lines: dict[str, list[str]] = {}
  name = entry = ''
  for line in text.splitlines():
    if match := _COMPUTATION.match(line.strip()):
      name = match['name']
      lines[name] = []
      entry = name if match['entry'] else entry
    elif name:
      lines[name].append(line)

  def of(computation: str) -> float:
    """Returns the sum of a computation and of those that it calls."""
    total = 0.0
    for line in lines.get(computation, []):
      if body := _BODY.search(line):
        trips = _TRIPS.search(line)
        total += of(body['name']) * (int(trips[1]) if trips else 1)
        continue
      total += sum(map(of, _CALLED.findall(line))) + of_line(line)
    return total

  return of(entry)

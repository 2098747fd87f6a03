"""What parts of a program take, read from a text made by hand."""

from __future__ import annotations

import pytest

from dare_jax import errors
from dare_jax.aot import pod
from dare_jax.aot import shares

_TEXT = """
%taken (x: f32[1000], i: s32[64,5]) -> f32[64,5] {
  %x = f32[1000]{0:T(1024)} parameter(0)
  %i = s32[64,5]{1,0:T(8,128)} parameter(1)
  ROOT %g = f32[64,5]{1,0:T(8,128)} gather(%x, %i), index_vector_dim=2, \
slice_sizes={1}
}

%body (s: s32[]) -> s32[] {
  %s = s32[]{:T(128)} parameter(0)
  %w = f32[16,8]{1,0:T(8,128)S(1)} fusion(%s), calls=%made, \
backend_config={"estimated_cycles":"2000000"}
}

%cond (s: s32[]) -> pred[] {
  %s = s32[]{:T(128)} parameter(0)
  %n = s32[]{:T(128)} constant(5)
  ROOT %c = pred[]{:T(512)} compare(%s, %n), direction=LT
}

ENTRY %main (x: f32[1000], i: s32[64,5]) -> f32[64,5] {
  %x = f32[1000]{0:T(1024)} parameter(0)
  %i = s32[64,5]{1,0:T(8,128)} parameter(1)
  %k = (f32[9,1000]{1,0:T(8,128)}, s32[9,1000]{1,0:T(8,128)}) sort(%a, %b), \
metadata={op_name="Ranker._find/top_k"}
  %l = s32[]{:T(128)} while(%x), condition=%cond, body=%body, \
metadata={op_name="Ranker._attend/Ranker.attend/while"}
  ROOT %t = f32[64,5]{1,0:T(8,128)} fusion(%x, %i), kind=kCustom, \
calls=%taken, metadata={op_name="transpose(Ranker.scores)/gather"}
}
"""


def test_each_part_has_its_own():
  found = {row['part']: row for row in shares.of_parts(_TEXT)}
  assert list(found) == ['scores', 'top k', 'auxiliary pooling']
  scores, top_k, pooling = found.values()
  assert scores['one_by_one'] == 64 * 5
  # The table is filled up to 1,024 numbers, rows to 128 lanes: the largest,
  # here the gathered rows, or what they are gathered from, does not count.
  assert scores['moved_mb'] == pytest.approx(1024 * 4 / 1e6)
  assert top_k['sorted'] == 9 * 1000
  assert top_k['moved_mb'] == pytest.approx(2 * 16 * 1024 * 4 / 1e6)
  assert pooling['mcycles'] == 5 * 2.0
  filled = 16 * 128 * 4 + 128 * 4
  assert pooling['moved_mb'] == pytest.approx(5 * filled / 1e6)


@pytest.mark.parametrize('topology', ['cpu:1', 'h100:1x1x8'])
def test_only_programs_for_tpus_are_read(topology):
  with pytest.raises(errors.UsageError, match='--parts'):
    pod.check_parts(['v5e:2x4', topology])

"""Gaps, the seconds from a behavior to a moment, and the kinds of them.

Times are whole seconds after an origin, int32; differences never touch floats.
An origin is a Monday at 00:00 UTC, so that hours and weekdays follow from a
time alone.
"""

from __future__ import annotations

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

HOUR, DAY = 3_600, 86_400
WEEK = 7 * DAY
# Gaps below 2^31 seconds, two to a doubling; and none, or the day of a week.
RANGES, PHASES = 62, 8
# How many kinds of gaps are told apart.
KINDS = RANGES * PHASES
_LONGEST = 2**31 - 1


@struct.dataclass
class GapScores:
  """What the time between a behavior and a moment adds to scores.

  Fields are untyped: transformations of JAX fill them with other things.

  Attributes:
    now: int32, the moments: [b], one a user.
    bias: float32 [`KINDS`], what each kind of gap adds.
  """

  now: Any
  bias: Any

  def scores(self, time: Int[Array, 'b l']) -> Float[Array, 'b l']:
    """Returns what the times of behaviors add to their scores."""
    gap = between(self.now[:, None], time)[:, 0]
    return jnp.take(self.bias, kind(gap), mode='clip')


def between(
  now: Int[Array, 'b m'], time: Int[Array, 'b l']
) -> Int[Array, 'b m l']:
  """Returns the seconds from behaviors to moments.

  None is negative: 0 where the behavior is the later one, and 2^31 - 1 where
  there are more.

  >>> import jax.numpy as jnp
  >>> between(jnp.array([[2**31 - 1, 5]]), jnp.array([[-7, 3, 9]])).tolist()
  [[[2147483647, 2147483644, 2147483638], [12, 2, 0]]]
  """
  now, time = now[:, :, None], time[:, None]
  gap = now - time
  return jnp.where(now < time, 0, jnp.where(gap < 0, _LONGEST, gap))


def range_of(gap: Int[Array, '*shape']) -> Int[Array, '*shape']:
  """Returns the log-spaced range of gaps, 0 to `RANGES` - 1.

  Each second up to 4 has its own; from there on, two to a doubling.

  >>> import jax.numpy as jnp
  >>> range_of(jnp.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 2**31 - 1])).tolist()
  [0, 1, 2, 3, 4, 4, 5, 5, 6, 61]
  """
  power = 31 - jax.lax.clz(jnp.maximum(gap, 1))
  half = jax.lax.shift_right_logical(gap, jnp.maximum(power - 1, 0)) & 1
  return jnp.where(gap < 2, gap, 2 * power + half)


def phase(gap: Int[Array, '*shape']) -> Int[Array, '*shape']:
  """Returns 1 + the days of gaps modulo 7, the nearest day; 0 below a day.

  >>> import jax.numpy as jnp
  >>> phase(jnp.array([0, 23, 24, 49, 165, 168, 178, 192]) * 3_600).tolist()
  [0, 0, 2, 3, 1, 1, 1, 2]
  """
  # A whole number of weeks fewer: half a day more would not fit the longest.
  days = (jax.lax.rem(gap, jnp.full_like(gap, WEEK)) + DAY // 2) // DAY
  days = jnp.where(days == 7, 0, days)
  return jnp.where(gap < DAY, 0, 1 + days)


def kind(gap: Int[Array, '*shape']) -> Int[Array, '*shape']:
  """Returns a number, below `KINDS`, of gaps' range and phase together."""
  return range_of(gap) * PHASES + phase(gap)

"""When a run is at a threshold."""

from dare_jax.analysis.learning import efficiency

_CURVE = {
  'step': [10, 20, 30],
  'time_s': [1.0, 2.5, 4.0],
  'value': [0.5, 0.8, 0.7],
}


def test_first_step_at_a_threshold():
  assert efficiency.reached(_CURVE, 0.7) == {'step': 20, 'time_s': 2.5}
  assert efficiency.reached(_CURVE, 0.5) == {'step': 10, 'time_s': 1.0}
  assert efficiency.reached(_CURVE, 0.9) is None
  assert efficiency.reached(None, 0.5) is None
  assert efficiency.reached(_CURVE, None) is None

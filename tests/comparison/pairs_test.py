"""Models that read different fields of a log are compared row by row."""

import pytest

from dare_jax import errors
from dare_jax.comparison import checks
from dare_jax.comparison import plan
from dare_jax.comparison import runs as runs_lib
from dare_jax.comparison import summary
from dare_jax.comparison import table
from dare_jax.evaluation import metrics
from dare_jax.experiments import experiment
from dare_jax.training import feed
from dare_jax.training import prediction
from tests import compare_test
from tests import tiny

_RICH = (
  'rich=dare:data.columns.fields=brand:data.columns.user_fields=user_id'
  ':data.history_length=9:data.max_padding=0.1:eval.batch_size=30'
)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('pairs')
  head, *rows = tiny.write_log(root / 'log.csv').read_text().splitlines()
  rows = [f'{row},{"" if n % 5 else f"b{n % 7}"}' for n, row in enumerate(rows)]
  (root / 'log.csv').write_text('\n'.join([f'{head},brand', *rows, '']))
  return root


def _test(run):
  """Leaves what a run leaves of its test, with logits that are made up."""
  parts = experiment.load(run.config)
  found = prediction.predict(
    lambda state, batch, keep: (
      batch.targets.label + batch.targets.ids['item'] % 3,
      {},
    ),
    None,
    parts.pipelines['test'],
    feed.Placer(parts.trainer.mesh, {}),
    run.config.eval.batch_size,
  )
  run.workdir.mkdir(parents=True)
  metrics.save(found, run.workdir / 'predictions_test.npz')
  return parts.store


def test_a_model_with_fields_beside_one_without(root, tmp_path):
  config = tiny.config(root)
  variants = plan.parse_models(['dare', _RICH, 'other=dare'])
  runs = plan.plan(config, variants, 1, tmp_path)
  # As if it were from a comparison of other users.
  runs[2].config.data.min_events = 61
  stores = [_test(run) for run in runs]
  assert stores[1].fields == ('item', 'category', 'brand')
  assert stores[0].fingerprint != stores[1].fingerprint
  assert stores[0].raw_ids('user').equals(stores[1].raw_ids('user'))
  outcomes = {
    run.workdir: runs_lib.Outcome(compare_test.result()) for run in runs
  }
  made = summary.Summary(runs, 'dare', '').table(outcomes)
  _, rich, other = made['rows']
  assert rich['changes']['data.columns.fields'] == 'brand'
  assert [one['seed'] for one in rich['auc_difference']['by_seed']] == [1]
  assert 'unpaired' not in rich and 'auc_difference' not in other
  told = 'other, no difference of seed 1: tested on other rows than dare'
  assert told in table.text(made).splitlines()


def test_each_model_is_checked_with_what_it_reads(root):
  """A log with brands is prepared for the model that reads them."""
  config = tiny.config(root)
  checks.check(config, ['dare', _RICH])
  assert len([*(root / 'data').glob('csv_log-*/manifest.json')]) == 2
  for wrong, said in (
    ('data.columns.fields=shop', "^--models: b: .*no column 'shop'"),
    ('data.item_vectors=none.npy', '^--models: b: .*none.npy'),
    ('train.init_from=/nowhere', '^--models: b: .*/nowhere: no run'),
  ):
    with pytest.raises(errors.UsageError, match=said):
      checks.check(config, ['dare', f'b=dare:{wrong}'])

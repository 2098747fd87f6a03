"""The figures about search, from their JSON alone."""

from __future__ import annotations

from typing import Any

from dare_jax.analysis.drawing import figure
from dare_jax.analysis.drawing import panels as panels_lib

Data = dict[str, Any]
_PERCENT = 100


def _quality_sentence(data: Data) -> str:
  text = _of_quality(data)
  if data['informative'] is not None:
    text += (
      f' Of {data["tested_cells"]:,} cells with 50 rows or more'
      f' {data["informative"] * _PERCENT:.1f} % tell of the click at the 5 %'
      ' level; were it chance alone and rows independent, 5 % would.'
    )
  if not data['left_out']:
    return text
  names = figure.listed(data['left_out'])
  return f'{text} Left out, as it searches over clusters: {names}.'


def _of_quality(data: Data) -> str:
  ndcg = {
    label: model['ndcg_by_step'][-1] for label, model in data['models'].items()
  }
  ndcg = {label: value for label, value in ndcg.items() if value is not None}
  if not ndcg:
    return 'No test target has a category with enough training rows.'
  order = sorted(ndcg, key=lambda label: -ndcg[label]['mean'])
  first = order[0]
  others = [f'{label} {ndcg[label]["mean"]:.3f}' for label in order[1:]]
  text = (
    f'Against the ranking by mutual information, the search of {first} reaches'
    f' an NDCG@{data["k"][-1]} of {ndcg[first]["mean"]:.3f} (95 % interval'
    f' {ndcg[first]["low"]:.3f} to {ndcg[first]["high"]:.3f})'
  )
  if others:
    text += f', {figure.listed(others)}'
    apart = ndcg[first]['low'] > ndcg[order[1]]['high']
    text += (
      '; the intervals of the first two do not overlap'
      if apart
      else '; the intervals of the first two overlap'
    )
  rows = data['num_rows']
  text += f'. {rows["correct"]:,} test targets count'
  if not rows['official']:
    return text + '; by the rules of the published scripts none would.'
  share = rows['official'] / rows['correct'] * _PERCENT
  text += f'; by the rules of the published scripts {share:.0f} % of them would'
  old = {
    label: model['ndcg_by_step'][0] for label, model in data['models'].items()
  }
  values = [
    f'{label} {value["mean"]:.3f}' for label, value in old.items() if value
  ]
  return f'{text}, at {figure.listed(values)}.'


def _quality_panels(data: Data) -> list[panels_lib.Panel]:
  shown = [
    ('ndcg', 'NDCG@k', 'own search, against mutual information'),
    ('hit_rate', 'Hit rate of the best k', 'own search, the same ranking'),
    ('same_category', "Recall of the target's category", 'of what k can hold'),
    ('official_ndcg', 'NDCG@k, official', 'by category and position'),
    ('official_hits', 'Hits, official', 'by category and position; count'),
  ]
  made = []
  for name, title, note in shown:
    series = {
      label: model[name]
      for label, model in data['models'].items()
      if model.get(name)
    }
    if series:
      draw = panels_lib.lines(data['k'], series, 'behaviors kept, k')
      made.append(panels_lib.Panel(title, note, draw))
  return made


def _quality_tables(data: Data) -> list[figure.Table]:
  rows = [
    [label, *(figure.estimate(value) for value in model['ndcg_by_step'])]
    for label, model in data['models'].items()
  ]
  title = (
    f'NDCG@{data["k"][-1]} from the official definition to the correct one'
  )
  return [figure.Table(title, ['model', *data['steps']], rows)]


def _maps_sentence(data: Data) -> str:
  agreement = data['agreement']
  order = sorted(agreement, key=lambda label: -agreement[label])
  values = [f'{agreement[label]:.2f} for {label}' for label in order]
  targets = [
    f'{target["target"]} ('
    + ', '.join(f'{k} {v:.2f}' for k, v in target['agreement'].items())
    + ')'
    for target in data['targets']
  ]
  return (
    f'Over {data["num_targets"]:,} target categories the rank correlation of'
    ' attention with mutual information, category by position, is'
    f' {figure.listed(values)} on average. Shown: {figure.listed(targets)}.'
  )


def _maps_panels(data: Data) -> list[panels_lib.Panel]:
  made = []
  for target in data['targets']:
    grids = {'mutual information': target['information'], **target['attention']}
    for name, grid in grids.items():
      note = f'target: {target["target"]}'
      if name in target['attention']:
        note += f'; rank correlation {target["agreement"][name]:.2f}'
      else:
        note += f'; at most {target["most_bits"]:.2g} bits'
      columns = [str(i + 1) for i in range(len(grid[0]))]
      draw = panels_lib.heat(
        grid, columns, target['categories'], 'position, 1 the most recent'
      )
      made.append(panels_lib.Panel(name, note, draw, height=3.5))
  return made


def _cases_sentence(data: Data) -> str:
  cases = data['cases']
  if not cases:
    return 'No clicked test target could be ranked.'
  first = cases[0]
  values = figure.listed([f'{k} {v:.2f}' for k, v in first['ndcg'].items()])
  return (
    f'The {len(cases)} clicked test targets of different categories with the'
    f' greatest difference; in the first, of {first["category"]},'
    f' NDCG@{data["keep"]} is'
    f' {values}. Below: the behaviors with the most information, and the place'
    " of each in a model's search."
  )


def _cases_tables(data: Data) -> list[figure.Table]:
  labels = data['labels']
  columns = ['behavior', 'position', 'millibits', *labels]
  made = []
  for case in data['cases']:
    ndcg = ', '.join(f'{k} {v:.2f}' for k, v in case['ndcg'].items())
    rows = [
      [
        f'{behavior["category"]} (item {behavior["item"]})',
        str(behavior['position']),
        f'{behavior["bits"] * 1000:.3g}',
        *(str(behavior['rank'][label] or '–') for label in labels),
      ]
      for behavior in case['behaviors']
    ]
    title = (
      f'{case["category"]} (item {case["item"]}): NDCG@{data["keep"]} {ndcg}'
    )
    made.append(figure.Table(title, columns, rows))
  return made


def _planted_sentence(data: Data) -> str:
  models = {k: v for k, v in data['models'].items() if v['ndcg'] is not None}
  order = sorted(models, key=lambda label: -models[label]['ndcg']['mean'])
  values = [f'{k} {models[k]["ndcg"]["mean"]:.3f}' for k in order]
  keep = max(len(v['curve']) for v in data['models'].values())
  text = f'Against what is planted, NDCG@{keep} is {figure.listed(values)}.'
  if data['spearman'] is None:
    return (
      f'{text} No cell with planted relevance has'
      f' {data["min_samples"]} rows with its behavior.'
    )
  text += (
    f' Over {data["num_cells"]:,} cells with planted relevance and'
    f' {data["min_samples"]} or more rows with their behavior, mutual'
    ' information has a rank correlation with the relevance of'
    f' {data["spearman"]:.3f}'
  )
  if data['spearman_expected'] is None:
    return f'{text}.'
  return (
    f'{text}, and of {data["spearman_expected"]:.3f} with the information that'
    ' the planted process implies. The latter has one of'
    f' {data["spearman_bound"]:.3f} with the relevance: as much as any number'
    ' of rows could show.'
  )


def _planted_panels(data: Data) -> list[panels_lib.Panel]:
  curves = {label: model['curve'] for label, model in data['models'].items()}
  k = list(range(1, 1 + max(map(len, curves.values()))))
  draw = panels_lib.lines(k, curves, 'behaviors kept, k')
  made = [panels_lib.Panel('NDCG@k', 'against planted relevance', draw)]
  if not data['bits']:
    return made

  def draw_cells(axes: Any) -> None:
    """Draws the bits of cells over their planted relevance."""
    low, middle, high = zip(*data['bits'], strict=True)
    color = panels_lib.color(0)
    axes.fill_between(data['relevance'], low, high, color=color, alpha=0.2)
    axes.plot(data['relevance'], middle, 'o-', color=color, markersize=4)
    axes.set_xlabel('planted relevance', fontsize=8)
    axes.set_ylabel('bits', fontsize=8)
    axes.set_ylim(bottom=0)

  note = 'median and middle half of cells, by relevance'
  made.append(panels_lib.Panel('Mutual information', note, draw_cells))
  return made


FIGURES = (
  figure.Figure(
    'search_quality',
    'Does the search find what matters?',
    _quality_sentence,
    _quality_panels,
    _quality_tables,
  ),
  figure.Figure(
    'attention_maps',
    'Attention beside mutual information',
    _maps_sentence,
    _maps_panels,
    figure.nothing,
  ),
  figure.Figure(
    'planted',
    'Against the planted relevance',
    _planted_sentence,
    _planted_panels,
    figure.nothing,
  ),
  figure.Figure(
    'search_cases',
    'Where the searches disagree most',
    _cases_sentence,
    figure.nothing,
    _cases_tables,
  ),
)

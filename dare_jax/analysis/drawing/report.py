"""`report.html`: one file with everything in it, for screens, phones, paper."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import html

from dare_jax.analysis import source as source_lib
from dare_jax.analysis.drawing import figure

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #1f2933; --quiet: #5f6b78; --rule: #e4e7eb;
  --series0: #1f6fb4; --series1: #c2571a; --series2: #2f8a57;
  --series3: #8a5fbf; --series4: #a1790f; --series5: #c04a7e;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #14181d; --ink: #e6e9ec; --quiet: #9aa5b1; --rule: #313943;
    --series0: #5aa9e6; --series1: #f08c4b; --series2: #5cc48a;
    --series3: #b493e0; --series4: #d8b24a; --series5: #e884af;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 84rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 0 0 .5rem; }
section { margin-top: 2.5rem; padding-top: 1.5rem; }
section { border-top: 1px solid var(--rule); }
p { max-width: 46rem; margin: .5rem 0 1rem; }
.quiet, caption { color: var(--quiet); font-size: .875rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: var(--series0); }
.panels { display: flex; flex-wrap: wrap; gap: 1.25rem; margin: 0; }
.panels svg { flex: 1 1 22rem; width: 100%; max-width: 26rem; height: auto; }
.panels svg { overflow: visible; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; }
caption { text-align: left; padding-bottom: .35rem; }
th, td { padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--rule); }
th, td { text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; vertical-align: bottom; }
@media screen { td { white-space: nowrap; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  section { border: 0; padding-top: 0; }
  .panels svg { flex: 0 0 47%; break-inside: avoid; }
  h2, caption { break-after: avoid; }
  .scroll { overflow: visible; }
  tr { break-inside: avoid; }
}
"""


@dataclasses.dataclass(frozen=True)
class Section:
  """What the report shows of a figure.

  Attributes:
    name: the stem of the figure's files.
    title: the heading of the section.
    sentence: what the numbers show.
    pictures: the panels as `<svg>` elements.
    tables: the tables that stand under the panels.
  """

  name: str
  title: str
  sentence: str
  pictures: Sequence[str]
  tables: Sequence[figure.Table]


def page(runs: Sequence[source_lib.Source], sections: Sequence[Section]) -> str:
  """Returns the report as one file of HTML.

  Args:
    runs: the runs that were analysed.
    sections: the analyses, in the order in which they are shown.
  """
  title = f'{figure.listed([run.label for run in runs])}, analysed'
  of_runs = figure.Table(
    'Runs',
    ['run', 'model', 'checkpoint', 'history', 'data'],
    [
      [
        run.label,
        run.config.model.name,
        f'step {run.step:,}',
        f'{run.config.data.history_length:,}',
        f'{run.config.data.name} {run.identity["data"]}',
      ]
      for run in runs
    ],
  )
  links = ''.join(
    f'<a href="#{section.name}">{html.escape(section.title)}</a> '
    for section in sections
  )
  body = '\n'.join(map(_section, sections))
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<link rel="icon" href="data:,">\n'
    f'<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n'
    f'<body>\n<h1>{html.escape(title)}</h1>\n<nav>{links}</nav>\n'
    f'{_table(of_runs)}\n{body}\n</body>\n</html>\n'
  )


def _section(section: Section) -> str:
  parts = [f'<h2>{html.escape(section.title)}</h2>']
  if section.pictures:
    parts.append(f'<div class="panels">{"".join(section.pictures)}</div>')
  parts.append(f'<p>{html.escape(section.sentence)}</p>')
  parts += map(_table, section.tables)
  files = f'{section.name}.json'
  if section.pictures:
    files += f', {section.name}.png'
  parts.append(f'<p class="quiet">{files}</p>')
  inside = '\n'.join(parts)
  return f'<section id="{section.name}">\n{inside}\n</section>'


def _table(table: figure.Table) -> str:
  def row(cells: Sequence[str], kind: str) -> str:
    """Returns a row of cells, each an element of this kind."""
    inside = ''.join(f'<{kind}>{html.escape(c)}</{kind}>' for c in cells)
    return f'<tr>{inside}</tr>'

  body = ''.join(row(cells, 'td') for cells in table.rows)
  return (
    f'<div class="scroll"><table><caption>{html.escape(table.title)}</caption>'
    f'<thead>{row(table.columns, "th")}</thead><tbody>{body}</tbody></table>'
    '</div>'
  )

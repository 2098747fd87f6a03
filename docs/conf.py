"""The documentation site: `sphinx-build -W docs build/docs`."""

import dare_jax

project = 'dare_jax'
author = 'the dare_jax authors'
copyright = f'2026, {author}'
version = release = dare_jax.__version__

extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
]
source_suffix = {'.md': 'myst-nb'}
exclude_patterns = ['figures/*.json']
# The tour is executed; what it prints to stderr is progress.
nb_execution_mode = 'cache'
nb_execution_raise_on_error = True
nb_execution_timeout = 1800
nb_output_stderr = 'remove'
nb_merge_streams = True
nitpicky = False

# Links to headings; every link inside the site is checked as it is built.
myst_heading_anchors = 3
myst_enable_extensions = ['colon_fence', 'deflist']
suppress_warnings = ['myst.header']

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_default_options = {'members': True, 'show-inheritance': False}
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 80

html_theme = 'furo'
html_title = f'dare_jax {release}'
html_copy_source = False
html_show_sphinx = False
pygments_style = 'friendly'
pygments_dark_style = 'native'

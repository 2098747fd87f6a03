"""What all commands share: flags, config files, exit codes.

Exit codes: 0 done (also `--help`), 2 wrong usage, config or data, 75 stopped
by SIGTERM after saving; anything else is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import difflib
import pathlib
import re
import sys
import textwrap
from typing import Any

from absl import flags
from absl import logging
from ml_collections import config_flags

from dare_jax import errors

EXIT_USAGE = 2
EXIT_STOPPED = 75


def configs_dir() -> pathlib.Path:
  """Returns the folder of the shipped configs, in a checkout or a wheel."""
  package = pathlib.Path(__file__).resolve().parent
  checkout = package.parent / 'configs'
  if (checkout / 'base.py').is_file():
    return checkout
  return package / 'configs'


def define_config(default: str | None = None) -> Any:
  """Defines `--config`; returns its holder. `default` is a shipped config."""
  path = None if default is None else str(configs_dir() / f'{default}.py')
  return config_flags.DEFINE_config_file(
    'config',
    path,
    'A config file, with an argument after a colon: configs/taobao.py:'
    'model=twin,dim=64. Override any field of configs/base.py:'
    ' --config.model.top_k=50.',
    lock_config=True,
  )


def run(main: Callable[[], None], argv: Sequence[str] | None = None) -> None:
  """Parses the flags, runs `main`, and exits with the right code."""
  argv = list(sys.argv if argv is None else argv)
  if any(arg in ('--help', '-h', '-help', '--helpfull') for arg in argv[1:]):
    _print_help()
    sys.exit(0)
  try:
    _parse(argv)
    logging.use_absl_handler()
    logging.set_verbosity(logging.WARNING)
    logging.set_stderrthreshold(logging.WARNING)
    main()
  except errors.UsageError as error:
    _fail(str(error))
  except errors.Stopped as error:
    print(
      f'stopped by SIGTERM: {error}; run the same command to go on',
      file=sys.stderr,
    )
    sys.exit(EXIT_STOPPED)


def _fail(message: str) -> None:
  print(f'error: {" ".join(message.split())}', file=sys.stderr)
  sys.exit(EXIT_USAGE)


def _parse(argv: list[str]) -> None:
  argv = [argv[0], *(_shipped(arg) for arg in argv[1:])]
  try:
    rest = flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    close = difflib.get_close_matches(error.flagname, list(flags.FLAGS), n=1)
    hint = f' Did you mean --{close[0]}?' if close else ''
    raise errors.UsageError(
      f'unknown flag --{error.flagname}.{hint} See --help.'
    ) from None
  except FileNotFoundError as error:
    raise errors.UsageError(
      f'--config: no such file: {error.filename}; shipped configs:'
      f' {", ".join(_shipped_names())}.'
    ) from None
  except (
    flags.Error,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
  ) as error:
    raise errors.UsageError(_one_line(error)) from None
  if len(rest) > 1:
    raise errors.UsageError(
      f'unexpected argument {rest[1]!r}; flags start with -- . See --help.'
    )


def _one_line(error: Exception) -> str:
  text = str(error.args[0]) if error.args else str(error)
  return re.sub(r'\s+', ' ', text).strip() + ' (see configs/base.py or --help)'


def _shipped(arg: str) -> str:
  """Lets `--config=configs/x.py` work outside a checkout as well."""
  match = re.fullmatch(r'--?config=(configs/(\w+\.py))(:.*)?', arg)
  if not match or pathlib.Path(match[1]).is_file():
    return arg
  return f'--config={configs_dir() / match[2]}{match[3] or ""}'


def _shipped_names() -> list[str]:
  return sorted(
    f'configs/{file.name}'
    for file in configs_dir().glob('*.py')
    if file.stem not in ('__init__', 'base')
  )


def _print_help() -> None:
  main = sys.modules['__main__']
  print((main.__doc__ or '').strip())
  own = flags.FLAGS.get_flags_for_module(main.__file__ or '__main__')
  shared = flags.FLAGS.get_flags_for_module(sys.modules[__name__])
  print('\nFlags:')
  for flag in sorted({*own, *shared}, key=lambda flag: flag.name):
    default = ''
    if flag.default is not None and flag.name != 'config':
      default = f' (default: {flag.default})'
    text = textwrap.wrap(f'{flag.help}{default}', 74)
    print(f'  --{flag.name}')
    print(textwrap.indent('\n'.join(text), ' ' * 6))
  print(f'\nConfigs: {", ".join(_shipped_names())}')
  print('Every field of a config, with a comment: configs/base.py')

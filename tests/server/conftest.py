"""What the tests of the server share."""

import pytest

from tests.server import sites


@pytest.fixture
def site():
  opened = sites.open_site()
  with opened.client:
    yield opened
  opened.service.close()

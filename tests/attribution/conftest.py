"""A database in which two accounts have tenants, and the installation runs."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from attribution.installation_store import finish_bootstrap
from tests.attribution.stores import change, make_accounts
from tests.attribution.worlds import BEGINNING


@pytest.fixture
def world(database: Engine) -> Engine:
    """An engine on a running installation with the accounts `reseller` (tenants big, small) and `rival` (other)."""
    change(database, make_accounts)
    with database.begin() as connection:
        finish_bootstrap(connection, BEGINNING)
    return database

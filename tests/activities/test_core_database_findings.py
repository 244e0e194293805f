"""What the survey of Core's host says about the database itself."""

from __future__ import annotations

from typing import Any, cast

import pytest

from activities.core.survey import CoreSurvey, database
from komodo.core.database import Database, ServerVersion
from model.facts import CollectionCount, DatabaseFacts
from model.fleet.spec import CoreSpec, FleetSpec, HostSpec

FLEET = FleetSpec(name="f", target="2.3.2", core=CoreSpec(host=HostSpec(name="core", address="10.0.0.1")), servers=())


class Opened:
    """A database with this version and these numbers of documents."""

    def __init__(self, version: ServerVersion, **counts: int) -> None:
        self._version, self._counts = version, counts

    async def version(self) -> ServerVersion:
        return self._version

    async def size(self) -> int:
        return 1

    async def counts(self) -> tuple[CollectionCount, ...]:
        return tuple(CollectionCount(name=n, documents=c) for n, c in self._counts.items())


@pytest.mark.parametrize(
    ("version", "counts", "codes"),
    [
        (ServerVersion(text="4.4.29"), {"Server": 1}, ["mongodb-old"]),
        (ServerVersion(text="5.0.0"), {"Server": 1}, []),
        (ServerVersion(text="4.4.0", ferretdb=True), {"Server": 1}, []),
        (ServerVersion(text="7.0.1"), {"Stack": 3}, ["database-empty"]),
        (ServerVersion(text="7.0.1"), {"User": 1}, []),
    ],
)
async def test_the_database(version: ServerVersion, counts: dict[str, int], codes: list[str]) -> None:
    survey = CoreSurvey(fleet=FLEET, host=cast("Any", None))
    survey.database = DatabaseFacts(container="mongo", image="mongo:7", address="mongo:27017", name="komodo")
    await database(survey, cast("Database", Opened(version, **counts)))
    assert [f.code for f in survey.findings] == codes

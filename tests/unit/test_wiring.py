"""The groups of services."""

from dataclasses import fields

from userapi.wiring.services import Services


def test_each_service_belongs_to_one_group() -> None:
    names = [service.name for group in Services.__bases__ for service in fields(group)]

    assert sorted(names) == sorted(set(names))

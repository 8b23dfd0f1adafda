"""The dictionary that is emptied when it is full."""

from userapi.infrastructure.bounded_dict import BoundedDict


def test_a_full_dictionary_is_emptied_before_it_grows() -> None:
    numbers: BoundedDict[str, int] = BoundedDict(2)

    numbers["a"], numbers["b"] = 1, 2
    assert dict(numbers) == {"a": 1, "b": 2}

    numbers["c"] = 3
    assert dict(numbers) == {"c": 3}


def test_a_known_key_never_empties_it() -> None:
    numbers: BoundedDict[str, int] = BoundedDict(2)

    numbers["a"], numbers["b"] = 1, 2
    numbers["a"] = 3

    assert dict(numbers) == {"a": 3, "b": 2}

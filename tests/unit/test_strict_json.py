"""JSON that readers could understand differently is rejected."""

import pytest

from userapi.infrastructure import strict_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "An object has two members of the same name."),
        ('{"b": {"a": 1, "a": 1}}', "An object has two members of the same name."),
        ("NaN", "NaN is not a JSON value."),
        ("[-Infinity]", "-Infinity is not a JSON value."),
        ("1e999", "A number is out of range."),
        ("9" * 5000, "A number is out of range."),
        ("[1,\n 2", "Invalid JSON at line 2, column 3."),
        ("", "Invalid JSON at line 1, column 1."),
    ],
)
def test_an_ambiguous_or_malformed_text_is_rejected(text: str, message: str) -> None:
    with pytest.raises(strict_json.NotStrictJson) as rejected:
        strict_json.loads(text)

    assert str(rejected.value) == message


def test_plain_json_is_read() -> None:
    assert strict_json.loads('{"a": [1, 2.5, true, null], "b": {"a": "x"}}') == {
        "a": [1, 2.5, True, None],
        "b": {"a": "x"},
    }

"""The Flask application."""

from userapi.api.application import Application


def test_a_function_is_inspected_once_and_returned_as_it_is() -> None:
    app = Application("userapi")

    def view() -> str:
        return "done"

    assert app.ensure_sync(view) is view
    assert app.ensure_sync(view) is view


def test_an_asynchronous_view_is_not_called_as_if_it_were_synchronous() -> None:
    """An earlier version returned it as it is, so its coroutine became a 500 without a cause.

    Flask needs a library to call it, and without that library says so.
    """

    async def view() -> str:
        return "done"

    try:
        result = Application("userapi").ensure_sync(view)()
    except RuntimeError as exc:
        result = "done" if "async" in str(exc) else str(exc)

    assert result == "done"

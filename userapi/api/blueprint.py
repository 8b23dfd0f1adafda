"""flask-smorest with strict parsing and with every error in the OpenAPI document.

Only this module uses private names of flask-smorest: decorators store what a view declares in its
`_apidoc`, and callbacks in `Blueprint._prepare_doc_cbks` turn that into an operation. The library
has no public names for them; its maintainers tell subclasses to add callbacks to this list
(marshmallow-code/flask-smorest, pull request 123).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import flask_smorest
from marshmallow import Schema

from userapi.errors import ServiceError

from .bodies import StrictParser
from .operations import WITH_A_BODY, Problems, complete_operation, merge_problems
from .problems import status_of

View = TypeVar("View", bound=Callable[..., Any])


class Blueprint(flask_smorest.Blueprint):
    """A blueprint whose views declare the domain errors that they raise."""

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare_doc_cbks.append(complete_operation)

    def register_views_in_doc(self, api: Any, *args: Any, **kwargs: Any) -> None:
        """Document the views when the document is built."""
        api.document_later(partial(super().register_views_in_doc, api, *args, **kwargs))

    def arguments(
        self, schema: type[Schema], *, location: str = "json", **kwargs: Any
    ) -> Callable[[View], View]:
        """Parse the body or the query by a schema, and document it."""
        # One instance for all requests: creating a schema copies every field deeply.
        parse = super().arguments(schema(), location=location, **kwargs)

        def decorate(view: View) -> View:
            wrapped: View = parse(view)
            wrapped.accepts_query = (  # type: ignore[attr-defined]
                location == "query" or getattr(view, "accepts_query", False)
            )
            return declare_problems(
                wrapped, WITH_A_BODY if location == "json" else {422: WITH_A_BODY[422]}
            )

        return decorate

    def raises(self, *errors: type[ServiceError]) -> Callable[[View], View]:
        """Document the domain errors that a view raises."""

        def decorate(view: View) -> View:
            problems: Problems = {}
            for error in errors:
                merge_problems(problems, {status_of(error): {error.code: error.title}})
            return declare_problems(view, problems)

        return decorate


def declare(view: View, **declarations: Any) -> View:
    """Add declarations for the OpenAPI document to a view."""
    view._apidoc = {**declarations_of(view), **declarations}  # type: ignore[attr-defined]
    return view


def declare_problems(view: View, problems: Problems) -> View:
    """Add problems that a view may return to its declarations."""
    declared: Problems = {}
    merge_problems(declared, declarations_of(view).get("problems", {}))
    merge_problems(declared, problems)
    return declare(view, problems=declared)


def declarations_of(view: Any) -> dict[str, Any]:
    """Return what a view declares for the OpenAPI document."""
    return dict(getattr(view, "_apidoc", {}))

"""Schemas of the statistics."""

from marshmallow import Schema, fields

from userapi.statistics import ACTIVE_SPANS, MAX_DAYS

from .fields import QueryInteger
from .requests import StrictSchema


class StatisticsQuery(StrictSchema):
    """The number of days."""

    days = QueryInteger(minimum=1, maximum=MAX_DAYS, metadata={"default": 30})


class Day(Schema):
    """Activity on one UTC day."""

    date = fields.Date()
    registrations = fields.Integer()
    logins = fields.Integer()
    failed_logins = fields.Integer()
    lockouts = fields.Integer()


ActiveUsers = Schema.from_dict(
    {
        name: fields.Integer(metadata={"description": f"Logged in within {span} days."})
        for name, span in ACTIVE_SPANS.items()
    },
    name="ActiveUsers",
)


class MfaCounts(Schema):
    """Two-step sign-in."""

    enabled = fields.Integer(metadata={"description": "Users with a second factor."})
    demanded_without = fields.Integer(
        metadata={"description": "Users without one, whose role demands a second factor."}
    )


class Statistics(Schema):
    """Statistics about users. Days are UTC days, the oldest first, including today."""

    total = fields.Integer()
    by_status = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"example": {"active": 41, "pending": 1}},
    )
    by_role = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"example": {"user": 40, "admin": 2}},
    )
    locked = fields.Integer()
    live_sessions = fields.Integer()
    active_users = fields.Nested(ActiveUsers)
    mfa = fields.Nested(MfaCounts)
    days = fields.List(fields.Nested(Day))

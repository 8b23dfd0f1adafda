"""The filters and orders that the URLs of lists can have."""

from marshmallow import Schema, fields, validate

from userapi.accounts.bulk_actions import BulkAction
from userapi.accounts.job_columns import JobState
from userapi.api.schemas.audit import AuditQuery
from userapi.api.schemas.fields import Choice
from userapi.api.schemas.machines import ServiceAccountQuery
from userapi.machines.active_keys import KeyAttention


class AuditPageQuery(AuditQuery):
    """The filters of the page of the audit log, which has more than the API."""

    about = fields.UUID()
    session_id = fields.UUID()
    reads = fields.String(validate=validate.OneOf(["own"]))


class ServiceAccountsPageQuery(ServiceAccountQuery):
    """The filters of the page of service accounts, which has more than the API."""

    keys = Choice(KeyAttention)


class RolesPageQuery(Schema):
    """The order of the page of roles, which shows all of them."""

    sort = fields.String(
        validate=validate.OneOf(
            [
                f"{sign}{column}"
                for column in ("name", "user_count", "service_account_count")
                for sign in ("", "-")
            ]
        )
    )


class JobsPageQuery(Schema):
    """The filters and the order of a page of jobs."""

    state = Choice(JobState)
    sort = fields.String()


class BulkJobsPageQuery(JobsPageQuery):
    """The filters of the page of bulk changes."""

    action = Choice(BulkAction)


class ImportsPageQuery(JobsPageQuery):
    """The filters of the page of imports."""

    dry_run = fields.Boolean()

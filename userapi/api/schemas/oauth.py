"""Schemas of OAuth 2.0 for machines."""

from marshmallow import Schema, fields, validate

CLIENT_ID = "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"


class ClientTokenRequest(Schema):
    """A request for a client token, as a form or as JSON. Other members are ignored."""

    grant_type = fields.String(
        required=True,
        validate=validate.OneOf(["client_credentials"]),
        metadata={"example": "client_credentials"},
    )
    client_id = fields.String(
        metadata={
            "example": CLIENT_ID,
            "description": "The id of the service account, unless sent by Basic authentication.",
        }
    )
    client_secret = fields.String(
        metadata={
            "example": "uaks_031SDlhm3cXd0fqoDweMV7003aUlTJC7tjlCTQj2uN…",
            "description": "An API key of the account, unless sent by Basic authentication.",
        }
    )
    scope = fields.String(
        metadata={
            "example": "users:read sessions:read",
            "description": "Permissions, separated by spaces. Omitted: all that the client holds.",
        }
    )
    audience = fields.String(
        metadata={"example": "aima", "description": "Only JWT_AUDIENCE is accepted."}
    )
    resource = fields.String(
        metadata={"example": "aima", "description": "Only JWT_AUDIENCE is accepted (RFC 8707)."}
    )


class ClientToken(Schema):
    """A client token. `scope` is absent if it holds no permission."""

    access_token = fields.String(metadata={"example": "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.…"})
    token_type = fields.Constant("Bearer")
    expires_in = fields.Integer(metadata={"example": 1800, "description": "Seconds."})
    scope = fields.String(
        metadata={
            "example": "sessions:read users:read",
            "description": "Permissions, separated by spaces.",
        }
    )


class AuthorizationServer(Schema):
    """The metadata of this authorization server (RFC 8414)."""

    issuer = fields.String(metadata={"example": "https://accounts.example.com"})
    token_endpoint = fields.String(
        metadata={"example": "https://accounts.example.com/api/v1/auth/token"}
    )
    jwks_uri = fields.String(
        metadata={"example": "https://accounts.example.com/.well-known/jwks.json"}
    )
    revocation_endpoint = fields.String(
        metadata={"example": "https://accounts.example.com/api/v1/auth/revoke"}
    )
    introspection_endpoint = fields.String(
        metadata={"example": "https://accounts.example.com/api/v1/auth/introspect"}
    )
    grant_types_supported = fields.List(
        fields.String(), metadata={"example": ["client_credentials"]}
    )
    response_types_supported = fields.List(fields.String(), metadata={"example": ["none"]})
    token_endpoint_auth_methods_supported = fields.List(
        fields.String(), metadata={"example": ["client_secret_basic", "client_secret_post"]}
    )
    introspection_endpoint_auth_methods_supported = fields.List(
        fields.String(), metadata={"example": ["client_secret_basic", "Bearer"]}
    )
    revocation_endpoint_auth_methods_supported = fields.List(
        fields.String(), metadata={"example": ["none"]}
    )
    service_documentation = fields.String(metadata={"example": "https://accounts.example.com/docs"})

"""Schemas of the index and of public keys."""

from marshmallow import Schema, fields


class Index(Schema):
    """Links to endpoints and documents. Those of disabled pages are absent."""

    service = fields.String(metadata={"example": "User Management Service"})
    version = fields.String(metadata={"example": "1.0.0"})
    health = fields.String(
        metadata={"example": "/api/v1/health/", "description": "Health of the service."}
    )
    metrics = fields.String(
        metadata={"example": "/metrics", "description": "Metrics for Prometheus."}
    )
    jwks = fields.String(
        metadata={"example": "/.well-known/jwks.json", "description": "Public keys of tokens."}
    )
    console = fields.String(metadata={"example": "/console/", "description": "Pages for browsers."})
    docs = fields.String(metadata={"example": "/docs", "description": "Swagger UI."})
    redoc = fields.String(metadata={"example": "/redoc", "description": "ReDoc."})
    openapi = fields.String(metadata={"example": "/openapi.json", "description": "This document."})


class JsonWebKey(Schema):
    """A public key (RFC 7517). Its other members depend on `kty`."""

    kid = fields.String(
        metadata={
            "example": "Q0-3VYqvO1Zt2dPn0vV0uJ1m1p6iFhVQn7kXb1S7m9w",
            "description": "Id of the key: its thumbprint (RFC 7638).",
        }
    )
    kty = fields.String(metadata={"example": "EC", "description": "EC, OKP or RSA."})
    alg = fields.String(metadata={"example": "ES256", "description": "ES256, EdDSA or RS256."})
    use = fields.String(metadata={"example": "sig", "description": "Signatures."})
    crv = fields.String(metadata={"example": "P-256", "description": "Curve of EC and OKP."})
    x = fields.String(
        metadata={
            "example": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "description": "Public point of EC and OKP.",
        }
    )
    y = fields.String(
        metadata={
            "example": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            "description": "Public point of EC.",
        }
    )
    n = fields.String(metadata={"example": "0vx7agoebGcQ…", "description": "Modulus of RSA."})
    e = fields.String(metadata={"example": "AQAB", "description": "Exponent of RSA."})


class JsonWebKeySet(Schema):
    """The public keys that verify access tokens; empty with HS256."""

    keys = fields.List(
        fields.Nested(JsonWebKey), metadata={"description": "The keys, the next one included."}
    )

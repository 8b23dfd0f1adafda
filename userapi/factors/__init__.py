"""Second factors: authenticator apps, passkeys, recovery codes, and what they prove."""

"""The guards that keep credentials, tokens and sessions safe, and how each is taken out.

Each is a piece of text in one file and what stands in its place without the guard, with the tests
that have to fail then. A text that is not there exactly once is a fault of this list.
"""

from dataclasses import dataclass

SERVICE = "userapi/authentication/service.py"
TOKENS = "userapi/authentication/tokens.py"
KEYS = "userapi/authentication/keys.py"
SESSIONS = "userapi/sessions/service.py"
STATUS = "userapi/sessions/status.py"
CACHE = "userapi/sessions/cache.py"
LOCKOUT = "userapi/lockout/service.py"
HASHING = "userapi/passwords/hashing.py"
PEPPERS = "userapi/passwords/peppers.py"
ONE_TIME = "userapi/passwords/one_time_tokens.py"
ACCOUNTS = "userapi/accounts/service.py"
ROTATION = "userapi/authentication/rotation.py"
SIGNING_IN = "userapi/authentication/signing_in.py"
ACCESS = "userapi/api/access.py"
RECOVERY_SERVICE = "userapi/authentication/recovery.py"
ROLES = "userapi/roles/service.py"
EDITING = "userapi/roles/editing.py"
PERMISSIONS = "userapi/permissions.py"
POLICY = "userapi/passwords/policy.py"
JOBS = "userapi/accounts/import_jobs.py"
IMPORTING = ("tests/api/test_import_jobs.py",)
KEY_FILES = "userapi/authentication/key_files.py"
MAIL_DELIVERY = "userapi/passwords/mail_delivery.py"
RATES = "userapi/rates.py"
LIMITING = "userapi/api/limits.py"
COOKIES = "userapi/console/cookies.py"
PAGES = "userapi/console/pages.py"
FORMS = "userapi/console/forms.py"
CONSOLE_SIGN_IN = "userapi/console/sign_in.py"
BODIES = "userapi/api/bodies.py"
SETTINGS = "userapi/settings.py"
FOREIGN = "userapi/passwords/foreign_hashes.py"
BODY_LIMITS = "userapi/serving/body_limits.py"

REFRESHING = ("tests/api/test_sessions.py", "tests/integration/test_refresh_races.py")
LIVE = ("tests/contract/test_live_sessions.py", "tests/integration/test_revocation_races.py")
FORGED = ("tests/unit/test_forged_tokens.py", "tests/unit/test_tokens.py")
LOCKING = ("tests/integration/test_lockout.py", "tests/api/test_login.py")
RECOVERY = ("tests/integration/test_one_time_tokens.py", "tests/api/test_recovery.py")
PASSWORDS = ("tests/unit/test_password_hashing.py",)
RANK = ("tests/api/test_rank.py",)
MISSING_PEPPER = ("tests/integration/test_password_peppers.py",)
EVERYBODY_OUT = ("tests/integration/test_everybody_out.py",)
LIMITS = tuple(
    f"tests/api/test_rate_limits.py::{name}"
    for name in (
        "test_a_token_that_has_ended_counts_for_its_network_and_not_for_its_user",
        "test_public_endpoints_do_not_count_for_the_user_of_an_ended_session",
        "test_changes_of_address_are_limited_by_account",
        "test_forms_without_a_csrf_token_are_counted_before_they_are_read",
    )
)
PRIVATE = ("tests/integration/test_private_files.py",)
LOG_IN = ("tests/api/test_login.py", "tests/integration/test_races.py")
BODY_BOUNDS = ("tests/blackbox/test_body_limits.py",)


@dataclass(frozen=True, slots=True)
class Guard:
    """A rule, where it stands, what stands there without it, and the tests that show it."""

    rule: str
    file: str
    present: str
    without: str
    tests: tuple[str, ...]


GUARDS = [
    # Refresh
    Guard(
        "Of many refreshes at once one rotates",
        ROTATION,
        '        _sessions.c.generation == bindparam("seen_generation"),\n',
        '        _sessions.c.generation >= bindparam("seen_generation"),\n',
        REFRESHING,
    ),
    Guard(
        "Only the immediate predecessor gets the same successor",
        SERVICE,
        "            claims.generation == own.generation - 1\n",
        "            claims.generation <= own.generation - 1\n",
        REFRESHING,
    ),
    Guard(
        "The predecessor is good for the grace and no longer",
        SERVICE,
        "            and self._clock.now() <= own.rotated_at + self._grace\n",
        "",
        REFRESHING,
    ),
    Guard(
        "A session that ends for reuse stays ended although the request is refused",
        SERVICE,
        "                self._end_reused(own.id, self._view(session, own.user_id), actor)\n",
        "                self._end_reused(own.id, self._view(session, own.user_id), actor)\n"
        "                raise RefreshTokenReused()\n",
        REFRESHING,
    ),
    Guard(
        "Who is not active refreshes nothing",
        SERVICE,
        "if own is None or holder is None or holder.status != UserStatus.ACTIVE:",
        "if own is None or holder is None:",
        REFRESHING,
    ),
    Guard(
        "A refresh token of a session's former version is refused",
        SERVICE,
        "if own.version != claims.session_version or not self._sessions.is_live(own):\n"
        "                raise TokenRevoked()\n            actor",
        "if not self._sessions.is_live(own):\n                raise TokenRevoked()\n"
        "            actor",
        REFRESHING,
    ),
    Guard(
        "A session ends after being idle",
        SESSIONS,
        "ends_at = min(session.expires_at, session.rotated_at + self._idle)",
        "ends_at = session.expires_at",
        REFRESHING,
    ),
    Guard(
        "A session has an absolute end",
        STATUS,
        "ends_at, now = min(row.expires_at, row.rotated_at + self._idle), ",
        "ends_at, now = row.rotated_at + self._idle, ",
        LIVE,
    ),
    Guard(
        "Above the cap the oldest session ends",
        SESSIONS,
        "            .offset(self._cap - 1)\n",
        "            .offset(self._cap + 1000)\n",
        LOG_IN,
    ),
    Guard(
        "Also where one statement starts a session",
        SIGNING_IN,
        '        .offset(bindparam("may_stay"))\n',
        '        .offset(bindparam("may_stay") + 1000)\n',
        LOG_IN,
    ),
    Guard(
        "That ends one session; several are ended step by step",
        SIGNING_IN,
        "            select(func.count()).select_from(surplus).scalar_subquery() <= 1,\n",
        "",
        LOG_IN,
    ),
    Guard(
        "That holds for the user as they were read, and for one log-in at once",
        SIGNING_IN,
        '            users.c.access_version == bindparam("seen_access"),\n',
        "",
        LOG_IN,
    ),
    Guard(
        "That is for the hash that was checked",
        SIGNING_IN,
        '            users.c.password_hash == bindparam("checked_hash"),\n',
        "",
        LOG_IN,
    ),
    Guard(
        "That is for active users alone",
        SERVICE,
        "        if user.status != UserStatus.ACTIVE:\n            return None\n        started",
        "        started",
        LOG_IN,
    ),
    # Live sessions
    Guard(
        "A token of another user's session is refused",
        SERVICE,
        "        if live.user_id != claims.user_id:\n            raise TokenInvalid()\n",
        "",
        (*LIVE, *FORGED, *REFRESHING),
    ),
    Guard(
        "An access token of a session's former version is refused",
        SERVICE,
        "        if live.session_version != claims.session_version:\n"
        "            raise TokenRevoked()\n",
        "",
        (*LIVE, *REFRESHING, "tests/api/test_login.py"),
    ),
    Guard(
        "A revoked session is not live",
        STATUS,
        "                _sessions.c.revoked_at.is_(None),\n",
        "",
        (*LIVE, *REFRESHING),
    ),
    Guard(
        "The session of a user who is not active is not live",
        STATUS,
        '                users.c.status == "active",\n',
        "",
        REFRESHING,
    ),
    Guard(
        "A fill that a revocation has overtaken is refused",
        CACHE,
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\nlocal life",
        "local life",
        LIVE,
    ),
    Guard(
        "A copy of a user's former rights is not believed",
        CACHE,
        "if user == found[2] and roles == found[3] and ",
        "if roles == found[3] and ",
        LIVE,
    ),
    Guard(
        "A copy of former roles is not believed",
        CACHE,
        "if user == found[2] and roles == found[3] and ",
        "if user == found[2] and ",
        (*LIVE, "tests/integration/test_role_races.py"),
    ),
    Guard(
        "A fill that is older than what others know is refused",
        CACHE,
        "  if known and tonumber(known) > tonumber(ARGV[index + 1]) then\n",
        "  if false then\n",
        LIVE,
    ),
    Guard(
        "The end of a session is told after the commit",
        SESSIONS,
        "        after_commit(tell)\n",
        "",
        LIVE,
    ),
    Guard(
        "Without a note that could be left, the database is asked",
        CACHE,
        "            self._unsent[note] = time.monotonic() + self._copy_seconds\n",
        "",
        (*LIVE, "tests/integration/test_redis_away.py"),
    ),
    Guard(
        "Who finds Redis back goes by the database for a moment",
        CACHE,
        "        if self._questions.came_back_within(DOUBTED_SECONDS):\n"
        "            answer = None\n",
        "",
        LIVE,
    ),
    Guard(
        "A suspension ends every session",
        ACCOUNTS,
        "            self._sessions.end_all("
        "user=view.facts, actor=actor, reason=EndReason.ACCOUNT_SUSPENDED)\n",
        "",
        ("tests/api/test_users.py", "tests/api/test_sessions.py"),
    ),
    Guard(
        "Another role or status holds from the next request on",
        ACCOUNTS,
        "        after_commit(lambda: self._live.user_changed(user_id, access_version=version))\n",
        "        after_commit(lambda: None)\n",
        LIVE,
    ),
    Guard(
        "One ends no session of others",
        SESSIONS,
        "self._live_rows(user.id).where(_table.c.id == session_id)",
        "select(_table).where(_table.c.id == session_id)",
        ("tests/api/test_sessions.py", "tests/api/test_user_sessions.py"),
    ),
    Guard(
        "A token that is dead logs nobody out",
        SERVICE,
        "            if not self._sessions.is_live(own) or own.version != claims.session_version:\n"
        "                return\n",
        "",
        ("tests/api/test_sessions.py", "tests/api/test_recovery.py"),
    ),
    Guard(
        "A Redis that is away costs one time-out and not one a request",
        "userapi/expiring_store.py",
        "        if not self._breaker.lets_through():\n            return None\n",
        "",
        ("tests/integration/test_redis_away.py",),
    ),
    # Log-in and lockout
    Guard(
        "Checks that are under way count, too",
        LOCKOUT,
        "& (_table.c.failures + waiting < self._threshold)",
        "& (_table.c.failures < self._threshold)",
        LOCKING,
    ),
    Guard(
        "A lock holds",
        LOCKOUT,
        "or_(_table.c.locked_until.is_(None), _table.c.locked_until <= now)\n"
        "                        & ",
        "_table.c.failures.isnot(None)\n                        & ",
        LOCKING,
    ),
    Guard(
        "Each lock is longer",
        LOCKOUT,
        "self._base * 2 ** min(row.locks, 30)",
        "self._base",
        LOCKING,
    ),
    Guard(
        "An identifier of nobody is counted like another",
        SERVICE,
        "            locked_until = self._lockout.fail(key)\n",
        "            locked_until = self._lockout.fail(key) if user_id else None\n",
        (*LOCKING, "tests/integration/test_equal_answers.py"),
    ),
    Guard(
        "A hash that changed meanwhile was not checked",
        SERVICE,
        "if user is None or user.password_hash != candidate.password_hash:",
        "if user is None:",
        LOG_IN,
    ),
    Guard(
        "The right password of a suspended account opens nothing",
        SERVICE,
        "            refusal = _status_refusal(user)\n",
        "            refusal = None\n",
        LOG_IN,
    ),
    Guard(
        "A failed check takes its place until it is counted",
        LOCKOUT,
        'set_={"in_flight": waiting + 1, ',
        'set_={"in_flight": waiting, ',
        LOCKING,
    ),
    Guard(
        "A right password gives its place back",
        SERVICE,
        "            else:\n                self._lockout.give_back(key)\n",
        "            else:\n",
        ("tests/integration/test_lockout.py",),
    ),
    Guard(
        "A good log-in clears the count",
        SERVICE,
        "                self._lockout.clear([key])\n                user.locked_until",
        "                self._lockout.give_back(key)\n                user.locked_until",
        LOCKING,
    ),
    Guard(
        "Also by one statement",
        LOCKOUT,
        '_table.c.identifier_hash == bindparam("cleared_key"), exists()',
        '_table.c.identifier_hash != bindparam("cleared_key"), exists()',
        LOCKING,
    ),
    Guard(
        "The lock of the other name stays on show",
        SIGNING_IN,
        "            locked_until=other_lock(),\n",
        "            locked_until=None,\n",
        LOCKING,
    ),
    Guard(
        "A wrong present password counts for the name",
        SERVICE,
        "        key = self._lockout.key_of(row.username)\n",
        "        key = self._lockout.key_of(str(row.id))\n",
        ("tests/api/test_sessions.py", "tests/api/test_account_deletion.py"),
    ),
    Guard(
        "The owner is told once for a row of locks",
        SERVICE,
        "        if not was_locked:\n",
        "        if True:\n",
        ("tests/integration/test_lockout.py",),
    ),
    Guard(
        "An unlock clears the count",
        ACCOUNTS,
        "            self.forget_failures(user)\n            self._touch(user)\n",
        "            self._touch(user)\n",
        ("tests/integration/test_lockout.py",),
    ),
    Guard(
        "A reset clears the lock",
        RECOVERY_SERVICE,
        "            self._accounts.forget_failures(user)\n",
        "",
        ("tests/api/test_recovery.py",),
    ),
    Guard(
        "A taken address gets the answer of a new one",
        ACCOUNTS,
        "            except EmailTaken:\n                if not verifying:\n",
        "            except EmailTaken:\n                if True:\n",
        ("tests/api/test_registration.py",),
    ),
    # Passwords
    Guard(
        "Passwords are peppered",
        HASHING,
        'return base64.b64encode(hmac.digest(self._peppers[pepper_id], text, "sha384"))',
        'return base64.b64encode(hmac.digest(b"x", text, "sha384"))',
        PASSWORDS,
    ),
    Guard(
        "Two passwords that share 72 bytes are different",
        HASHING,
        'return base64.b64encode(hmac.digest(self._peppers[pepper_id], text, "sha384"))',
        "return (pepper_id.encode() + text)[:72]",
        PASSWORDS,
    ),
    Guard(
        "A password is the same however it is composed",
        HASHING,
        'unicodedata.normalize("NFKC", password).encode()',
        "password.encode()",
        PASSWORDS,
    ),
    Guard(
        "An unknown user costs a hash",
        HASHING,
        "        self._gate.run(lambda: _spend(self._rounds))\n",
        "",
        (*PASSWORDS, "tests/api/test_metrics.py"),
    ),
    Guard(
        "An old hash is made anew",
        HASHING,
        "return Verification(True, pepper_id != self._pepper_id or cost != self._rounds)",
        "return Verification(True, False)",
        (*PASSWORDS, "tests/api/test_login.py"),
    ),
    Guard(
        "A new password ends the other sessions",
        SERVICE,
        "            self._sessions.end_all(\n"
        "                user=view.facts, actor=actor, reason=EndReason.PASSWORD_CHANGED, "
        "but=own.id\n            )\n",
        "",
        (*REFRESHING, "tests/api/test_login.py", "tests/api/test_user_sessions.py"),
    ),
    Guard(
        "A former pepper verifies",
        PEPPERS,
        "for text in (*former_peppers, pepper)",
        "for text in (pepper,)",
        PASSWORDS,
    ),
    Guard(
        "A hash that cannot be made anew fails no log-in",
        SERVICE,
        "        except ServiceError:\n" '            log.warning("password.rehash_failed"',
        "        except TooManyAttempts:\n" '            log.warning("password.rehash_failed"',
        LOG_IN,
    ),
    Guard(
        "Hashing has a bounded queue",
        "userapi/passwords/gate.py",
        "            if self._inside >= self._limit:\n",
        "            if False:\n",
        ("tests/unit/test_password_gate.py",),
    ),
    Guard(
        "A password that many use is refused",
        POLICY,
        '        if folded in matching.RANKED_DICTIONARIES["passwords"]:\n',
        "        if False:\n",
        ("tests/unit/test_password_policy.py",),
    ),
    Guard(
        "A password that is guessed soon is refused",
        POLICY,
        "        if score < self._settings.password_min_score:\n",
        "        if False:\n",
        ("tests/unit/test_password_policy.py",),
    ),
    Guard(
        "A new password is judged",
        SERVICE,
        "            lambda: self._policy.require(\n"
        '                new, username=known.username, email=known.email, field="new_password"\n'
        "            ),\n",
        "",
        ("tests/api/test_sessions.py",),
    ),
    Guard(
        "A new password is another one",
        SERVICE,
        "            lambda: _require_another(new, current),\n",
        "",
        ("tests/api/test_sessions.py",),
    ),
    Guard(
        "After a new password the former pair is dead",
        SERVICE,
        "        own.version += 1\n",
        "",
        ("tests/api/test_sessions.py",),
    ),
    # Tokens
    Guard(
        "A token says that it is an access token",
        TOKENS,
        "        _require_header(token, ACCESS_TYPE)\n",
        "",
        FORGED,
    ),
    Guard(
        "A token says that it is a refresh token",
        TOKENS,
        "        _require_header(token, REFRESH_TYPE)\n",
        "",
        (*FORGED, *REFRESHING),
    ),
    Guard(
        "Only the configured algorithm verifies",
        TOKENS,
        "JWT_DECODE_ALGORITHMS=[self._keys.algorithm]",
        'JWT_DECODE_ALGORITHMS=["HS256", "HS384", "ES256", "EdDSA", "RS256", "none"]',
        FORGED,
    ),
    Guard(
        "An unknown key id verifies nothing",
        TOKENS,
        '        key = self._keys.verifying(header.get("kid"))\n',
        '        key = self._keys.verifying(header.get("kid")) or self._keys.active()\n',
        (*FORGED, "tests/unit/test_keys.py"),
    ),
    Guard(
        "Production creates no signing key by itself",
        SETTINGS,
        'values.get("environment") != "production" and "jwt_private_key_file" not',
        '"jwt_private_key_file" not',
        ("tests/unit/test_keys.py",),
    ),
    Guard(
        "The issuer is this service",
        TOKENS,
        "            JWT_DECODE_ISSUER=self._issuer,\n",
        "",
        FORGED,
    ),
    Guard(
        "The audience is this platform",
        TOKENS,
        "            JWT_DECODE_AUDIENCE=self._audience,\n",
        "",
        FORGED,
    ),
    Guard(
        "An access token expires",
        TOKENS,
        "        if claims.expires_at + LEEWAY_SECONDS <= now:\n",
        "        if False:\n",
        (*FORGED, *REFRESHING),
    ),
    Guard(
        "A token of the future is refused",
        TOKENS,
        "        if max(claims.issued_at, claims.not_before) > now + LEEWAY_SECONDS:\n",
        "        if False:\n",
        FORGED,
    ),
    Guard(
        "A refresh token expires",
        TOKENS,
        "        if claims.expires_at <= self._clock.now().timestamp():\n",
        "        if False:\n",
        (*FORGED, *REFRESHING),
    ),
    Guard(
        "A remembered token is forgotten when the keys change",
        TOKENS,
        "            if generation != self._generation:\n                self._claims.clear()\n",
        "            if generation != self._generation:\n",
        (*FORGED, "tests/unit/test_keys.py"),
    ),
    Guard(
        "What a token says is of the right type",
        TOKENS,
        "not isinstance(value, list) or not all(isinstance(item, str) for item in value)",
        "not isinstance(value, list)",
        FORGED,
    ),
    Guard(
        "A token that asks for extensions is refused",
        TOKENS,
        '    if "crit" in header or "b64" in header:\n',
        "    if False:\n",
        FORGED,
    ),
    Guard(
        "A retired key verifies no longer than its tokens live",
        KEY_FILES,
        "            return datetime.fromisoformat(record.verifies_until) < self._clock.now()\n",
        "            return False\n",
        ("tests/unit/test_keys.py",),
    ),
    Guard(
        "A retired key verifies, and the next one is published",
        KEYS,
        "            verifying[key.kid] = key\n"
        "            if record.state is KeyState.ACTIVE:\n"
        "                active = key\n",
        "            if record.state is KeyState.ACTIVE:\n"
        "                active = verifying[key.kid] = key\n",
        ("tests/unit/test_keys.py",),
    ),
    Guard(
        "Introspection takes a permission",
        "userapi/api/auth.py",
        "@requires(Permission.TOKENS_INTROSPECT)\n",
        "@signed_in\n",
        ("tests/api/test_recovery.py",),
    ),
    Guard(
        "A former refresh token is inactive",
        "userapi/authentication/introspection.py",
        "        if isinstance(claims, RefreshClaims) and not self._is_present(claims):\n"
        "            return None\n",
        "",
        ("tests/api/test_introspection.py", "tests/api/test_recovery.py"),
    ),
    # One-time tokens
    Guard(
        "A one-time token is good once",
        ONE_TIME,
        "            _table.c.used_at.is_(None),\n            _table.c.voided_at.is_(None),\n"
        "            _table.c.expires_at > now,\n",
        "            _table.c.voided_at.is_(None),\n            _table.c.expires_at > now,\n",
        RECOVERY,
    ),
    Guard(
        "A void token is worth nothing",
        ONE_TIME,
        "            _table.c.voided_at.is_(None),\n            _table.c.expires_at > now,\n",
        "            _table.c.expires_at > now,\n",
        RECOVERY,
    ),
    Guard(
        "A one-time token expires",
        ONE_TIME,
        "            _table.c.expires_at > now,\n",
        "",
        RECOVERY,
    ),
    Guard(
        "A token is for its purpose",
        RECOVERY_SERVICE,
        "PROVING_AN_ADDRESS = (TokenPurpose.EMAIL_CHANGE, TokenPurpose.EMAIL_VERIFICATION)\n",
        "PROVING_AN_ADDRESS = tuple(TokenPurpose)\n",
        RECOVERY,
    ),
    Guard(
        "A one-time token is kept as a hash",
        ONE_TIME,
        '    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()\n',
        "    return text\n",
        ("tests/integration/test_secrets_at_rest.py", *RECOVERY),
    ),
    Guard(
        "A new password voids the tokens that are open",
        SERVICE,
        "        self._one_time_tokens.void_all(user.id)\n        session.flush()\n",
        "        session.flush()\n",
        RECOVERY,
    ),
    Guard(
        "What voids a token leaves its mark",
        ONE_TIME,
        "execute(statement.values(voided_at=self._clock.now()))",
        "execute(statement.values(voided_at=None))",
        RECOVERY,
    ),
    Guard(
        "A suspension voids the tokens that are open",
        ACCOUNTS,
        "            self._one_time_tokens.void_all(user.id)\n            self._sessions",
        "            self._sessions",
        RECOVERY,
    ),
    Guard(
        "Another address from an administrator voids the tokens that are open",
        ACCOUNTS,
        '                values["email_verified"] = False\n'
        "                self._one_time_tokens.void_all(user.id)\n",
        '                values["email_verified"] = False\n',
        RECOVERY,
    ),
    Guard(
        "A confirmed address voids the tokens that are open",
        ACCOUNTS,
        "        _flush(session)\n        self._one_time_tokens.void_all(user.id)\n",
        "        _flush(session)\n",
        RECOVERY,
    ),
    Guard(
        "A void mail is not sent any more",
        ONE_TIME,
        "        self._mails.cancel(user_id, *MAIL_FOR.values())\n",
        "",
        RECOVERY,
    ),
    Guard(
        "A link goes to the address that the account has",
        MAIL_DELIVERY,
        "                recipient = user.email\n",
        "                recipient = mail.recipient\n",
        ("tests/api/test_recovery.py",),
    ),
    Guard(
        "A suspended user redeems nothing",
        RECOVERY_SERVICE,
        "        if user is None or user.status == UserStatus.SUSPENDED:\n",
        "        if user is None:\n",
        RECOVERY,
    ),
    Guard(
        "A reset ends every session",
        RECOVERY_SERVICE,
        "            self._accounts.forget_failures(user)\n"
        "            self._sessions.end_all("
        "user=view.facts, actor=actor, reason=EndReason.PASSWORD_RESET)\n",
        "            self._accounts.forget_failures(user)\n",
        ("tests/api/test_recovery.py",),
    ),
    Guard(
        "Leaving takes the password",
        RECOVERY_SERVICE,
        "        self._authentication.require_password(user_id, current_password, actor=actor)\n"
        "        with transaction() as session:\n"
        "            user = self._locked_self(session, user_id)\n"
        "            names",
        "        with transaction() as session:\n"
        "            user = self._locked_self(session, user_id)\n"
        "            names",
        ("tests/api/test_account_deletion.py",),
    ),
    Guard(
        "Another address takes the password",
        RECOVERY_SERVICE,
        "        self._authentication.require_password(user_id, current_password, actor=actor)\n"
        "        with transaction() as session:\n"
        "            user = self._locked_self(session, user_id)\n"
        "            owner",
        "        with transaction() as session:\n"
        "            user = self._locked_self(session, user_id)\n"
        "            owner",
        ("tests/api/test_recovery.py",),
    ),
    # Revoked keys
    Guard(
        "A revoked key is gone from the state",
        KEY_FILES,
        "            kept = [r for r in former if r is not record]\n",
        "            kept = list(former)\n",
        ("tests/integration/test_key_revocation.py",),
    ),
    Guard(
        "The file of a revoked key is deleted",
        KEY_FILES,
        "            self._write_state(kept)\n"
        "            self.path(record).unlink(missing_ok=True)\n",
        "            self._write_state(kept)\n",
        ("tests/integration/test_key_revocation.py",),
    ),
    Guard(
        "A revocation is audited",
        "userapi/cli/keys.py",
        "    _record(revocation)\n",
        "",
        ("tests/integration/test_key_revocation.py",),
    ),
    # A missing pepper
    Guard(
        "A hash whose pepper is missing is no failure",
        HASHING,
        "            raise PepperMissing()\n",
        "            return NO_MATCH\n",
        MISSING_PEPPER,
    ),
    Guard(
        "An unknown name looks like one whose pepper is missing",
        SERVICE,
        "                raise PepperMissing()\n",
        "                pass\n",
        MISSING_PEPPER,
    ),
    Guard(
        "A missing pepper is not ready",
        "userapi/health.py",
        "    return Status.UNKNOWN if database.missing_peppers else Status.UP\n",
        "    return Status.UP\n",
        MISSING_PEPPER,
    ),
    # Everybody out
    Guard(
        "Every batch of users is visited",
        "userapi/accounts/everybody_out.py",
        "            after = batch[-1]\n",
        "            break\n",
        EVERYBODY_OUT,
    ),
    Guard(
        "Sessions that end leave a note for the copies",
        SESSIONS,
        "        after_commit(lambda: self._live.sessions_ended(ended))\n",
        "",
        EVERYBODY_OUT,
    ),
    Guard(
        "Browser sessions are bound to SECRET_KEY",
        "userapi/console/cookies.py",
        '    prefix = f"{KEY_PREFIX}{key_id(settings.secret_key)}:"\n',
        "    prefix = KEY_PREFIX + key_id(settings.app_name)\n",
        EVERYBODY_OUT,
    ),
    # Access
    Guard(
        "A permission is asked for",
        ACCESS,
        "if not is_self and not any(p in actor.permissions for p in permissions):\n",
        "if False:\n",
        ("tests/api/test_access.py",),
    ),
    Guard(
        "Who must change the password does nothing else",
        ACCESS,
        "    if live.must_change_password and not password_change_pending:\n",
        "    if False:\n",
        (
            "tests/api/test_users.py",
            "tests/api/test_login.py",
            "tests/integration/test_commands.py",
        ),
    ),
    Guard(
        "Nobody changes their own address without the password",
        ACCOUNTS,
        '        if "email" in changes and actor.is_user(user_id):\n',
        "        if False:\n",
        ("tests/api/test_users.py",),
    ),
    Guard(
        "Tokens of whoever must change the password say nothing",
        SERVICE,
        "    return () if holder.must_change_password else holder.roles\n",
        "    return holder.roles\n",
        ("tests/api/test_long_tokens.py",),
    ),
    Guard(
        "Introspection says nothing of whoever must change the password",
        "userapi/authentication/introspection.py",
        "roles = () if live.must_change_password else live.roles",
        "roles = live.roles",
        ("tests/api/test_introspection.py",),
    ),
    Guard(
        "A token without permissions says that they are omitted",
        TOKENS,
        'if self._payload["permissions_omitted"] is not True or "permissions" in self._payload:\n',
        "if False:\n",
        FORGED,
    ),
    Guard(
        "Kept answers of strangers are kept apart by their networks",
        "userapi/api/idempotency.py",
        'caller = f"network:{client_network()}" if actor.id is None',
        'caller = "anonymous" if actor.id is None',
        ("tests/api/test_idempotency.py",),
    ),
    Guard(
        "A kept answer goes with the user that it shows",
        ACCOUNTS,
        "        drop_answers_about(user.id)\n",
        "",
        ("tests/api/test_idempotency.py",),
    ),
    # Rank
    Guard(
        "Permissions of other services give no rank",
        PERMISSIONS,
        "return self.holds_all or self.rank > other.rank",
        "return self.holds_all or set(self) > set(other)",
        RANK,
    ),
    Guard(
        "Nobody takes permissions through a role from whom they do not outrank",
        EDITING,
        "        require_outranks_losers(actor, before=former, after=self._roles.graph_now())\n",
        "",
        RANK,
    ),
    Guard(
        "Peers are among those whose loss is looked at",
        ROLES,
        "if not rank <= mine or shared in rank]",
        "if not rank <= mine]",
        RANK,
    ),
    # What strangers send
    Guard(
        "Nested JSON is counted",
        BODIES,
        "    _require_shallow(value)\n    return value\n",
        "    return value\n",
        ("tests/api/test_bodies_and_errors.py",),
    ),
    Guard(
        "A stored hash beyond the budget is not checked",
        FOREIGN,
        "        or work > MAXIMUM_ARGON2_WORK\n",
        "",
        ("tests/unit/test_password_foreign_hashes.py",),
    ),
    Guard(
        "A sign-in leads on to pages of the console alone",
        CONSOLE_SIGN_IN,
        "    if target is None or not ONWARD.fullmatch(target):\n",
        "    if target is None:\n",
        ("tests/abuse/test_control_characters.py",),
    ),
    Guard(
        "Links keep no parameter that url_for takes for its own",
        FORMS,
        " if value and name in known}",
        " if value}",
        ("tests/abuse/test_control_characters.py",),
    ),
    Guard(
        "Redis counts a request for its user only if the session is live",
        RATES,
        "if string.sub(value, 1, #ARGV[1]) == ARGV[1] then chosen = 2 end\n",
        "chosen = 2\n",
        LIMITS,
    ),
    Guard(
        "So does the database where Redis has no copy",
        LIMITING,
        "        require_live(own)\n        key = user\n",
        "        key = user\n        require_live(own)\n",
        LIMITS,
    ),
    Guard(
        "A form is counted before it is read",
        LIMITING,
        "        if endpoint in named and request.method",
        "        if endpoint in named and request.form and request.method",
        LIMITS,
    ),
    Guard(
        "Changes of address are limited by account",
        LIMITING,
        "            beside_default[endpoint]()\n",
        "            pass\n",
        LIMITS,
    ),
    Guard(
        "The server stores no session of a visitor",
        COOKIES,
        '            if "session_id" in session:\n',
        "            if session:\n",
        ("tests/console/test_visitors.py",),
    ),
    Guard(
        "A form without the token of its own visitor or session is refused",
        PAGES,
        "        request.get_data()\n    csrf.protect()\n",
        "        request.get_data()\n",
        ("tests/console/test_visitors.py", "tests/console/test_sign_in.py"),
    ),
    Guard(
        "A form is read only when it is known who sends it",
        PAGES,
        "            _sign_in_by_cookie()\n            if permission",
        "            _receive_form(view)\n"
        "            _sign_in_by_cookie()\n            if permission",
        ("tests/console/test_visitors.py",),
    ),
    # Imports of the worker
    Guard(
        "An import ends when its creator is suspended",
        JOBS,
        "        if status != UserStatus.ACTIVE or Permission.USERS_IMPORT not in held:\n",
        "        if Permission.USERS_IMPORT not in held:\n",
        IMPORTING,
    ),
    Guard(
        "An import ends when its creator loses users:import",
        JOBS,
        "        if status != UserStatus.ACTIVE or Permission.USERS_IMPORT not in held:\n",
        "        if status != UserStatus.ACTIVE:\n",
        IMPORTING,
    ),
    Guard(
        "An import checks its creator in the transaction of each batch",
        JOBS,
        "        self._require_permitted(session, job.created_by)\n        created = ",
        "        created = ",
        IMPORTING,
    ),
    Guard(
        "An import grants roles under the present permissions of its creator",
        JOBS,
        "        return _actor(job, held)\n",
        '        return _actor(job, PermissionSet(job.actor["permissions"]))\n',
        IMPORTING,
    ),
    Guard(
        "A batch of an import that another worker continues is rolled back",
        JOBS,
        " or job.claimed_by != self._worker:",
        ":",
        IMPORTING,
    ),
    Guard(
        "The rows of an import are stored encrypted",
        JOBS,
        "        return self._encryption.seal(plain, PURPOSE, _bound_to(import_id, number))\n",
        "        return plain\n",
        IMPORTING,
    ),
    Guard(
        "The rows of an import are deleted at its end",
        JOBS,
        "        session.execute(delete(_batches).where(_batches.c.import_id == import_id))\n",
        "",
        IMPORTING,
    ),
    Guard(
        "Export: a formula behind another list separator is guarded",
        "userapi/export.py",
        "if guarded != text or _AT_START.match(text) else text",
        "if _AT_START.match(text) else text",
        ("tests/unit/test_export.py",),
    ),
    # Bodies
    Guard(
        "A body ends with 413 beyond its limit, whatever its framing says",
        BODY_LIMITS,
        "        if self._count > self._limit:\n",
        "        if False:\n",
        BODY_BOUNDS,
    ),
    Guard(
        "A body shorter than its Content-Length has no effect",
        BODY_LIMITS,
        "            if self._count < (self._length or 0):\n",
        "            if False:\n",
        BODY_BOUNDS,
    ),
    Guard(
        "A request that is not whole has no effect where nobody reads its body",
        "userapi/api/bodies.py",
        "    app.before_request(receive_body)\n",
        "",
        BODY_BOUNDS,
    ),
    Guard(
        "A body that trickles in ends with 408",
        BODY_LIMITS,
        "            with self._watched(left):\n",
        "            with nullcontext():\n",
        BODY_BOUNDS,
    ),
    Guard(
        "What a request took to reach the proxy counts for its time",
        BODY_LIMITS,
        "        self._seconds = ARRIVAL_SECONDS - _seconds_before(environ)\n",
        "        self._seconds = float(ARRIVAL_SECONDS)\n",
        BODY_BOUNDS,
    ),
    Guard(
        "A file is read when its sender is known",
        "userapi/api/bodies.py",
        '    if request.blueprint != "console" and not hasattr(view, "body_limit"):\n',
        "    if view is not None:\n",
        ("tests/api/test_import.py", "tests/console/test_visitors.py"),
    ),
    Guard(
        "A page's form must be whole",
        "userapi/console/pages.py",
        "        request.get_data()\n    csrf.protect()\n",
        "        pass\n    csrf.protect()\n",
        ("tests/console/test_visitors.py",),
    ),
    Guard(
        "More threads than log-ins may wait",
        "gunicorn.conf.py",
        "_least_threads = _settings.password_hash_queue + SPARE_THREADS\n",
        "_least_threads = 24\n",
        ("tests/blackbox/test_login_storm.py",),
    ),
    Guard(
        "nginx passes whole requests on",
        "deploy/nginx/default.conf",
        "    proxy_request_buffering on;\n",
        "    proxy_request_buffering off;\n",
        ("tests/deploy/test_nginx.py",),
    ),
    # Files and mails
    Guard(
        "The SQLite database is readable by its owner alone",
        "userapi/database.py",
        "            make_file(path)\n",
        "            pass\n",
        PRIVATE,
    ),
    Guard(
        "What an earlier release left readable for others is closed",
        "userapi/__init__.py",
        "    tighten_instance(settings.instance_dir)\n",
        "",
        PRIVATE,
    ),
    Guard(
        "Folders of the instance are for their owner alone",
        "userapi/private_files.py",
        "FOLDER_MODE = 0o700\n",
        "FOLDER_MODE = 0o755\n",
        PRIVATE,
    ),
    Guard(
        "A log within the instance is readable by its owner alone after it was moved",
        "userapi/observability.py",
        "            make_file(Path(self.baseFilename))\n",
        "            pass\n",
        PRIVATE,
    ),
    Guard(
        "No address of a mail that was sent is kept",
        MAIL_DELIVERY,
        '                    recipient="",\n',
        "",
        ("tests/integration/test_mail_delivery.py",),
    ),
]

"""The alert rules: each fires when it should, stays silent when all is well, and has its guide."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.programs import PROMETHEUS, may_be_skipped

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
NAMES = [rule["alert"] for rule in RULES]

REQUESTS = 'flask_http_request_total{method="GET",endpoint="/",status="%s"}'
BUCKET = (
    'flask_http_request_duration_seconds_bucket{method="GET",endpoint="/api/v1/users/me",'
    'status="200",le="%s"}'
)
WELL = {
    'up{job="userapi",instance="a:8000"}': "1x60",
    REQUESTS % 200: "0+6000x60",
    REQUESTS % 503: "0+1x60",
    BUCKET % "0.25": "0+6000x60",
    BUCKET % "1": "0+6000x60",
    BUCKET % "+Inf": "0+6000x60",
    'dependency_up{dependency="database"}': "1x60",
    'dependency_up{dependency="rabbitmq"}': "1x60",
    'db_pool_connections{state="in_use"}': "2x60",
    'db_pool_connections{state="idle"}': "6x60",
    "outbox_oldest_seconds": "1x60",
    "outbox_parked": "0x60",
    "mail_oldest_seconds": "1x60",
    "mails_parked": "2+0.1x60",
    "worker_last_seen_timestamp_seconds": "0+60x60",
    'auth_logins_total{outcome="success"}': "0+600x60",
    'auth_logins_total{outcome="failure"}': "0+100x60",
    "auth_lockouts_total": "0+1x60",
    'auth_mfa_total{method="totp",outcome="success"}': "0+100x60",
    'auth_mfa_total{method="totp",outcome="failure"}': "0+20x60",
    'key_checks_total{outcome="accepted"}': "0+6000x60",
    'key_checks_total{outcome="token_expired"}': "0+60x60",
    "totp_secrets_unreadable": "0x60",
    'auth_refreshes_total{outcome="reused"}': "0x60",
    'password_hash_wait_seconds_bucket{le="1"}': "0+600x60",
    'password_hash_wait_seconds_bucket{le="2"}': "0+600x60",
    'password_hash_wait_seconds_bucket{le="+Inf"}': "0+600x60",
    'rate_limited_total{endpoint="auth.login"}': "0+1x60",
    "audit_seal_keys_missing": "0x60",
    "password_peppers_missing": "0x60",
}
# What is different when an alert has to fire.
BAD: dict[str, dict[str, str | None]] = {
    "UserServiceDown": {'up{job="userapi",instance="a:8000"}': "0x60"},
    "UserServiceGone": {'up{job="userapi",instance="a:8000"}': None},
    "UserServiceFails": {REQUESTS % 500: "0+60x60"},
    "UserServiceRefuses": {REQUESTS % 503: "0+600x60"},
    "UserServiceSlow": {BUCKET % "0.25": "0+5000x60"},
    "DependencyDown": {'dependency_up{dependency="database"}': "0x60"},
    "PoolExhausted": {'db_pool_connections{state="idle"}': "0x60"},
    "EventsDelayed": {"outbox_oldest_seconds": "0+60x60"},
    "EventsParked": {"outbox_parked": "1x60"},
    "MailsDelayed": {"mail_oldest_seconds": "0+60x60"},
    "MailsParked": {"mails_parked": "2x10 2+2x50"},
    "WorkerSilent": {"worker_last_seen_timestamp_seconds": "0x60"},
    "LoginsFail": {'auth_logins_total{outcome="failure"}': "0+6000x60"},
    "SecondStepsFail": {'auth_mfa_total{method="totp",outcome="failure"}': "0+200x60"},
    "KeysRefused": {'key_checks_total{outcome="token_expired"}': "0+9000x60"},
    "TotpSecretsUnreadable": {"totp_secrets_unreadable": "1x60"},
    "AccountsLocked": {"auth_lockouts_total": "0+10x60"},
    "RefreshTokensReused": {'auth_refreshes_total{outcome="reused"}': "0x20 1x40"},
    "HashesQueue": {'password_hash_wait_seconds_bucket{le="1"}': "0+300x60"},
    "PasswordPepperMissing": {"password_peppers_missing": "1x60"},
    "AuditSealKeyMissing": {"audit_seal_keys_missing": "1x60"},
    "CallersLimited": {'rate_limited_total{endpoint="auth.login"}': "0+600x60"},
}


needs_promtool = pytest.mark.skipif(
    may_be_skipped(PROMETHEUS), reason="Prometheus is not installed"
)


def fires(tmp_path: Path, alert: str, series: dict[str, str | None], minute: int) -> bool:
    """Return whether promtool sees the alert at this minute."""
    promtool = PROMETHEUS.require().with_name("promtool")
    test = {
        "rule_files": [str(FOLDER / "alerts.yml")],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in series.items() if values
                ],
                "alert_rule_test": [
                    {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    run = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, check=False
    )
    output = run.stdout + run.stderr
    assert run.returncode == 0 or f'alertname="{alert}"' in output, output
    return run.returncode != 0


@pytest.mark.thorough
@needs_promtool
@pytest.mark.parametrize("alert", NAMES)
def test_an_alert_fires_for_what_it_is_about_and_not_when_all_is_well(
    tmp_path: Path, alert: str
) -> None:
    assert not fires(tmp_path, alert, dict(WELL), 30)
    assert fires(tmp_path, alert, {**WELL, **BAD[alert]}, 30)


@needs_promtool
def test_events_without_a_broker_are_not_late(tmp_path: Path) -> None:
    """Without RabbitMQ they stay in the outbox, which is no fault."""
    alone = {name: values for name, values in WELL.items() if "rabbitmq" not in name}

    assert not fires(tmp_path, "EventsDelayed", {**alone, **BAD["EventsDelayed"]}, 30)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_says_how_bad_it_is_and_has_its_section_in_the_guide(rule: dict[str, Any]) -> None:
    guide = (REPOSITORY / "docs" / "operating.md").read_text("utf-8")
    section = re.search(rf"^### {rule['alert']}\n\n(.+?)(?=^#|\Z)", guide, re.M | re.S)

    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["runbook"] == f"docs/operating.md#{rule['alert'].lower()}"
    assert section is not None and len(section[1]) > 100


def test_every_alert_is_tried() -> None:
    assert sorted(BAD) == sorted(NAMES)

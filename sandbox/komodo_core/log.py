"""Core's first log lines, word for word as v1.19.5, v2.0.0 and v2.3.2 print them, with this Core's settings in them."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.periphery.log import HIDDEN, TIMES, debug

KEYWORDS = 'INFO: Config File Keywords: ["*config.*"]'

_ALIAS_PAIRS = (
    ("KOMODO_FIRST_SERVER", "KOMODO_FIRST_SERVER_ADDRESS", "komodo_first_server_address"),
    ("TZ", "KOMODO_TIMEZONE", "komodo_timezone"),
)
"""Two spellings of one setting: v2 ends with a panic (v2.3.2:client/core/rs/src/entities/config/core.rs)."""


def alias_pair(env: Mapping[str, str]) -> str:
    """The panic's message for the first pair in the environment; empty when there is none."""
    for old, new, field in _ALIAS_PAIRS:
        if old in env and new in env:
            return f"Failed to parse Komodo Core environment\n\nCaused by:\n    duplicate field `{field}`"
    return ""


def _flag(env: Mapping[str, str], name: str, *, default: bool = False) -> str:
    return debug(env.get(name, str(default)).lower() == "true")


def _hidden(env: Mapping[str, str], name: str) -> str:
    return debug(HIDDEN if env.get(name) else "")


def _optional(env: Mapping[str, str], name: str, *, hide: bool = False) -> str:
    if not env.get(name):
        return "None"
    return f"Some({debug(HIDDEN if hide else env[name])})"


def config(env: Mapping[str, str], version: str) -> str:
    """The `CoreConfig {…}` line."""
    major, minor = (int(n) for n in version.split(".")[:2])
    pairs = _start(env, major, minor) + _middle(env, major, minor) + _end(env, major, minor)
    return "CoreConfig { " + ", ".join(f"{k}: {v}" for k, v in pairs) + " }"


Pairs = list[tuple[str, str]]


def _start(env: Mapping[str, str], major: int, minor: int) -> Pairs:
    pairs: Pairs = [
        ("title", debug(env.get("KOMODO_TITLE", "Komodo"))),
        ("host", debug(env.get("KOMODO_HOST", "https://komodo.example.com"))),
        ("port", env.get("KOMODO_PORT", "9120")),
        ("bind_ip", debug(env.get("KOMODO_BIND_IP", "[::]"))),
        ("internet_interface", debug(env.get("KOMODO_INTERNET_INTERFACE", ""))),
    ]
    if major == 1:
        pairs.append(("passkey", debug(HIDDEN)))
    else:
        pairs += [
            ("private_key", debug(env.get("KOMODO_PRIVATE_KEY", "file:/config/keys/core.key"))),
            ("periphery_public_keys", "None"),
            ("passkey", _optional(env, "KOMODO_PASSKEY", hide=True)),
        ]
    pairs.append(("timezone", debug(env.get("KOMODO_TIMEZONE", env.get("TZ", "")))))
    if major >= 2 and minor >= 3:
        pairs.append(("default_pagination_limit", "50"))
    pairs += [
        ("ui_write_disabled", _flag(env, "KOMODO_UI_WRITE_DISABLED")),
        ("disable_confirm_dialog", _flag(env, "KOMODO_DISABLE_CONFIRM_DIALOG")),
        ("disable_websocket_reconnect", "false"),
        ("disable_init_resources", _flag(env, "KOMODO_DISABLE_INIT_RESOURCES")),
        ("enable_fancy_toml", "false"),
    ]
    if major == 1:
        pairs += [
            ("first_server", _optional(env, "KOMODO_FIRST_SERVER")),
            ("first_server_name", debug(env.get("KOMODO_FIRST_SERVER_NAME", "Local"))),
            ("frontend_path", debug("/app/frontend")),
        ]
    else:
        first = "KOMODO_FIRST_SERVER" if "KOMODO_FIRST_SERVER" in env else "KOMODO_FIRST_SERVER_ADDRESS"
        pairs += [
            ("first_server_name", _optional(env, "KOMODO_FIRST_SERVER_NAME")),
            ("first_server_address", _optional(env, first)),
        ]
    return pairs


def _middle(env: Mapping[str, str], major: int, minor: int) -> Pairs:
    database = ", ".join(
        f"{k}: {v}"
        for k, v in (
            ("uri", _hidden(env, "KOMODO_DATABASE_URI")),
            ("address", debug(env.get("KOMODO_DATABASE_ADDRESS", ""))),
            ("username", _hidden(env, "KOMODO_DATABASE_USERNAME")),
            ("password", _hidden(env, "KOMODO_DATABASE_PASSWORD")),
            ("app_name", debug("komodo_core")),
            ("db_name", debug(env.get("KOMODO_DATABASE_DB_NAME", "komodo"))),
        )
    )
    pairs: Pairs = [
        ("database", f"DatabaseConfig {{ {database} }}"),
        ("local_auth", _flag(env, "KOMODO_LOCAL_AUTH")),
    ]
    if major >= 2:
        pairs.append(("min_password_length", "1"))
    pairs += [
        ("init_admin_username", _optional(env, "KOMODO_INIT_ADMIN_USERNAME", hide=True)),
        ("init_admin_password", debug(HIDDEN)),
        ("transparent_mode", _flag(env, "KOMODO_TRANSPARENT_MODE")),
        ("enable_new_users", _flag(env, "KOMODO_ENABLE_NEW_USERS")),
        ("disable_user_registration", _flag(env, "KOMODO_DISABLE_USER_REGISTRATION")),
    ]
    if major >= 2 and minor >= 3:
        pairs += [("disable_local_user_registration", "None"), ("disable_oidc_user_registration", "None")]
    pairs += [
        ("lock_login_credentials_for", "[]"),
        ("disable_non_admin_create", _flag(env, "KOMODO_DISABLE_NON_ADMIN_CREATE")),
        ("jwt_secret", _hidden(env, "KOMODO_JWT_SECRET")),
        ("jwt_ttl", TIMES.get(env.get("KOMODO_JWT_TTL", "1-day"), "OneDay")),
        ("oidc_enabled", _flag(env, "KOMODO_OIDC_ENABLED")),
        *((f"oidc_{name}", debug("")) for name in ("provider", "redirect_host", "client_id", "client_secret")),
        ("oidc_use_full_email", "false"),
        ("oidc_additional_audiences", "[]"),
    ]
    if major >= 2 and minor >= 3:
        pairs.append(("oidc_auto_redirect", "false"))
    if major == 1:
        empty = 'OauthCredentials { enabled: false, id: "", secret: "" }'
    else:
        empty = 'NamedOauthConfig { enabled: false, client_id: "", client_secret: "" }'
    return [*pairs, ("google_oauth", empty), ("github_oauth", empty)]


def _end(env: Mapping[str, str], major: int, minor: int) -> Pairs:
    pairs: Pairs = []
    if major >= 2:
        pairs += [
            ("auth_rate_limit_disabled", _flag(env, "KOMODO_AUTH_RATE_LIMIT_DISABLED")),
            ("auth_rate_limit_max_attempts", "5"),
            ("auth_rate_limit_window_seconds", "15"),
            ("cors_allowed_origins", "[]"),
            ("cors_allow_credentials", "false"),
            ("session_allow_cross_site", "false"),
        ]
    if major >= 2 and minor >= 3:
        pairs += [
            ("x_content_type_options", debug("nosniff")),
            ("x_frame_options", debug("DENY")),
            ("x_xss_protection", debug("1; mode=block")),
            ("referrer_policy", debug("strict-origin-when-cross-origin")),
            ("content_security_policy", debug("")),
        ]
    pairs += [
        ("webhook_secret", _hidden(env, "KOMODO_WEBHOOK_SECRET")),
        ("webhook_base_url", debug(env.get("KOMODO_WEBHOOK_BASE_URL", ""))),
    ]
    logging = "level: Info, stdio: Standard, pretty: false, "
    if major == 1:
        app = 'app_id: 0, installations: [], pk_path: "/github/private-key.pem"'
        pairs.append(("github_webhook_app", f"GithubWebhookAppConfig {{ {app} }}"))
        logging += 'location: true, otlp_endpoint: "", opentelemetry_service_name: "Komodo"'
    else:
        ansi = _flag(env, "KOMODO_LOGGING_ANSI", default=True)
        times = "timestamps: true, " if minor >= 3 else ""
        logging += f'location: false, ansi: {ansi}, {times}otlp_endpoint: "",'
        logging += ' opentelemetry_service_name: "Komodo", opentelemetry_scope_name: "Komodo"'
    interval = TIMES.get(env.get("KOMODO_MONITORING_INTERVAL", "15-sec"), "FifteenSeconds")
    pairs += [
        ("logging", f"LogConfig {{ {logging} }}"),
        ("pretty_startup_config", "false"),
        ("unsafe_unsanitized_startup_config", "false"),
        ("keep_stats_for_days", "14"),
        ("keep_alerts_for_days", "14"),
        ("resource_poll_interval", TIMES.get(env.get("KOMODO_RESOURCE_POLL_INTERVAL", "1-hr"), "OneHour")),
        ("monitoring_interval", interval),
        ("aws", 'AwsCredentials { access_key_id: "", secret_access_key: "" }'),
        ("git_providers", "[]"),
        ("image_registries" if major >= 2 and minor >= 3 else "docker_registries", "[]"),
        ("secrets", "{}"),
        ("ssl_enabled", "false"),
        ("ssl_key_file", debug("/config/ssl/key.pem")),
        ("ssl_cert_file", debug("/config/ssl/cert.pem")),
    ]
    if major >= 2 and minor >= 3:
        pairs += [("reporting_enabled", "false"), ("reporting_private_key", debug("file:/config/keys/reporting.key"))]
    pairs += [(f"{n}_directory", debug(f"/config/{n}")) for n in ("sync", "repo", "action")]
    if major >= 2:
        pairs += [("ui_path", debug("/app/ui")), ("ui_index_force_no_cache", "false")]
    return pairs

"""A readable name for a device, from its User-Agent."""

from functools import lru_cache


@lru_cache(maxsize=2048)
def device_label(user_agent: str | None) -> str:
    """Return a name such as "Firefox on Windows", or "Unknown device"."""
    if not user_agent:
        return "Unknown device"
    # Imported here because most commands do not need it.
    from ua_parser import parse

    result = parse(user_agent)
    browser = result.user_agent.family if result.user_agent else None
    system = result.os.family if result.os else None
    if browser and system and "Other" not in (browser, system):
        return f"{browser} on {system}"
    if browser and browser != "Other":
        return browser
    # A program and not a browser: its product token, as in "curl/8.5.0".
    product = user_agent.split("/", 1)[0].strip()
    return product[:40] if product and product.isprintable() else "Unknown device"

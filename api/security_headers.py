"""What every page of the service tells a browser: nothing from another host, no inline script, no frame."""


def security_headers(referrer: str, **allowed: str) -> dict[str, str]:
    """A strict Content-Security-Policy and what belongs to it. ``allowed``: directives, with ``_`` for ``-``,
    of what a page needs beside scripts, styles, images and calls of the service."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        **{name.replace("_", "-"): value for name, value in allowed.items()},
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": referrer,
    }

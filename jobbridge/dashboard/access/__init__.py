"""Who asks, and what they may: tokens, sessions, proxies, the guard before every route."""

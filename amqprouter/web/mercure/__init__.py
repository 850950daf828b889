"""Mercure, 0.x: `resource` is the hub's URL, `subscriptions` its API; `bearers` and `claims` say what a token does."""

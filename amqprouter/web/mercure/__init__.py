"""Mercure, 0.x: `resource` is the hub's URL, `subscriptions` its API, `leaf` what both share.

`bearers` and `claims` say what a token allows; `update_form` reads what is published.
"""

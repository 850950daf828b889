"""Mercure, 0.x and 1.0: `resource` is the hub's URL, `subscriptions` its API, `leaf` what both share; `metadata` tells
of it.

`bearers` and `claims` say what a token allows; `matchers` reads what a subscriber asks for and `update_form` what is
published. `version1` is what 1.0 has of the hub's own.
"""

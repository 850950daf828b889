"""Whether somebody is who they claim to be.

`authenticator` is for devices: `proofs` of several kinds (`hmac_proof` with its `replay_memory`, `broker_topic_proof`,
`mqtt_client_proof`, `broker_logins`), `speakers` for publishers that speak for devices, `answers` remembered
(`aged_cache`), `asking` in turns, `lock_out` for guesses. `user_authenticator` is for users. Both ask ``checkers``,
which are plugins, about `credentials`; `circuit_breaker` and `blame` say whose fault it is that one does not answer.
Slow work is done in `threads`: `password_hash`.

Files are read by `auth_file` and changed by `line_file`: `passwords` and `passwd_file`, `hmac_keys` and `hmac_file`,
`acl_file`. Tokens: `jwt_keys`, `token_verifier`, `token_signer`. `broker_access` answers for RabbitMQ what a device may
do there.
"""

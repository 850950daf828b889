"""Whether somebody is who they claim to be.

`authenticator` is for devices: `proofs` of several kinds (`hmac_proof`, `broker_topic_proof`, `broker_logins`),
`answers` remembered, `asking` in turns, `lock_out` for guesses. `user_authenticator` is for users. Both ask `checkers`,
which are plugins. Files are read by `auth_file` and changed by `line_file`; `passwd_file`, `hmac_file` and `acl_file`
are for one kind each. Tokens: `jwt_keys`, `token_verifier`, `token_signer`. `broker_access` answers for RabbitMQ what a
device may do there.
"""

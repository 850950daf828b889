"""Bodies: bytes in, values out. One judge for the store, events, Celery tasks, placeholders and routes.

- `judge`: what a body is, by its message's own words and the route's; a `judgement` is the answer.
- `choice`: what a route says, `decode` and `undecodable`.
- `unpack`: gzip, deflate and zstd around a body, within bounds.
- decoders: `strict_json` (`json_text` bounds what it may cost), `plain_text` for a text, a number and bytes,
  `cbor`, `messagepack`, `senml`, `sparkplug` (with `sparkplug_schema`, and the `sparkplug_names` of births),
  and plugins; `installed` finds them by name.
- `condition`: what a route may ask of a value.
- `values`: what every reader can be given, and how JSON says what it has no word for.
"""

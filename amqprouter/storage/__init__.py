"""Documents in MongoDB.

`target` puts messages together into batches, in a `lineup` that keeps each device's order. `document` makes a message
into one out of BSON `elements` (`json_body`, `keys`), which is sent as it is; `encoding` encodes the others.
`mongo` writes, over a `mongo_link` to `mongo_address`; `mongo_indexes` says which indexes there should be, and
`mongo_reply` what became of each document.
"""

"""Documents in MongoDB.

`target` puts messages together into batches, in a `lineup` that keeps each device's order. `document` makes a message
into one (`json_body`, `keys`, `encoding`); `mongo` writes, over `mongo_link`, and `mongo_reply` says what became of
each.
"""

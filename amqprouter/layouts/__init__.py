"""Layouts: where the device id, the topic and more stand in the routing keys of systems as they are.

`words` escapes what MQTT allows in a name and a device id does not. `pattern` matches and fills keys, `layout` makes of
a match whose message it is, `layout_set` chooses among the layouts that apply, and `builtin` has those of well-known
systems. `command_keys` fills in the keys of commands that go back to the devices. `one_device` notices
where a layout is missing.
"""

"""Cayenne LPP in events of ChirpStack."""

"""Stored mail: what was said (messages and their bodies) apart from where it lies (placements).

`headers` reads the few header fields a list shows, `addresses`, `dates` and `words` (RFC 2047) what is in them,
`incoming` is what the sync hands over, `messages_store` writes batches as `copy_rows` has them, `placements_store`
moves flags, disappearances and recognised messages.
"""

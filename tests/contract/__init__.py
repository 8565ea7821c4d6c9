"""The contract for machines, and what holds the API against it.

    reference.json      every answer that the API may give, field by field
    reference           reads it
    shapes              how a document differs from what the copy says it is
    described           the same fields as the OpenAPI document tells them
    witness             judges every answer that comes by, and remembers which of the copy's entries it was
    scenes, refusals    have a running daemon give each of them
"""

"""Sharing an account: who may do what with it, invitations, shares, and the audit of both.

    rules            the roles, what each may do, when an invitation holds; pure
    views            what the API is told
    service          what the API asks, each in one transaction
    sharing_store    the SQL of invitations and shares
    audit_store      the SQL of who did what

A share is a row of `account_access`, which every query that an API handler makes joins: so taking it back is one
DELETE, and holds from its commit on.
"""

"""The HTTP API: session authentication, resources, errors, OpenAPI, and the server that bounds its callers.

A request passes, in this order: `guard` and `server` (the connection, bounded in bytes, time and number), `web`
(requests under way, the time of each, the envelope for everything that goes wrong), and in `app` `cookies` and `tokens`
(who calls), `origins` (may a browser say this here) and `schemas` (the body); then a resource module, which asks the
daemon through `services` and answers with a model of `answers`.  What a resource declares as an `Operation` is what
validates, what serialises and what `/mail/openapi.json` says: there is no second list to keep in step.

    resources                     all of them: accounts, reputation, campaigns, sync,
                                  invitations (and shares, and the audit)
    operation, openapi, docs      an operation's declaration; the document written from all; the page that shows it
    access                        who may do what, for readers, from the declarations and the rules of sharing
    answers_reputation            what is answered about reputation and limits
    answers_sharing               what is answered about shares, and
    schemas_sharing               what may be sent about shares, campaigns and changes
    claims, jwks, keys            from a token's claims to a user; the issuer's published keys; reading a key set
    published                     the fetch of that set
    limits, proxies, errors       requests at once; who calls behind a proxy; everything that can go wrong
    heads, messages               request heads that are refused as they come; validation in plain sentences
    idle                          when a connection has said nothing for too long
    operations                    the operator's listener: metrics and health

The daemon never imports this package; its composition root alone does.
"""

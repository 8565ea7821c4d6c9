"""The HTTP API: session authentication, resources, errors, OpenAPI, and the server that bounds its callers.

A request passes, in this order: `guard` and `server` (the connection, bounded in bytes, time and number), `web`
(requests under way, the time of each, the envelope for everything that goes wrong), and in `app` `cookies` and `tokens`
(who calls), `origins` (may a browser say this here) and `schemas` (the body); then a resource module, which asks the
daemon through `services` and answers with a model of `answers`.  What a resource declares as an `Operation` is what
validates, what serialises and what `/mail/openapi.json` says: there is no second list to keep in step.

The daemon never imports this package; its composition root alone does.
"""

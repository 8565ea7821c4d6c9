"""Users as their tokens name them, and what their plans allow.

`users` holds the values and the pure rules, `users_store` the SQL; `rates` and `rates_store` say how often something
may be done.  Verifying a token is the API's business; what arrives here has been verified.
"""

from .users import PlanLimits, Plans, User

__all__ = ["PlanLimits", "Plans", "User"]

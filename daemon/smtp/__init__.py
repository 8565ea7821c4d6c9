"""SMTP submission: log in, send, and know exactly what became of each recipient.

`replies`, `envelope`, `faults` and `outcome` are pure: what a server said, what we say, what it means, what became of
it.  `stream` carries aiosmtplib over one of our connections, `session` opens it, `submission` sends, `verify` only
logs in and out.  Only this package knows aiosmtplib.
"""

from .faults import Phase
from .outcome import SendResult, Verdict
from .replies import Reply
from .session import LOCAL_NAME, Timeouts, open_submission
from .submission import Patience, Submission, SubmissionStatistics
from .verify import verify_login

__all__ = [
    "LOCAL_NAME",
    "Patience",
    "Phase",
    "Reply",
    "SendResult",
    "Submission",
    "SubmissionStatistics",
    "Timeouts",
    "Verdict",
    "open_submission",
    "verify_login",
]

"""How the end of a sync child is judged: the world's faults by their disposition, everything else as our bug."""

from uuid import uuid4

import pytest

from daemon.account.judging import CONFIRMATIONS, Judge, fault_in, lost_claim
from daemon.errors import Disposition, Fault, FaultKind
from daemon.storage.fence import Claim, ClaimLost
from supervisor import Verdict

LOST = Fault(FaultKind.LOST, "The connection was lost.")
THROTTLED = Fault(FaultKind.THROTTLED, "Slow down.", retry_after=600.0)
FINAL = Fault(FaultKind.AUTH_FAILED, "Wrong password.", disposition=Disposition.PARK)
BARE = Fault(FaultKind.AUTH_FAILED, "Refused.")
OURS = Fault(FaultKind.PROTOCOL, "Impossible.", disposition=Disposition.ESCALATE)
STOLEN = ClaimLost(Claim(uuid4(), uuid4(), 1))


@pytest.mark.parametrize(
    ("exc", "verdict"),
    [
        (LOST, Verdict.EXCUSED),
        (FINAL, Verdict.FINAL),
        (OURS, Verdict.CRASH),
        (ValueError("a bug"), Verdict.CRASH),
        (STOLEN, Verdict.FINAL),
        (ExceptionGroup("", [LOST, ExceptionGroup("", [THROTTLED])]), Verdict.EXCUSED),
        (ExceptionGroup("", [LOST, FINAL]), Verdict.FINAL),
        (ExceptionGroup("", [LOST, ValueError("a bug")]), Verdict.CRASH),
        (ExceptionGroup("", [ValueError("as the claim went"), STOLEN]), Verdict.FINAL),
    ],
)
def test_verdicts(exc: Exception, verdict: Verdict) -> None:
    assert Judge()(exc).verdict is verdict


def test_a_server_that_names_its_own_pause_gets_it() -> None:
    assert Judge()(THROTTLED).not_before == 600.0
    assert Judge()(ExceptionGroup("", [LOST, THROTTLED])).not_before == 600.0
    assert Judge()(LOST).not_before == 0.0


def test_a_bare_refusal_is_final_when_repeated() -> None:
    judge = Judge()
    verdicts = [judge(BARE).verdict for _ in range(CONFIRMATIONS)]
    assert verdicts == [Verdict.EXCUSED] * (CONFIRMATIONS - 1) + [Verdict.FINAL]


def test_a_login_in_between_begins_the_count_anew() -> None:
    judge = Judge()
    for _ in range(CONFIRMATIONS - 1):
        judge(BARE)
    judge.forgive()
    assert judge(BARE).verdict is Verdict.EXCUSED


def test_other_faults_between_refusals_neither_count_nor_forgive() -> None:
    judge = Judge()
    for _ in range(20):
        assert judge(LOST).verdict is Verdict.EXCUSED
    for fault in (BARE, LOST, BARE):
        assert judge(fault).verdict is Verdict.EXCUSED
    assert judge(BARE).verdict is Verdict.FINAL


def test_the_fault_in_a_group() -> None:
    assert fault_in(LOST) is LOST
    assert fault_in(ExceptionGroup("", [LOST, FINAL, THROTTLED])) is FINAL
    assert fault_in(ExceptionGroup("", [LOST, THROTTLED])) is THROTTLED
    assert fault_in(ExceptionGroup("", [LOST, KeyError("bug")])) is None
    assert fault_in(KeyError("bug")) is None
    assert lost_claim(ExceptionGroup("", [LOST, STOLEN]))
    assert not lost_claim(LOST)

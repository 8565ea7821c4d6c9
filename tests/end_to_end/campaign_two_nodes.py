"""By hand: two daemons on one database with many accounts; one is killed, the other has them all; it comes back.

    python -m tests.end_to_end.campaign_two_nodes --accounts 200 --claim-ttl 30
"""

import argparse
from dataclasses import asdict

from tests.end_to_end.stage import say, stage
from tests.end_to_end.two_nodes import TwoNodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--claim-ttl", type=float, default=30.0, help="seconds (the daemon's default is 30)")
    arguments = parser.parse_args()
    ttl = arguments.claim_ttl
    with stage() as scene:
        sections = {"fleet": {"claim_ttl": ttl}, "plans.free": {"accounts": 100_000}}
        one, other = scene.daemon(**sections), scene.daemon(**sections)
        users = [f"n{number}@example.test" for number in range(arguments.accounts)]
        figures = TwoNodes(one, other, scene.mail, users).run(patience=ttl + 120.0)
        for name, value in asdict(figures).items():
            say(f"{name:>13}  {value:.2f} s" if isinstance(value, float) else f"{name:>13}  {value}")
        allowed = ttl + 10.0
        kept = "kept" if figures.taken_over <= allowed else "NOT kept"
        say(f"taken over within the claim's expiry plus 10 s ({allowed:g} s): {kept}")
        say("every message is stored once, and told once")
        say(f"both ended with {one.stop()} and {other.stop()}")


if __name__ == "__main__":
    main()

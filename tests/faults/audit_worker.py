"""A process that audits into a store until it is done or killed, and says what is stored.

Lines on standard output: `stored COUNT`, each written when COUNT audits were reported stored.
Usage: python audit_worker.py STORE COUNT (0: until it is killed)
"""

import sys
from pathlib import Path

from thinkonce.host.mapfile import HostFile, host_path
from thinkonce.meaning.audit.audits import Audits
from thinkonce.meaning.audit.budget import Mode
from thinkonce.meaning.audit.judge import Judge
from thinkonce.meaning.verdict.grounds import Grounds
from thinkonce.meaning.verdict.ruling import Judged, Ruling
from thinkonce.tiers.sqlite import SqliteTier

GROUNDS = Grounds("en", None, None, (3.0, 2.0, 1.0), 0, "a basis")
FLUSH_EVERY = 5


def opened(path, dice=lambda: 0.0):
    tier = SqliteTier(Path(path), secret=b"s" * 32, host=HostFile(host_path(path)))
    return tier, Audits(Judge(None), tier.ledger, dice=dice)


def account_of(audits):
    return audits.account("space", GROUNDS, 0.05, Mode.CALIBRATED)


def main(path, count):
    tier, audits = opened(path)
    account = account_of(audits)
    done = 0
    while done < count or not count:
        found = Judged(b"%d" % (done % 7), "q", 0.9, score=3.5, chance=0.97, band=done % 2)
        draw = audits.draw(account, Ruling((found,), 0))
        audits.compare(account, draw, found, "alike", "alike")
        done += 1
        if done % FLUSH_EVERY == 0:
            while not audits.flush(10):
                audits.compare(account, None, found, "alike", "alike")  # the store was busy
            sys.stdout.write(f"stored {done}\n")
            sys.stdout.flush()
    audits.close()
    tier.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

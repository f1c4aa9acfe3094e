"""`python -m thinkonce.gateway.workers`: one worker; only a parent starts it."""

from __future__ import annotations

import sys

from thinkonce.gateway.workers.worker import run_worker

sys.exit(run_worker())

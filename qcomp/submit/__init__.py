"""Artifacts on machines: planned, sent, waited for, fetched; see docs/submitting.md."""

from qcomp.submit.jobs import Job, resume
from qcomp.submit.patience import Patience
from qcomp.submit.plan import Plan, connect, plan, start
from qcomp.submit.record import JobRecord, Store

__all__ = [
    "Job",
    "JobRecord",
    "Patience",
    "Plan",
    "Store",
    "connect",
    "plan",
    "resume",
    "start",
]

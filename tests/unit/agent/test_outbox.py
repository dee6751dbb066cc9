"""What jobs tell the hub: in which order, how often, and until when."""

from agent.outbox import Outbox
from sendense.v1 import agent_session_pb2 as pb

OPENED = pb.SessionRequest(job_opened=pb.JobOpened(job_id="job-1", snapshot="1-snapshot-1"))
READ = pb.SessionRequest(job_read=pb.JobRead(job_id="job-1"))
UPLOADED = pb.SessionRequest(job_uploaded=pb.JobUploaded(job_id="job-1"))
FAILED = pb.SessionRequest(job_failed=pb.JobFailed(job_id="job-2"))


class Sent(list[pb.SessionRequest]):
    """What one session was given."""

    def __init__(self, outbox: Outbox, *, closes_jobs: bool = True) -> None:
        outbox.attach(self.append, closes_jobs=closes_jobs)


def test_events_go_out_at_once_and_again_in_order_in_each_session() -> None:
    outbox = Outbox()
    first = Sent(outbox)
    outbox.post(OPENED)
    assert first == [OPENED]
    outbox.planned("job-1")
    outbox.post(READ)
    outbox.detach()
    outbox.post(FAILED)
    outbox.post(UPLOADED)
    assert first == [OPENED, READ]
    for _ in range(2):
        assert Sent(outbox) == [READ, FAILED, UPLOADED]
        outbox.detach()
    outbox.closed("job-1")
    assert Sent(outbox) == [FAILED]
    assert outbox.job_ids() == {"job-2"}


def test_opening_is_not_repeated_once_it_is_answered_or_the_job_ended() -> None:
    outbox = Outbox()
    outbox.post(OPENED)
    assert Sent(outbox) == [OPENED]
    outbox.planned("job-1")
    assert Sent(outbox) == []
    outbox.post(OPENED)
    outbox.post(UPLOADED)
    assert Sent(outbox) == [UPLOADED]


def test_hub_that_closes_no_jobs_is_told_the_end_once_and_of_no_reading() -> None:
    outbox = Outbox()
    outbox.post(OPENED)
    outbox.post(READ)
    outbox.post(FAILED)
    assert Sent(outbox, closes_jobs=False) == [OPENED, FAILED]
    assert Sent(outbox, closes_jobs=False) == [OPENED]
    sent = Sent(outbox, closes_jobs=False)
    outbox.post(READ)
    outbox.post(UPLOADED)
    assert sent == [OPENED, UPLOADED]
    assert outbox.job_ids() == set()

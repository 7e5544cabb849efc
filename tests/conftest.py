"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# Laws are tried without a deadline: the machine that tries them may be busy. The examples are the same in each run.
settings.register_profile("edgepack", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile("edgepack")

# A shell that runs us in the background ignores SIGINT, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

"""Fixtures and options that all tests share."""

import os
import signal
from pathlib import Path

# A suite started in the background ignores Ctrl-C, and so would the processes that it sends one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# One thread for every numeric library: the tests share two cores. Set before they are imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["QCOMP_CACHE"] = "off"  # what an earlier suite computed says nothing about this one

import pytest  # noqa: E402  the environment is set first
from hypothesis import HealthCheck, settings  # noqa: E402

# The same examples in every run, and none that fails because the machine has other work to do.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

SHARED = Path(__file__).parent.parent.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files")


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared corpora and models beside the project; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared corpora are not beside this checkout")
    return SHARED


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    import sys

    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)

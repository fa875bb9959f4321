"""Speed, accuracy and faults, measured."""

import engine  # noqa: F401  before torch, see there

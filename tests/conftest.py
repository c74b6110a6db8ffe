"""Ctrl-C means Ctrl-C: a shell that starts the tests in the background has it ignored, also in their children."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)

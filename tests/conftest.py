"""Tests press Ctrl-C at processes of theirs; what a shell runs in the background inherits it ignored."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)

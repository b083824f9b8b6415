"""What every test needs, set before anything else is imported."""

import os
import signal

# The models of the tests are too small for BLAS threads, which spin where cores are busy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A shell's background jobs ignore Ctrl-C, and so would the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

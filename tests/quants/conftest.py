"""Where numba keeps the machine code of the compiled kernels while they are tested.

It looks at the file a kernel stands in, not at what that imports: so the folder's name is a
digest of all of them, and no test runs the code of yesterday.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import tempfile
from pathlib import Path

from lfm2gguf import quants

SOURCES = sorted((Path(quants.__file__).parent / "compiled").glob("*.py"))
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]
os.environ.setdefault(
    "NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"lfm2gguf-{getpass.getuser()}-{DIGEST}")
)

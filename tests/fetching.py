"""What tests of fetching one file share: the file's bytes, its entry, short time limits, and what stays beside it."""

import random

from clipbert_cli.assets.catalog import FileEntry
from clipbert_cli.assets.connection import RetryPolicy

# Not a short limit of silence: on a loaded machine a server may need more than a second for its answer, and the bytes
# that it sends after the client has left are lost.
QUICK = RetryPolicy(connect=30, read=30, attempts=3, backoff=0.01)
BODY = random.Random(1).randbytes(3_000_000)


def entry(*urls, **facts):
    return FileEntry.model_validate({"sources": list(urls), **facts})


def leftovers(target):
    return sorted(path.name for path in target.parent.glob(target.name + "*") if path != target)

"""A checkpoint as a repository of GGUF files: made, judged, described, and put on the Hub.

``plan`` decides what there will be, ``making`` fills a folder with it and judges every file,
``card`` is the page that people read first, ``state`` lets a run go on where one stopped, and
``upload`` puts the folder on the Hub in one commit.
"""

from lfm2gguf.publication.making import Publication
from lfm2gguf.publication.plan import LADDER, PublicationPlan, Settings, plan_publication
from lfm2gguf.publication.session import publish

__all__ = [
    "LADDER",
    "Publication",
    "PublicationPlan",
    "Settings",
    "plan_publication",
    "publish",
]

"""Marking of what models make: `Exporter.export` is the way out of every generated file; verify.py looks files over.

Invisible watermark in picture (picture.py) and sound (sound.py), which say 32 bits (code.py); a visible label; a
signed C2PA manifest (manifest.py, certificate.py); a side-car. Training-time samples do not pass here.
"""

from moviegen.provenance.export import Exporter, Made, Marking, Origin
from moviegen.provenance.filters import Filters

__all__ = ["Exporter", "Filters", "Made", "Marking", "Origin"]

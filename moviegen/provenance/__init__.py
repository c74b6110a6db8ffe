"""Marking of what models make (`export` is the way out of every generated file, `verify` looks it over); consent records.

Invisible watermark in picture (picture.py) and sound (sound.py), which say 32 bits (code.py); a visible label; a
signed C2PA manifest (manifest.py, certificate.py); a side-car. Training-time samples do not pass here. consent.py holds
the records without which no real person's face is used.
"""

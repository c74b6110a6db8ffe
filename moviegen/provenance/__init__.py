"""Marking of what models make (`export` is every file's way out, `verify` looks it over), and consent records.

Invisible watermark in picture (picture.py) and sound (sound.py), which say 32 bits (code.py); a visible label; a
signed C2PA manifest (manifest.py, certificate.py); a side-car. Training-time samples do not pass here. consent.py holds
the records without which no real person's face is used.
"""

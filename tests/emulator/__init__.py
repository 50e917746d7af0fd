"""An emulated wide-area link: `model.py` in virtual time, `process.py` on real interfaces."""

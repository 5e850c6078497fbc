"""Stage 1 at work: reader (`loading`) -> mapper (`encoding`) -> writer (`storing`), joined by `runner`.

`session` is one worker from start to end.
"""

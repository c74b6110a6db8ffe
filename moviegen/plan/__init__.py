"""What a training run costs before it is paid for: operations, bytes, communication, time, and the layouts that fit.

Only `counting` imports torch; everything else is arithmetic on plain numbers.
"""

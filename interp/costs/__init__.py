"""What a run is going to cost, before it starts: forwards and tokens, peak memory, bytes on disk.

Everything is counted from the settings, the data and the model's configuration; nothing is run. `work` says what a
forward and a token are, `space` what memory and disk are, `asking` how long answers are expected to be, and `counting`
counts the same things in a run.
"""

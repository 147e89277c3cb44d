"""The paper's tables: every method on every instance, resumable, over many processes. `python -m interp.benchmark`.

Read in this order: `settings` (what is asked), `arms` (the rows of each table), `work` (units of work and what each
writes), `engine` (does them: resumes, shards, merges), `tables` (units to numbers), `output` (numbers to files).
"""

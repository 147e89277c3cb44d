"""Table 11 of the paper on the demo, category edited on x category asked.

`python experiments/table11.py` writes figures/tables/table11.*
"""

from tables_common import script

EDITS, SEED = 36, 0

if __name__ == "__main__":
    script(__doc__, "table11", "--limit", str(EDITS), "--seed", str(SEED))

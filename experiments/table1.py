"""Table 1 of the paper on the demo, every method, one edit an instance.

`python experiments/table1.py` writes figures/tables/table1.*
"""

from tables_common import script

INSTANCES, SEED = 108, 0

if __name__ == "__main__":
    script(__doc__, "table1", "--limit", str(INSTANCES), "--seed", str(SEED))

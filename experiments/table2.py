"""Table 2 of the paper on the demo, DINM's ablations.

`python experiments/table2.py` writes figures/tables/table2.*
"""

from tables_common import script

INSTANCES, SEED = 108, 0

if __name__ == "__main__":
    script(__doc__, "table2", "--limit", str(INSTANCES), "--seed", str(SEED))
